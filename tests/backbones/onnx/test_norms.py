"""Batch norms of graphs: what they have stored, and what images give as their input."""

import numpy as np
import onnx
import pytest
from helpers.graphs import normalised, normed, tensor_value
from onnx import helper, numpy_helper

from headstart.backbones.onnx.graph import attribute
from headstart.backbones.onnx.norms import find_norms, known_norms, measure_norms, pad_as_tensorflow
from headstart.backbones.scaling import ChannelStatistics, Norms, Scaling
from headstart.errors import BackboneError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
SCALING = Scaling((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "BGR")
STORED = [(np.arange(8.0), np.arange(1.0, 9)), (np.arange(12.0), np.arange(2.0, 14)), (np.ones(12), np.full(12, 3.0))]


def statistics(mean, variance):
    return ChannelStatistics(tuple(map(float, mean)), tuple(map(float, variance)))


def test_batch_norms_are_found_and_the_graph_stays():
    model = normed(STORED)
    before = model.SerializeToString()
    norms = find_norms(model)
    assert norms.statistics == tuple(statistics(*pair) for pair in STORED[:2])
    assert norms.axes == (1, 1)
    assert not norms.padding_is_open
    assert model.SerializeToString() == before
    part = onnx.load_model_from_string(norms.graph)
    assert [node.op_type for node in part.graph.node] == ["Conv", "BatchNormalization", "Relu", "Conv"]


def test_the_last_batch_norms_tell_the_padding():
    norms = find_norms(normed(STORED), padding_is_open=True)
    assert norms.statistics == tuple(statistics(*pair) for pair in STORED)
    assert norms.padding_is_open
    assert not find_norms(normed(STORED[:2]), padding_is_open=True).padding_is_open


def test_a_graph_without_batch_norms():
    assert find_norms(normed([])) is None
    untrained = [(np.zeros(8), np.ones(8)), (np.zeros(12), np.ones(12))]
    assert find_norms(normed(untrained)) is None


def test_measured_are_the_inputs_of_the_batch_norms():
    model = normed(STORED)
    images = SCALING(PIXELS).transpose(0, 3, 1, 2)
    first, second = measure_norms(find_norms(model), PIXELS, SCALING, first=True)
    for found, tensor in ((first, "c1"), (second, "c2")):
        expected = tensor_value(model, tensor, images)
        np.testing.assert_allclose(found.mean, expected.mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found.variance, expected.var(axis=(0, 2, 3)), rtol=1e-3, atol=1e-5)


def test_of_the_last_ones_with_tensorflows_padding():
    model = normed(STORED)
    (found,) = measure_norms(find_norms(model, padding_is_open=True), PIXELS, SCALING, first=False, same_padding=True)
    for node in model.graph.node:  # 32 and 16 pixels, stride 2, 3 x 3: one more row below and one column to the right
        pads = [a for a in node.attribute if a.name == "pads"]
        if pads and attribute(node, "strides") == [2, 2]:
            pads[0].ints[:] = [0, 0, 1, 1]
    expected = tensor_value(model, "c3", SCALING(PIXELS).transpose(0, 3, 1, 2))
    np.testing.assert_allclose(found.mean, expected.mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-5)


def test_tensorflows_padding_is_that_of_convolutions_with_a_stride():
    model = normed(STORED)
    pad_as_tensorflow(model.graph)
    attributes = [
        {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for node in model.graph.node
        if node.op_type == "Conv"
    ]
    assert [a.get("auto_pad") for a in attributes] == [b"SAME_UPPER", b"SAME_UPPER", None]
    assert ["pads" in a for a in attributes] == [False, False, True]


def test_batch_norms_written_as_arithmetic():
    mean, variance = np.linspace(-1, 1, 3), np.linspace(1, 2, 3)
    nodes = [
        helper.make_node("Mul", ["image", "two"], ["doubled"]),
        helper.make_node("Sub", ["doubled", "mean"], ["centred"]),
        helper.make_node("Sub", ["centred", "two"], ["other"]),
    ]
    weights = [
        numpy_helper.from_array(np.full((1, 1, 1, 3), 2, np.float32), "two"),
        numpy_helper.from_array(mean.astype(np.float32).reshape(1, 1, 1, 3), "mean"),
    ]
    values = [helper.make_tensor_value_info(n, 1, ["n", 32, 32, 3]) for n in ("image", "other")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 7
    assert find_norms(model) is None
    norms = find_norms(model, known_norms([(mean, variance)]))
    assert norms.statistics == (statistics(mean, variance),)
    assert norms.axes == (3,)
    (found,) = measure_norms(norms, PIXELS, SCALING, first=True)
    np.testing.assert_allclose(found.mean, 2 * SCALING(PIXELS).mean(axis=(0, 1, 2)), rtol=1e-4)


def test_a_graph_that_cannot_be_run(tmp_path):
    norms = find_norms(normed(STORED))
    with pytest.raises(BackboneError, match="The graph before the batch norms"):
        measure_norms(norms, PIXELS[:, :5, :5, :1], Scaling((0.0,), (1.0,)), first=True)
    path = tmp_path / "norms.onnx"
    path.write_bytes(norms.graph)
    in_file = Norms(path, norms.statistics, norms.axes)
    assert measure_norms(in_file, PIXELS, SCALING, first=True) == measure_norms(norms, PIXELS, SCALING, first=True)


def test_images_one_by_one_are_images_together():
    images = normalised(PIXELS)
    expected = tensor_value(normed(STORED), "c1", images).var(axis=(0, 2, 3))
    measured = measure_norms(find_norms(normed(STORED)), PIXELS, Scaling((0.5,) * 3, (0.5,) * 3), first=True)[0]
    np.testing.assert_allclose(measured.variance, expected, rtol=1e-3)
