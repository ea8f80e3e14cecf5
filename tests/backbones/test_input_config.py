"""How a network wants its images, from JSON beside its graph."""

import json

import numpy as np
import pytest
from helpers.graphs import SIZE, network, normalised, saved, tap_values, tensor_value

from headstart import backbones
from headstart.errors import BackboneError, OptionError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
ZEROS, HALVES, ONES = (0,) * 3, (0.5,) * 3, (1,) * 3
UNSCALED = {"image_mean": [0] * 3, "image_std": [1] * 3}
CONFIGS = [
    ({"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}, (0.1, 0.2, 0.3), (1, 2, 3), {}),
    ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}, HALVES, HALVES, {}),
    ({"do_normalize": False}, ZEROS, ONES, {}),
    ({"do_rescale": False, "do_normalize": False}, ZEROS, (1 / 255,) * 3, {}),
    ({**UNSCALED, "rescale_factor": 1 / 127.5}, ZEROS, HALVES, {}),
    (
        {"mean": 0.5, "std": 0.25, "crop": 0.9, "resize": "squash"},
        HALVES,
        (0.25,) * 3,
        {"crop": 0.9, "resize": "squash"},
    ),
    (
        {**UNSCALED, "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3},
        ZEROS,
        ONES,
        {"crop": 0.8, "interpolation": "bicubic"},
    ),
    ({**UNSCALED, "size": {"height": 32, "width": 32}}, ZEROS, ONES, {"crop": 1.0, "resize": "squash"}),
]


@pytest.mark.parametrize(("config", "mean", "std", "preprocess"), CONFIGS, ids=range(len(CONFIGS)))
def test_a_configuration_beside_the_graph_is_used(tmp_path, config, mean, std, preprocess):
    path = saved(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    backbone = backbones.load(f"onnx:{path}")
    expected = tensor_value(network(), "late", normalised(PIXELS, mean, std)).mean(axis=(2, 3))
    np.testing.assert_allclose(tap_values(backbone, PIXELS)["features"], expected, rtol=1e-3, atol=1e-4)
    for name, value in preprocess.items():
        assert getattr(backbone.preprocess, name) == value
    assert backbone.notes == ()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '{"mean": "red"}',
        '{"std": [1, 1, 1], "size": [Infinity, 1]}',
        '{"crop_size": 5, "size": {"shortest_edge": 0}}',
        '{"mean": [1, 2]}',
        '{"std": [0, 1, 1]}',
        '{"channels": "XYZ"}',
    ],
)
def test_configurations_that_cannot_be_used_are_refused(tmp_path, text):
    path = saved(tmp_path)
    (tmp_path / "net.onnx.json").write_text(text)
    with pytest.raises((BackboneError, OptionError)):
        backbones.load(f"onnx:{path}")
