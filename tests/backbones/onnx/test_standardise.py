"""Any ONNX classifier in standard form gives the numbers of the graph itself."""

import numpy as np
import onnx
import pytest
from helpers.graphs import SIZE, network, normalised, saved, tap_values, tensor_value, transformer
from onnx import TensorProto

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.errors import BackboneError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
VARIANTS = [
    *({"opset": opset} for opset in (11, 13, 17, 18, 20, 22)),
    {"channels_last": True},
    {"batch": 1},
    {"batch": 4},
    {"batch": 4, "head": "Reshape"},
    {"batch": 1, "head": "Reshape"},
    {"head": "Conv"},
    {"softmax": False},
    {"head": "Conv", "softmax": False, "channels_last": True},
    {"size": "s"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_taps_are_found_and_hold_the_graphs_own_numbers(tmp_path, variant):
    model, path = network(**variant), saved(tmp_path, **variant)
    options = InputOptions(size=(SIZE, SIZE)) if variant.get("size") else None
    backbone = backbones.load(f"onnx:{path}", options=options)
    names = [tap.name for tap in backbone.taps]
    assert names[-1] == "features"
    assert backbone.taps[-1].channels == 12
    assert backbone.taps[-1].size == (8, 8)
    assert "early" in names
    assert [tap.depth for tap in backbone.taps] == sorted(tap.depth for tap in backbone.taps)
    values = tap_values(backbone, PIXELS)
    image = normalised(PIXELS, channels_last=variant.get("channels_last", False))
    early, late = tensor_value(model, "early", image), tensor_value(model, "late", image)
    np.testing.assert_allclose(values["early"], early.mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(values["features"], late.mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)


def test_a_fixed_batch_is_freed_where_that_changes_nothing(tmp_path):
    freed = backbones.load(f"onnx:{saved(tmp_path, 'a.onnx', batch=4)}")
    assert freed.batch is None
    three, four = tap_values(freed, PIXELS[:3]), tap_values(freed, PIXELS)
    np.testing.assert_allclose(three["features"], four["features"][:3], rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_freed_wherever_its_sizes_are_named(tmp_path, batch):
    model = transformer(batch)
    onnx.save(model, tmp_path / "net.onnx")
    backbone = backbones.load(f"onnx:{tmp_path / 'net.onnx'}")
    assert backbone.batch is None
    expected = tensor_value(model, "pooled", normalised(PIXELS))
    for count in (1, 3, 4):
        values = tap_values(backbone, PIXELS[:count])["features"]
        np.testing.assert_allclose(values, expected[:count], rtol=1e-4, atol=1e-6)


def test_half_precision_input(tmp_path):
    model, path = network(dtype=TensorProto.FLOAT16), saved(tmp_path, dtype=TensorProto.FLOAT16)
    features = tap_values(backbones.load(f"onnx:{path}"), PIXELS)["features"]
    late = tensor_value(model, "late", normalised(PIXELS).astype(np.float16))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, late.astype(np.float32).mean(axis=(2, 3)), rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("bgr", [False, True])
def test_normalisation_comes_from_options(tmp_path, bgr):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    path = saved(tmp_path)
    options = InputOptions(mean=mean, std=std, channels="BGR" if bgr else None)
    backbone = backbones.load(f"onnx:{path}", options=options)
    assert backbone.notes == ()
    expected = tensor_value(network(), "late", normalised(PIXELS, mean, std, bgr=bgr)).mean(axis=(2, 3))
    np.testing.assert_allclose(tap_values(backbone, PIXELS)["features"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_flat_cut_is_the_whole_map_place_by_place(tmp_path, channels_last):
    model, path = network(channels_last=channels_last), saved(tmp_path, channels_last=channels_last)
    backbone = backbones.load(f"onnx:{path}", taps=("late/flat", "early/flat"))
    taps = {tap.name: tap for tap in backbone.taps}
    assert (taps["late/flat"].channels, taps["late/flat"].size) == (8 * 8 * 12, (8, 8))
    assert backbone.taps[-1].name == "features"  # what groups are found by stays the pooled one
    values = tap_values(backbone, PIXELS)
    image = normalised(PIXELS, channels_last=channels_last)
    for name in ("early", "late"):
        expected = tensor_value(model, name, image).transpose(0, 2, 3, 1).reshape(len(PIXELS), -1)
        np.testing.assert_allclose(values[f"{name}/flat"], expected, rtol=1e-4, atol=1e-6)
    late = tensor_value(model, "late", image).mean(axis=(2, 3))
    np.testing.assert_allclose(values["features"], late, rtol=1e-4, atol=1e-6)


def test_a_vector_cannot_be_flattened(tmp_path):
    with pytest.raises(BackboneError, match="not a map"):
        backbones.load(f"onnx:{saved(tmp_path)}", taps=("flat/flat",))
