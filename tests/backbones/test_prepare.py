"""From a foreign graph to a backbone: what is assumed, what the graph decides, and hostile graphs."""

import json

import numpy as np
import pytest
from helpers.graphs import SIZE, network, normalised, saved, tap_values, tensor_value
from onnx import TensorProto, helper, numpy_helper

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.errors import BackboneError, OptionError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)


def test_assumptions_are_noted(tmp_path):
    notes = backbones.load(f"onnx:{saved(tmp_path, size='s')}").notes
    assert any("assumed -1 to 1" in note and "--mean" in note for note in notes)
    assert any("224 x 224" in note for note in notes)
    assert len(backbones.load(f"onnx:{saved(tmp_path, 'b.onnx')}").notes) == 1


def test_a_resampling_that_is_not_supported_is_noted(tmp_path):
    path = saved(tmp_path)
    (tmp_path / "net.onnx.json").write_text(json.dumps({"mean": 0, "std": 1, "resample": 1}))
    backbone = backbones.load(f"onnx:{path}")
    assert backbone.preprocess.interpolation == "bilinear"
    assert ["resampling 1" in note for note in backbone.notes] == [True]


def test_a_graph_that_takes_uint8_scales_by_itself(tmp_path):
    path = tmp_path / "net.onnx"
    model = network()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node[0].input[0] = "as float"
    model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["as float"], to=TensorProto.FLOAT))
    path.write_bytes(model.SerializeToString())
    backbone = backbones.load(f"onnx:{path}")
    assert backbone.notes == ()
    expected = tensor_value(network(), "late", normalised(PIXELS, 0, 1 / 255)).mean(axis=(2, 3))
    np.testing.assert_allclose(tap_values(backbone, PIXELS)["features"], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(OptionError, match="scales them itself"):
        backbones.load(f"onnx:{path}", options=InputOptions(mean=(0, 0, 0), std=(1, 1, 1)))


def test_another_size_than_the_graphs_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="only takes 32 x 32"):
        backbones.load(f"onnx:{saved(tmp_path)}", options=InputOptions(size=(64, 64)))


def changed(change):
    """The bytes of the network after ``change``."""
    model = network()
    change(model)
    return model.SerializeToString()


def with_input(dtype, shape):
    def change(model):
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", dtype, shape))

    return changed(change)


def with_second_weight(value):
    def change(model):
        weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w2")
        weight.CopyFrom(numpy_helper.from_array(value.astype(np.float32), "w2"))

    return changed(change)


def add_second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))


def set_old_opset(model):
    model.opset_import[0].version = 7


def set_unknown_operator(model):
    model.graph.node[1].op_type = "Teleport"


HOSTILE = {
    "empty": b"",
    "text": b"not a graph",
    "cut off": network().SerializeToString()[:900],
    "zeros": bytes(5000),
    "no nodes": changed(lambda model: model.graph.ClearField("node")),
    "no output": changed(lambda model: model.graph.ClearField("output")),
    "no input": changed(lambda model: model.graph.ClearField("input")),
    "two inputs": changed(add_second_input),
    "three dimensions": with_input(TensorProto.FLOAT, ["n", 3, SIZE]),
    "integers": with_input(TensorProto.INT64, ["n", 3, SIZE, SIZE]),
    "one channel": with_input(TensorProto.FLOAT, ["n", 1, SIZE, SIZE]),
    "not finite": with_second_weight(np.full((12, 8, 3, 3), np.nan)),
    "old": changed(set_old_opset),
    "unknown operator": changed(set_unknown_operator),
    "wrong shapes": with_second_weight(np.zeros((12, 5, 3, 3))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs_are_refused_in_one_line(tmp_path, name):
    (tmp_path / "net.onnx").write_bytes(HOSTILE[name])
    with pytest.raises(BackboneError) as caught:
        backbones.load(f"onnx:{tmp_path / 'net.onnx'}")
    assert "\n" not in str(caught.value)
