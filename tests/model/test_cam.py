"""Class activation maps against the scores that they explain."""

import numpy as np
import pytest
from helpers.graphs import saved
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import backbones
from headstart.features import Compute
from headstart.features.cache import FeatureCache
from headstart.features.runtime import load_graph, run_padded
from headstart.heads.head import Head
from headstart.model import cam


def head_of(taps, widths, classes=3, seed=0, **options):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(sum(widths), classes)).astype(np.float32)
    return Head("ridge", taps, weights, rng.normal(size=classes).astype(np.float32), 0.7, **options)


def log_odds(head, vector, positive, negative):
    probabilities = head.probabilities(vector[None].astype(np.float64))[0]
    return float(np.log(probabilities[positive]) - np.log(probabilities[negative]))


def pooled_features(backbone, images):
    return run_padded(load_graph(backbone.graph, Compute("onnxruntime", workers=1)), images, backbone.batch)


@pytest.mark.parametrize("taps", [("features",), ("stage5",), ("stage2", "features"), ("stage3", "stage4", "stage5")])
def test_contributions_and_bias_sum_to_the_log_odds(taps):
    backbone = backbones.load("headstart-s")
    channels = {tap.name: tap.channels for tap in backbone.taps}
    head = head_of(taps, [channels[tap] for tap in taps])
    images = np.random.default_rng(1).integers(0, 256, (3, 160, 160, 3), np.uint8)
    maps = cam.feature_maps(backbone, taps, list(images), [b"1", b"2", b"3"], None)
    pooled = pooled_features(backbone, images)
    for i, image_maps in enumerate(maps):
        vector = np.concatenate([pooled[tap][i] for tap in taps])
        for positive, negative in ((0, 1), (2, 0)):
            grid, bias = cam.class_activation(head, image_maps, positive, negative)
            assert grid.shape == max(image_maps[tap].shape[:2] for tap in taps)
            assert grid.sum() + bias == pytest.approx(log_odds(head, vector, positive, negative), abs=2e-4)
            reversed_grid, reversed_bias = cam.class_activation(head, image_maps, negative, positive)
            np.testing.assert_allclose(reversed_grid, -grid)
            assert reversed_bias == -bias


OPTIONS = [{}, {"opset": 18}, {"channels_last": True}, {"batch": 2}, {"head": "Conv"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_contributions_of_any_onnx_network_sum_to_the_log_odds(tmp_path, options):
    backbone = backbones.load(f"onnx:{saved(tmp_path, **options)}")
    taps = tuple(tap.name for tap in backbone.taps if tap.size)
    head = head_of(taps, [tap.channels for tap in backbone.taps if tap.size])
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert cam.why_unavailable(backbone, head) == ""
    pooled = pooled_features(backbone, images)
    for i, image_maps in enumerate(cam.feature_maps(backbone, taps, list(images), [b"1", b"2", b"3"], None)):
        grid, bias = cam.class_activation(head, image_maps, 1, 2)
        vector = np.concatenate([pooled[tap][i] for tap in taps])
        assert grid.sum() + bias == pytest.approx(log_odds(head, vector, 1, 2), abs=1e-4)


def test_a_contribution_is_the_effect_of_setting_its_location_to_zero():
    feature_map = np.random.default_rng(0).normal(size=(4, 3, 6)).astype(np.float32)
    head = head_of(("a",), [6])
    grid, _ = cam.class_activation(head, {"a": feature_map}, 0, 2)
    score = log_odds(head, feature_map.mean(axis=(0, 1)), 0, 2)
    for y, x in np.ndindex(4, 3):
        occluded = feature_map.copy()
        occluded[y, x] = 0
        assert grid[y, x] == pytest.approx(score - log_odds(head, occluded.mean(axis=(0, 1)), 0, 2), abs=1e-5)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12))
def test_overlaps_of_a_coarse_cell_sum_to_one(fine, coarse):
    overlaps = cam._overlaps(max(fine, coarse), min(fine, coarse))
    np.testing.assert_allclose(overlaps.sum(axis=0), 1)
    assert overlaps.min() >= 0


def test_feature_maps_are_cached(tmp_path):
    backbone = backbones.load("headstart-s")
    image = np.random.default_rng(1).integers(0, 256, (160, 160, 3), np.uint8)
    with FeatureCache(tmp_path) as cache:
        (computed,) = cam.feature_maps(backbone, ("features",), [image], [b"1"], cache)
        (cached,) = cam.feature_maps(backbone, ("features",), [np.zeros_like(image)], [b"1"], cache)
    np.testing.assert_allclose(cached["features"], computed["features"], rtol=1e-3, atol=1e-3)


def test_feature_maps_that_the_cache_lacks_are_computed(tmp_path):
    backbone = backbones.load("headstart-s")
    images = list(np.random.default_rng(1).integers(0, 256, (3, 160, 160, 3), np.uint8))
    taps = ("stage5", "features")
    expected = cam.feature_maps(backbone, taps, images, [b"1", b"2", b"3"], None)
    with FeatureCache(tmp_path) as cache:
        cam.feature_maps(backbone, taps, images[1:2], [b"2"], cache)
        maps = cam.feature_maps(backbone, taps, images, [b"1", b"2", b"3"], cache)
    for image_maps, expected_maps in zip(maps, expected, strict=True):
        for tap in taps:
            np.testing.assert_allclose(image_maps[tap], expected_maps[tap], rtol=1e-3, atol=1e-3)


def test_heads_without_class_activation_maps_have_a_reason(tmp_path):
    backbone = backbones.load(f"onnx:{saved(tmp_path)}", taps=["flat"])
    nonlinear = head_of(("features",), [12], hidden_layer=(np.eye(12, dtype=np.float32), np.zeros(12, np.float32)))
    assert "is not linear" in cam.why_unavailable(backbone, nonlinear)
    assert "The cut flat is a vector" in cam.why_unavailable(backbone, head_of(("flat",), [12]))
    assert cam.why_unavailable(backbone, head_of(("features",), [12])) == ""
