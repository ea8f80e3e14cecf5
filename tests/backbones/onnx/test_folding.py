"""Constants, padding and arithmetic are folded into weights only where the numbers stay what they were."""

import numpy as np
import onnx
import pytest
from helpers.graphs import run
from helpers.nhwc_graphs import NORMALISATION, PIXELS, SIDE, GraphBuilder, exported_value, standard_form

from headstart.backbones.onnx.folding import fold_constants, fold_into_convolutions
from headstart.backbones.onnx.standardise import standardise


def operators(model):
    return [node.op_type for node in model.graph.node]


def test_zero_padding_before_a_maximum_stays_where_values_may_be_negative():
    b = GraphBuilder()
    x, _ = b.append(b.node("Tanh", "image"), "padded max pool", 3)
    model = b.model(x)
    assert "Pad" in operators(standard_form(model, x))
    b = GraphBuilder()
    x, _ = b.append(b.node("Relu", "image"), "padded max pool", 3)
    model = b.model(x)
    standard = standard_form(model, x)
    assert "Pad" not in operators(standard)
    features = run(standard, {"pixels": PIXELS})[0]
    np.testing.assert_allclose(features, exported_value(model).mean(axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_padding_with_the_nearest_value_before_a_maximum_is_folded(stride):
    b = GraphBuilder()
    pads = b.constant(np.array([0, 0, 1, 1, 0, 0, 2, 1], np.int64))
    x = b.node("Pad", b.node("Transpose", b.node("Tanh", "image"), perm=[0, 3, 1, 2]), pads, mode="edge")
    x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[stride] * 2)
    model = b.model(x)
    standard = standard_form(model, x)
    assert "Pad" not in operators(standard)
    features = run(standard, {"pixels": PIXELS})[0]
    np.testing.assert_allclose(features, exported_value(model).mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)


def test_constants_that_would_grow_are_not_folded():
    b = GraphBuilder()
    wide = b.node("Add", b.constant(np.zeros((2000, 1), np.float32)), b.constant(np.zeros((1, 2000), np.float32)))
    model = b.model(b.node("Add", "image", b.node("ReduceSum", wide, keepdims=0)))
    fold_constants(model)
    assert "Add" in operators(model)[:1]
    before = model.SerializeToString()
    fold_into_convolutions(model)
    assert model.SerializeToString() == before


def test_a_convolution_that_is_tapped_keeps_its_own_numbers():
    b = GraphBuilder()
    x = b.node("Conv", b.node("Transpose", "image", perm=[0, 3, 1, 2]), b.numbers(4, 3, 1, 1))
    y = b.node("Mul", x, b.numbers(1, 4, 1, 1))
    model = b.model(y)
    standard = onnx.ModelProto.FromString(model.SerializeToString())
    standardise(standard, NORMALISATION, (SIDE, SIDE), (x,), {"features": y})
    names = [output.name for output in standard.graph.output]
    values = dict(zip(names, run(standard, {"pixels": PIXELS}), strict=True))
    np.testing.assert_allclose(values["features"], exported_value(model).mean(axis=(2, 3)), rtol=1e-4)
    model.graph.output[0].name = x
    np.testing.assert_allclose(values[x], exported_value(model).mean(axis=(2, 3)), rtol=1e-4)
