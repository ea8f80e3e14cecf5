"""A graph holds only arithmetic on images, in bounded memory and time."""

import time
from itertools import pairwise

import numpy as np
import onnx
import pytest
from helpers.graphs import network, saved
from onnx import TensorProto, helper, numpy_helper

from headstart import backbones
from headstart.backbones.onnx import limited_run
from headstart.backbones.onnx.limits import OPERATORS, check_operators, check_size, live_bytes, work_of
from headstart.backbones.onnx.shapes import Shapes, infer_shapes
from headstart.errors import BackboneError


def graph_of(*nodes, initializers=(), outputs=("o",)):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(list(nodes), "g", [image], values, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


def looping():
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still_on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("still_on", TensorProto.BOOL, [])],
    )
    return graph_of(
        helper.make_node("Loop", ["", "yes"], ["o"], body=body), initializers=[constant("yes", np.array(True))]
    )


REFUSED = {
    "Loop": looping(),
    "an operator of another domain": graph_of(helper.make_node("Evil", ["image"], ["o"], domain="com.example")),
    "random numbers": graph_of(helper.make_node("RandomNormalLike", ["image"], ["o"])),
    "an unknown operator": graph_of(helper.make_node("relu", ["image"], ["o"])),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_operators_are_refused(tmp_path, kind):
    path = tmp_path / "net.onnx"
    path.write_bytes(REFUSED[kind].SerializeToString())
    with pytest.raises(BackboneError, match="is not one of the") as caught:
        backbones.load(f"onnx:{path}")
    assert "\n" not in str(caught.value)


def test_a_node_with_a_graph_inside_and_sparse_weights_are_refused():
    node = helper.make_node("Relu", ["image"], ["o"])
    node.attribute.append(helper.make_attribute("body", looping().graph))
    with pytest.raises(BackboneError, match="graph inside"):
        check_operators(graph_of(node))
    model = graph_of(helper.make_node("Relu", ["image"], ["o"]))
    model.graph.sparse_initializer.add()
    with pytest.raises(BackboneError, match="sparse"):
        check_operators(model)


def test_every_operator_of_the_list_is_one_of_onnx():
    assert not OPERATORS - {schema.name for schema in onnx.defs.get_all_schemas()}


def test_live_bytes_by_hand():
    model = graph_of(
        helper.make_node("Concat", ["image", "image"], ["a"], axis=1),  # 6 x 32 x 32
        helper.make_node("Relu", ["a"], ["b"]),  # a and b live
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),  # b and c live
        helper.make_node("Add", ["k", "k"], ["folded"]),  # of constants: stays
        helper.make_node("Add", ["c", "folded"], ["o"]),
        initializers=[constant("k", np.zeros((1, 6, 1, 1), np.float32))],
    )
    shapes = infer_shapes(model, "image", False, (32, 32))
    assert live_bytes(model.graph, shapes) == 4 * 2 * 6 * 32 * 32
    assert live_bytes(graph_of(*model.graph.node[3:]).graph, shapes) == 4 * (6 + 6)


@pytest.mark.parametrize(
    ("node", "sizes", "expected"),
    [
        (helper.make_node("Conv", ["x", "w"], ["y"]), {"x": (1, 3, 9, 9), "w": (8, 3, 3, 3), "y": (1, 8, 7, 7)}, 10584),
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"]), {"x": (1, 2, 5, 5), "w": (2, 4, 3, 3)}, 50 * 36),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 5]), {"y": (1, 2, 4, 4)}, 32 * 15),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), {"x": (1, 7, 5), "w": (5, 6), "y": (1, 7, 6)}, 7 * 5 * 6),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transA=1), {"x": (5, 7), "w": (5, 6), "y": (7, 6)}, 7 * 5 * 6),
        (
            helper.make_node("Einsum", ["x", "w"], ["y"], equation="bij, bkj -> bik"),
            {"x": (2, 3, 4), "w": (2, 5, 4)},
            2 * 3 * 4 * 5,
        ),
        (
            helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=5),
            {"x": (7, 2, 3), "w": (1, 20, 3), "r": (1, 20, 5)},
            14 * (60 + 100),
        ),
        (helper.make_node("Relu", ["x"], ["y"]), {"x": (1, 2), "y": (1, 2)}, 0),
    ],
)
def test_work_by_hand(node, sizes, expected):
    assert work_of(node, Shapes(sizes, frozenset(), {}, (32, 32))) == expected


def test_too_much_work_is_refused():
    node = helper.make_node("MaxPool", ["image"], ["o"], kernel_shape=[2000, 2000], pads=[1500] * 4)
    shapes = Shapes({"image": (1, 3, 32, 32), "o": (1, 3, 1033, 1033)}, frozenset(), {}, (32, 32))
    with pytest.raises(BackboneError, match=r"1\.3e\+13 multiply-adds"):
        check_size(graph_of(node).graph, shapes, None)


def doubling(times):
    """Each Concat doubles the map: 3 x 32 x 32 x 4 bytes x 2 ** times."""
    names = ["image", *(f"t{i}" for i in range(times))]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=1) for a, b in pairwise(names)]
    return graph_of(*nodes, helper.make_node("GlobalAveragePool", [names[-1]], ["o"]))


def huge_constant(dims):
    return graph_of(
        helper.make_node("ConstantOfShape", ["dims"], ["big"]),
        helper.make_node("GlobalAveragePool", ["big"], ["mean"]),
        helper.make_node("Add", ["image", "mean"], ["o"]),
        initializers=[constant("dims", np.array(dims, np.int64))],
    )


def hidden_constant():
    """Shape inference does not see how large it is."""
    return graph_of(
        helper.make_node("ReduceMax", ["image"], ["top"], keepdims=0),
        helper.make_node("Exp", ["top"], ["one"]),
        helper.make_node("Mul", ["one", "count"], ["large"]),
        helper.make_node("Cast", ["large"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "flat"], ["dims"]),
        helper.make_node("ConstantOfShape", ["dims"], ["big"]),
        helper.make_node("ReduceMax", ["big"], ["low"], keepdims=0),
        helper.make_node("Add", ["image", "low"], ["o"]),
        initializers=[constant("count", np.array(4e9, np.float32)), constant("flat", np.array([1], np.int64))],
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (doubling(20), "GiB of memory"),
        (huge_constant([1, 3, 32000, 32000]), "GiB of memory"),
        (hidden_constant(), "cannot be run"),
    ],
)
def test_too_much_memory_is_refused_before_it_is_taken(tmp_path, model, message):
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BackboneError, match=message) as caught:
        backbones.load(f"onnx:{path}")
    assert "\n" not in str(caught.value)


def test_a_run_that_does_not_end_is_stopped(monkeypatch):
    monkeypatch.setattr(limited_run, "SECONDS", 0.01)
    start = time.monotonic()
    with pytest.raises(BackboneError, match="more than"):
        limited_run.shapes_by_running(network().SerializeToString(), "image", [1, 3, 32, 32], "float32", ["logits"])
    assert time.monotonic() - start < 60


def test_shapes_that_only_a_run_gives(tmp_path):
    """A Range by the size of its input: as PyTorch writes windows and strides."""
    model = graph_of(
        helper.make_node("Shape", ["image"], ["size"]),
        helper.make_node("ReduceMax", ["size"], ["last"], keepdims=0),
        helper.make_node("Range", ["zero", "last", "one"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["ramp"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["image", "ramp"], ["o"]),
        initializers=[constant("zero", np.int64(0)), constant("one", np.int64(1))],
    )
    shapes = infer_shapes(model, "image", False, (32, 32))
    assert shapes.by_name["numbers"] == (32,)
    assert shapes.by_name["o"] == (1, 3, 32, 32)


def test_a_usual_network_passes(tmp_path):
    assert [tap.name for tap in backbones.load(f"onnx:{saved(tmp_path)}").taps][-1] == "features"
