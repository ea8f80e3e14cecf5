"""Which tensors of a graph are tapped."""

import numpy as np
import onnx
import pytest
from helpers.graphs import SIZE, branching, network, normalised, saved, tap_values, tensor_value, transformer
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from headstart import backbones
from headstart.backbones.onnx.taps import passed_by_all
from headstart.errors import BackboneError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)


def test_any_tensor_or_node_can_be_tapped(tmp_path):
    path = saved(tmp_path)
    backbone = backbones.load(f"onnx:{path}", taps=("c2", "node_early", "logits"))
    values = tap_values(backbone, PIXELS)
    image = normalised(PIXELS)
    c2, logits = tensor_value(network(), "c2", image), tensor_value(network(), "logits", image)
    np.testing.assert_allclose(values["c2"], c2.mean(axis=(2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values["node_early"], values["early"], rtol=1e-6)
    np.testing.assert_allclose(values["logits"], logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(BackboneError, match=r"Unknown cut 'mixed7'; the taps found are .*features"):
        backbones.load(f"onnx:{path}", taps=("mixed7",))


def test_attention_is_no_map_and_places_are_found_behind_tokens(tmp_path):
    model = transformer()
    onnx.save(model, tmp_path / "net.onnx")
    backbone = backbones.load(f"onnx:{tmp_path / 'net.onnx'}")
    taps = {tap.name: (tap.channels, tap.size) for tap in backbone.taps}
    assert taps == {"patches": (12, (8, 8)), "features": (12, (8, 8))}  # not attention of 4 heads, 64 x 64
    image = normalised(PIXELS)
    expected = np.concatenate([tensor_value(model, "map", image[i : i + 1]).mean(axis=(1, 2)) for i in range(4)])
    np.testing.assert_allclose(tap_values(backbone, PIXELS)["features"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("outputs", [("early", "late"), ("late", "early"), ("early", "logits", "late")])
def test_features_are_those_of_the_output_that_needs_the_whole_network(tmp_path, outputs):
    model = network()
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    onnx.save(model, tmp_path / "net.onnx")
    backbone = backbones.load(f"onnx:{tmp_path / 'net.onnx'}")
    late = tensor_value(network(), "late", normalised(PIXELS))
    np.testing.assert_allclose(tap_values(backbone, PIXELS)["features"], late.mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)
    assert [tap.name for tap in backbone.taps] == ["early", "features"]


def test_of_a_resolution_that_ends_in_branches_the_map_before_them_is_tapped(tmp_path):
    model = branching()
    onnx.save(model, tmp_path / "net.onnx")
    backbone = backbones.load(f"onnx:{tmp_path / 'net.onnx'}")
    assert [(tap.name, tap.channels) for tap in backbone.taps] == [("joined", 12), ("features", 14)]
    joined = tensor_value(model, "joined", normalised(PIXELS))
    np.testing.assert_allclose(tap_values(backbone, PIXELS)["joined"], joined.mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)


@st.composite
def networks(draw):
    """Steps of which each takes some earlier values, all of them on the way from the value 0 to the last one."""
    count = draw(st.integers(1, 9))
    inputs = {i: draw(st.sets(st.integers(0, i - 1), min_size=1)) for i in range(1, count + 1)}
    needed = {count}
    for i in range(count, 0, -1):
        needed |= inputs[i] if i in needed else set()
    return [([str(i)], [str(j) for j in inputs[i]]) for i in range(1, count + 1) if i in needed]


@given(networks())
def test_a_value_on_every_way_is_one_without_which_there_is_no_way(steps):
    end = steps[-1][0][0]

    def is_reached_without(value):
        reached = {"0"}
        for (output,), inputs in steps:
            if output != value and reached.intersection(inputs):
                reached.add(output)
        return end in reached

    expected = {output for (output,), _ in steps if not is_reached_without(output)}
    assert passed_by_all(steps, end) == expected
