"""Graphs in standard form are made cheaper; the numbers stay what they were."""

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.graphs import network
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones.onnx.channels_first import channels_first, transposes
from headstart.backbones.onnx.folding import fold, fold_constants
from headstart.backbones.onnx.standardise import Normalisation, prune, standardise
from headstart.errors import BackboneError

SIDE = 16
PIXELS = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
SCALING = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), bgr=True)


class Build:
    """A graph in NHWC as exporters of Keras write it: every convolution between two transposes, padding apart."""

    def __init__(self, opset=18, seed=0):
        self.rng, self.opset = np.random.default_rng(seed), opset
        self.nodes, self.constants, self.count = [], [], 0

    def constant(self, value):
        self.count += 1
        self.constants.append(numpy_helper.from_array(np.asarray(value), f"k{self.count}"))
        return f"k{self.count}"

    def node(self, kind, *inputs, **attributes):
        self.count += 1
        self.nodes.append(helper.make_node(kind, list(inputs), [f"t{self.count}"], **attributes))
        return f"t{self.count}"

    def numbers(self, *shape):
        return self.constant((self.rng.normal(size=shape) / 3 + 0.5).astype(np.float32))

    def conv(self, x, before, after, pads=None, stride=1, fill=0.0):
        if pads is not None:
            x = self.node("Pad", x, self.constant(np.array(pads, np.int64)), self.constant(np.float32(fill)))
        weight = self.constant((self.rng.normal(size=(3, 3, before, after)) / (3 * before**0.5)).astype(np.float32))
        weight = self.node("Transpose", weight, perm=[3, 2, 0, 1])
        x = self.node("Transpose", x, perm=[0, 3, 1, 2])
        x = self.node("Conv", x, weight, pads=[1, 1, 1, 1], strides=[stride] * 2)
        x = self.node("Transpose", x, perm=[0, 2, 3, 1])
        x = self.node("Mul", self.node("Sub", x, self.numbers(after)), self.numbers(1, 1, 1, after))
        return self.node("Relu", self.node("Add", x, self.numbers(after)))

    def squeeze(self, x, channels):
        y = self.node("ReduceMean", x, self.constant(np.array([1, 2], np.int64)), keepdims=0)
        y = self.node("Reshape", y, self.constant(np.array([-1, 1, 1, channels], np.int64)))
        return self.node("Mul", x, self.node("Sigmoid", self.node("Add", y, self.numbers(channels))))

    def model(self, output):
        graph = helper.make_graph(
            self.nodes, "nhwc", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", SIDE, SIDE, 3])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)], self.constants,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 8
        return model


def run(model, inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def standard(model, name):
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    standardise(copy, SCALING, (SIDE, SIDE), (), {"features": name})
    return copy


def expected(model, last=True):
    x = ((PIXELS / 255 - np.array(SCALING.mean)) / np.array(SCALING.std)).astype(np.float32)[..., ::-1]
    return run(model, {"image": np.ascontiguousarray(x if last else x.transpose(0, 3, 1, 2))})[0]


def test_an_nhwc_graph_keeps_one_transpose_and_its_numbers():
    b = Build()
    x = b.conv("image", 3, 8, pads=[0, 0, 0, 0, 0, 1, 1, 0], stride=2)
    x = b.squeeze(x, 8)
    y = b.conv(x, 8, 8)
    x = b.node("Concat", b.node("Add", x, y), y, axis=3)
    x = b.conv(x, 16, 12, pads=[0, 1, 2, 0, 0, 0, 1, 0])
    model = b.model(x)
    found = standard(model, x)
    kinds = [node.op_type for node in found.graph.node]
    assert kinds.count("Transpose") == 1
    assert kinds[0] == "Transpose"  # of the uint8 pixels
    assert "Pad" not in kinds
    assert "Sub" not in kinds
    assert kinds.count("Conv") == 3
    np.testing.assert_allclose(
        run(found, {"pixels": PIXELS})[0], expected(model).mean(axis=(1, 2)), rtol=1e-4, atol=1e-5
    )


OPERATORS = ("conv", "padded", "squeeze", "relu", "clip", "branch", "concat", "slice", "mean", "split", "needs last",
             "scalar", "edge", "max pool", "padded pool")  # fmt: skip


def grown(b, x, kind, channels):
    """One more operator on an NHWC tensor; the tensor and its channels."""
    pad = b.constant(np.array([0, 1, 1, 0, 0, 1, 1, 0], np.int64))
    if kind in ("conv", "padded"):
        pads = [0, 1, 0, 0, 0, 0, 2, 0] if kind == "padded" else None
        return b.conv(x, channels, 6, pads, fill=float(b.rng.integers(0, 2))), 6
    if kind == "squeeze":
        return b.squeeze(x, channels), channels
    if kind == "clip":
        return b.node("Clip", x, b.constant(np.float32(0)), b.constant(np.float32(6))), channels
    if kind == "branch":
        return b.node("Sub", b.node("Tanh", x), b.node("Mul", x, b.numbers(channels))), channels
    if kind == "concat":
        return b.node("Concat", x, b.node("Sigmoid", x), axis=-1), 2 * channels
    if kind == "slice":
        bounds = [b.constant(np.array(v, np.int64)) for v in ([1, 0], [99, 2], [2, 3])]
        return b.node("Slice", x, *bounds), min(2, channels)
    if kind == "mean":
        spread = b.node("ReduceMean", x, b.constant(np.array([3], np.int64)), keepdims=1)
        return b.node("Add", x, spread), channels
    if kind == "split":
        return b.node("Gather", x, b.constant(np.arange(channels)[::-1].copy()), axis=3), channels
    if kind == "needs last":  # a layer norm over the channels
        norm = b.node("LayerNormalization", x, b.numbers(channels), axis=-1)
        return b.node("MatMul", norm, b.constant(b.rng.normal(size=(channels, 5)).astype(np.float32))), 5
    if kind == "scalar":
        # Never near a division by nothing, which makes of rounding any number.
        above = b.constant(np.array([b.rng.uniform(0.5, 1.5)], np.float32))
        return b.node("Div", b.constant(np.float32(1)), b.node("Add", b.node("Abs", x), above)), channels
    if kind == "edge":
        return b.node("Pad", x, pad, mode="edge"), channels
    if kind in ("max pool", "padded pool"):
        y = b.node("Pad", x, pad, b.constant(np.float32(0))) if kind == "padded pool" else x
        y = b.node("Transpose", y, perm=[0, 3, 1, 2])
        y = b.node("MaxPool", y, kernel_shape=[3, 3], strides=[1, 1])
        return b.node("Transpose", y, perm=[0, 2, 3, 1]), channels
    return b.node("Relu", x), channels


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(st.sampled_from(OPERATORS), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_no_chain_of_operators_changes_its_numbers(kinds, seed):
    b, channels = Build(seed=seed), 6
    x, channels = grown(b, "image", "conv", 3)
    for kind in kinds:
        x, channels = grown(b, x, kind, channels)
    x = b.node("Relu", b.node("Add", x, b.numbers(1)))
    model = b.model(x)
    want = expected(model)
    if min(want.shape) == 0:
        return
    got = run(standard(model, x), {"pixels": PIXELS})[0]
    scale = max(1e-6, float(np.abs(want).max()))
    np.testing.assert_allclose(got, want.mean(axis=(1, 2)), rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("last", [False, True])
def test_the_pixels_are_turned_before_they_are_scaled(last):
    model = network(last=last, size=SIDE)
    x = ((PIXELS / 255 - np.array(SCALING.mean)) / np.array(SCALING.std)).astype(np.float32)[..., ::-1]
    want = run(model, {"image": np.ascontiguousarray(x if last else x.transpose(0, 3, 1, 2))})[0]
    found = network(last=last, size=SIDE)
    standardise(found, SCALING, (SIDE, SIDE), ("logits",))
    assert [node.op_type for node in found.graph.node[:2]] == ["Transpose", "Cast"]
    assert len(list(transposes(found))) == 1
    prune(found, ["logits"])
    logits = run(found, {"pixels": PIXELS})[0]
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), want, rtol=1e-4)


def test_zero_padding_before_a_maximum_stays_where_values_may_be_negative():
    b = Build()
    x, _ = grown(b, b.node("Tanh", "image"), "padded pool", 3)
    model = b.model(x)
    assert "Pad" in [node.op_type for node in standard(model, x).graph.node]
    b = Build()
    x, _ = grown(b, b.node("Relu", "image"), "padded pool", 3)
    model = b.model(x)
    found = standard(model, x)
    assert "Pad" not in [node.op_type for node in found.graph.node]
    np.testing.assert_allclose(run(found, {"pixels": PIXELS})[0], expected(model).mean(axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_padding_with_the_nearest_value_before_a_maximum_is_folded(stride):
    b = Build()
    pad = b.constant(np.array([0, 0, 1, 1, 0, 0, 2, 1], np.int64))
    x = b.node("Pad", b.node("Transpose", b.node("Tanh", "image"), perm=[0, 3, 1, 2]), pad, mode="edge")
    x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[stride] * 2)
    model = b.model(x)
    found = standard(model, x)
    assert "Pad" not in [node.op_type for node in found.graph.node]
    np.testing.assert_allclose(
        run(found, {"pixels": PIXELS})[0], expected(model).mean(axis=(2, 3)), rtol=1e-4, atol=1e-6
    )


def test_constants_that_would_grow_are_not_folded():
    b = Build()
    wide = b.node("Add", b.constant(np.zeros((2000, 1), np.float32)), b.constant(np.zeros((1, 2000), np.float32)))
    model = b.model(b.node("Add", "image", b.node("ReduceSum", wide, keepdims=0)))
    fold_constants(model)
    assert "Add" in [node.op_type for node in model.graph.node[:1]]
    before = model.SerializeToString()
    fold(model)
    assert model.SerializeToString() == before


def test_a_convolution_that_is_tapped_keeps_its_own_numbers():
    b = Build()
    x = b.node("Conv", b.node("Transpose", "image", perm=[0, 3, 1, 2]), b.numbers(4, 3, 1, 1))
    y = b.node("Mul", x, b.numbers(1, 4, 1, 1))
    model = b.model(y)
    found = onnx.ModelProto.FromString(model.SerializeToString())
    standardise(found, SCALING, (SIDE, SIDE), (x,), {"features": y})
    values = dict(zip((o.name for o in found.graph.output), run(found, {"pixels": PIXELS}), strict=True))
    np.testing.assert_allclose(values["features"], expected(model).mean(axis=(2, 3)), rtol=1e-4)
    np.testing.assert_allclose(values[x], expected(prune_to(model, x)).mean(axis=(2, 3)), rtol=1e-4)


def prune_to(model, tensor):
    other = onnx.ModelProto.FromString(model.SerializeToString())
    other.graph.output[0].name = tensor
    return other


@pytest.mark.parametrize("axis", [7, -9])
def test_an_axis_that_is_not_there_is_refused_in_one_line(axis):
    b = Build()
    x = b.conv("image", 3, 4)
    x = b.node("Concat", x, x, axis=axis)
    with pytest.raises(BackboneError) as caught:
        standard(b.model(x), x)
    assert "\n" not in str(caught.value)


def test_graphs_with_branches_are_left_alone():
    branch = helper.make_graph([helper.make_node("Identity", ["image"], ["o"])], "b", [],
                               [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)])  # fmt: skip
    b = Build()
    yes = b.constant(np.array(True))
    b.nodes.append(helper.make_node("If", [yes], ["chosen"], then_branch=branch, else_branch=branch))
    model = b.model(b.node("Relu", "chosen"))
    before = model.SerializeToString()
    channels_first(model)
    assert model.SerializeToString() == before
