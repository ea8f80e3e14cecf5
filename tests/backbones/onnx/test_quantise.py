"""Quantised graphs: close to the float graph, right on processors that add products in 16 bits, the same every time."""

import numpy as np
import onnx
import pytest
from helpers.frameworks import blobs
from helpers.graphs import SIZE, saved
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper, numpy_helper

from headstart import backbones
from headstart.backbones.onnx.quantise import quantise, quantise_weight
from headstart.errors import BackboneError
from headstart.features import Compute
from headstart.features.runtime import load_graph

ONNXRUNTIME = Compute("onnxruntime", workers=1)
SHAPES = st.sampled_from([(3, 1, 3, 3), (2, 4, 1, 1), (2, 5, 1, 1), (4, 3, 3, 3), (1, 2, 1, 1)])
FLOATS = hnp.arrays(np.float64, SHAPES, elements=st.floats(-10, 10, width=16))


def saturating_products(weights):
    """What a processor without VNNI adds for white pixels: pairs of products with 255, clipped to 16 bits.

    Each row of ``weights`` [channels, pairs, 2] holds one sign alone, the worst that activations can select.
    """
    exact = 255 * weights.astype(np.int64).sum(axis=2)
    return np.clip(exact, -(2**15), 2**15 - 1), exact


def worst_pairs(values):
    """For weights [channels, inputs] of either sign alone: the pairs of neighbours [2 * channels, pairs, 2]."""
    parts = np.concatenate([np.maximum(values, 0), np.minimum(values, 0)])
    return np.pad(parts, ((0, 0), (0, parts.shape[1] % 2))).reshape(len(parts), -1, 2)


@given(FLOATS)
def test_weights_are_near_and_their_products_fit_into_16_bits(weight):
    is_depthwise = weight.shape[1] == 1
    scale, values = quantise_weight(weight, np.zeros(len(weight)), is_depthwise)
    assert values.dtype == np.int8
    assert np.abs(weight - values * scale[:, None, None, None].astype(float)).max() <= scale.max() * 0.5001
    largest = np.abs(weight).max(axis=(1, 2, 3))
    assert (scale[largest > 0] <= 2.02 * largest[largest > 0] / 127).all()  # no more than a bit is given away
    if not is_depthwise:
        clipped, exact = saturating_products(worst_pairs(values.reshape(len(values), -1)))
        np.testing.assert_array_equal(clipped, exact)


def test_a_lone_large_weight_keeps_all_its_bits():
    weight = np.array([[1.0, 0.0, 0.1, 0.2]]).reshape(1, 4, 1, 1)
    scale, values = quantise_weight(weight, np.zeros(1))
    assert scale[0] == pytest.approx(1 / 127)
    assert values.reshape(-1).tolist() == [127, 0, 13, 25]
    both = np.array([[1.0, 1.0, 0.1, 0.2]]).reshape(1, 4, 1, 1)  # two neighbours share 127
    assert quantise_weight(both, np.zeros(1))[1].reshape(-1).tolist()[:2] == [64, 64]


def test_a_large_bias_fits_into_32_bits():
    scale, values = quantise_weight(np.full((1, 1, 1, 1), 1e-9), np.array([1e3]))
    assert 1e3 / scale[0] < 2**31
    assert values.item() == 0


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A backbone of two convolutions in standard form, its int8 graph, and images [48, 32, 32, 3]."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("small")
        patch.setenv("HEADSTART_CACHE", str(folder / "cache"))
        backbone = backbones.load(f"onnx:{saved(folder)}")
        images = blobs(SIZE, 48)
        return backbone, quantise(onnx.load(backbone.graph), images), images


def test_a_small_graph_in_int8_is_near_the_float_graph(small):
    backbone, model, images = small
    expected = load_graph(backbone.graph, ONNXRUNTIME).run(images)
    actual = load_graph(model.SerializeToString(), ONNXRUNTIME).run(images)
    assert set(actual) == {tap.name for tap in backbone.taps} == set(expected)
    for tap, value in expected.items():
        assert actual[tap].dtype == np.float32
        error = np.linalg.norm(actual[tap] - value) / np.linalg.norm(value)
        assert 0 < error < 0.02
        # the means are corrected: what is left is noise
        assert np.abs((actual[tap] - value).mean(axis=0)).max() < 0.01 * np.abs(value).max()


def test_all_convolutions_have_int8_weights(small):
    _, model, _ = small
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    for node in convolutions:
        weight = constants[producer[node.input[1]].input[0]]
        assert weight.dtype == np.int8
        assert constants[producer[node.input[2]].input[0]].dtype == np.int32


def test_the_same_images_give_the_same_graph_and_others_another(small):
    backbone, model, images = small
    again = quantise(onnx.load(backbone.graph), images)
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    other = quantise(onnx.load(backbone.graph), images // 2)
    assert other.SerializeToString(deterministic=True) != model.SerializeToString(deterministic=True)


def test_a_graph_of_fixed_batches_is_quantised(tmp_path):
    backbone = backbones.load(f"onnx:{saved(tmp_path, batch=5, head='Reshape')}")
    images = blobs(SIZE, 17)  # the last batch is filled up
    model = quantise(onnx.load(backbone.graph), images, backbone.batch)
    expected = load_graph(backbone.graph, ONNXRUNTIME).run(images[:5])
    actual = load_graph(model.SerializeToString(), ONNXRUNTIME).run(images[:5])
    for tap, value in expected.items():
        assert np.linalg.norm(actual[tap] - value) < 0.02 * np.linalg.norm(value)


def test_a_convolution_whose_weights_are_computed_stays_in_float(small):
    backbone, _, images = small
    model = onnx.load(backbone.graph)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.node.insert(0, helper.make_node("Neg", [first.input[1]], ["computed"]))
    first.input[1] = "computed"
    expected = load_graph(model.SerializeToString(), ONNXRUNTIME).run(images)
    quantised = quantise(model, images)
    producer = {node.output[0]: node.op_type for node in quantised.graph.node}
    convolutions = [node for node in quantised.graph.node if node.op_type == "Conv"]
    assert [producer[node.input[1]] for node in convolutions] == ["Neg", "DequantizeLinear"]
    actual = load_graph(quantised.SerializeToString(), ONNXRUNTIME).run(images)
    for tap, value in expected.items():
        assert np.linalg.norm(actual[tap] - value) < 0.02 * np.linalg.norm(value)


def test_a_graph_without_convolutions_is_refused(small):
    backbone, _, images = small
    model = onnx.load(backbone.graph)
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.op_type = "Identity"
    with pytest.raises(BackboneError, match="no convolutions"):
        quantise(model, images)


@pytest.mark.parametrize("name", ["headstart-s", "headstart-m"])
def test_no_weights_of_the_built_in_backbones_overflow_16_bits(name):
    model = onnx.load(backbones.load(name, precision="int8").graph)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producer = {node.output[0]: node for node in model.graph.node}
    checked = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight = constants[producer[node.input[1]].input[0]]
            assert weight.dtype == np.int8
            if weight.shape[2:] == (1, 1):
                clipped, exact = saturating_products(worst_pairs(weight[:, :, 0, 0]))
                np.testing.assert_array_equal(clipped, exact)
                checked += 1
    assert checked > 25
