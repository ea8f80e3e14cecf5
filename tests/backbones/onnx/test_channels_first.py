"""Transposes are removed; the numbers stay what they were."""

import numpy as np
import pytest
from helpers.graphs import network, normalised, run
from helpers.nhwc_graphs import NORMALISATION, OPERATORS, PIXELS, SIDE, GraphBuilder, exported_value, standard_form
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.backbones.onnx.channels_first import layout_transposes
from headstart.backbones.onnx.graph import prune
from headstart.backbones.onnx.standardise import standardise
from headstart.errors import BackboneError


def test_an_nhwc_graph_keeps_one_transpose_and_its_numbers():
    b = GraphBuilder()
    x = b.conv("image", 3, 8, pads=[0, 0, 0, 0, 0, 1, 1, 0], stride=2)
    x = b.squeeze(x, 8)
    y = b.conv(x, 8, 8)
    x = b.node("Concat", b.node("Add", x, y), y, axis=3)
    x = b.conv(x, 16, 12, pads=[0, 1, 2, 0, 0, 0, 1, 0])
    model = b.model(x)
    standard = standard_form(model, x)
    operators = [node.op_type for node in standard.graph.node]
    assert operators.count("Transpose") == 1
    assert operators[0] == "Transpose"  # of the uint8 pixels
    assert "Pad" not in operators
    assert "Sub" not in operators
    assert operators.count("Conv") == 3
    features = run(standard, {"pixels": PIXELS})[0]
    np.testing.assert_allclose(features, exported_value(model).mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(operators=st.lists(st.sampled_from(OPERATORS), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_no_chain_of_operators_changes_its_numbers(operators, seed):
    b = GraphBuilder(seed=seed)
    x, channels = b.append("image", "conv", 3)
    for operator in operators:
        x, channels = b.append(x, operator, channels)
    x = b.node("Relu", b.node("Add", x, b.numbers(1)))
    model = b.model(x)
    expected = exported_value(model)
    if min(expected.shape) == 0:
        return
    features = run(standard_form(model, x), {"pixels": PIXELS})[0]
    scale = max(1e-6, float(np.abs(expected).max()))
    np.testing.assert_allclose(features, expected.mean(axis=(1, 2)), rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_pixels_are_transposed_before_they_are_scaled(channels_last):
    scaling = NORMALISATION
    image = normalised(PIXELS, scaling.mean, scaling.std, channels_last=channels_last, bgr=scaling.bgr)
    expected = run(network(channels_last=channels_last, size=SIDE), {"image": image})[0]
    standard = network(channels_last=channels_last, size=SIDE)
    standardise(standard, NORMALISATION, (SIDE, SIDE), ("logits",))
    assert [node.op_type for node in standard.graph.node[:2]] == ["Transpose", "Cast"]
    assert len(list(layout_transposes(standard))) == 1
    prune(standard, ["logits"])
    logits = run(standard, {"pixels": PIXELS})[0]
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), expected, rtol=1e-4)


@pytest.mark.parametrize("axis", [7, -9])
def test_an_axis_out_of_range_is_refused_in_one_line(axis):
    b = GraphBuilder()
    x = b.conv("image", 3, 4)
    x = b.node("Concat", x, x, axis=axis)
    with pytest.raises(BackboneError) as caught:
        standard_form(b.model(x), x)
    assert "\n" not in str(caught.value)
