"""Which scaling fits what batch norms have stored: by value, and on small networks in NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.backbones.scaling import (
    MAX_OF_CHANNEL,
    USUAL,
    Assumption,
    ChannelStatistics,
    Norms,
    Scaling,
    candidates,
    channel_statistics,
    choose,
    divergence,
    padding_ratio,
)
from headstart.errors import BackboneError

IMAGENET = Scaling(*USUAL["ImageNet's mean and deviation"])
MINUS_ONE = Scaling(*USUAL["-1 to 1"])
ZERO = Scaling(*USUAL["0 to 1"])
BYTES = Scaling(*USUAL["0 to 255"])


def reversed_order(scaling):
    return Scaling(scaling.mean, scaling.std, "BGR")


def test_scaled_pixels():
    pixels = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(MINUS_ONE(pixels), [[-1, -0.6, 1]], atol=1e-6)
    np.testing.assert_allclose(reversed_order(BYTES)(pixels), [[255, 51, 0]], rtol=1e-6)
    expected = [[-0.485 / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225]]
    np.testing.assert_allclose(IMAGENET(pixels), expected, rtol=1e-5)
    assert MINUS_ONE(pixels).dtype == np.float32


def test_scalings_have_names():
    assert str(MINUS_ONE) == "-1 to 1"
    assert str(reversed_order(Scaling((0.50001,) * 3, (0.5,) * 3))) == "-1 to 1 in the order BGR"
    assert str(Scaling((0.1, 0.2, 0.3), (0.5, 0.5, 2))) == "mean 0.1,0.2,0.3 and std 0.5,0.5,2"


def test_candidates_hold_the_assumed_scaling_and_none_twice():
    own = Scaling((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # CLIP's, near ImageNet's
    listed = candidates(own)
    assert len(listed) == len(set(listed)) == 10
    assert own in listed
    assert reversed_order(own) in listed
    assert IMAGENET not in listed
    assert len(candidates(Scaling((0.1,) * 3, (0.1,) * 3))) == 12


def test_the_divergence_of_two_normal_distributions():
    stored = [ChannelStatistics((0.0, 1.0), (1.0, 1.0))]
    assert divergence(stored, stored) == 0
    # Channel 1: (2 - 0)^2 * (1 + 1) / 4 = 2. Channel 2: (1/4 + 4 - 2) / 4 = 0.5625. Up to 0.1% of the variance.
    assert divergence(stored, [ChannelStatistics((2.0, 1.0), (1.0, 4.0))]) == pytest.approx((2 + 0.5625) / 2, rel=4e-3)
    far = ChannelStatistics((1e6, 1.0), (1.0, 1.0))
    assert divergence(stored, [far]) == MAX_OF_CHANNEL / 2
    assert divergence(stored * 2, [far, stored[0]]) == MAX_OF_CHANNEL / 4
    with pytest.raises(BackboneError, match="2 channels gets 1"):
        divergence(stored, [ChannelStatistics((0.0,), (1.0,))])


def test_the_padding_ratio_is_a_geometric_mean_of_variances():
    stored = [ChannelStatistics((0.0,), (1.0,))] * 2
    own = [ChannelStatistics((9.0,), (4.0,)), ChannelStatistics((9.0,), (1.0,))]  # means do not count
    same = [ChannelStatistics((0.0,), (1.0,)), ChannelStatistics((0.0,), (4.0,))]
    assert padding_ratio(stored, own, same) == pytest.approx(1)
    assert padding_ratio(stored, own[:1] * 2, same[1:] * 2) == pytest.approx(1)
    worse = [ChannelStatistics((0.0,), (9.0,))] * 2  # (1/9 + 9 - 2) / 4 = 1.778 against 0.5625
    assert padding_ratio(stored, worse, same[1:] * 2) == pytest.approx(1.7778 / 0.5625, rel=1e-2)


def test_the_clearly_best_is_chosen():
    values = {MINUS_ONE: 0.1, reversed_order(MINUS_ONE): 0.15, ZERO: 0.5, reversed_order(ZERO): 0.4}
    assert choose(values) == MINUS_ONE
    assert choose({**values, reversed_order(ZERO): 0.19}) is None  # too near
    assert choose({scaling: value + 1 for scaling, value in values.items()}) is None  # none fits
    assert choose({scaling: float("nan") for scaling in values}) is None


def test_bgr_needs_to_fit_clearly_better():
    values = {MINUS_ONE: 0.11, reversed_order(MINUS_ONE): 0.1, ZERO: 0.5, reversed_order(ZERO): 0.5}
    assert choose(values) == MINUS_ONE
    assert choose({**values, MINUS_ONE: 0.13}) == reversed_order(MINUS_ONE)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), truth=st.sampled_from(candidates(MINUS_ONE)))
def test_a_small_network_tells_how_its_images_were_scaled(seed, truth):
    """A layer of 1 x 1 filters: its statistics from some images, the choice by others of the same kind."""
    rng = np.random.default_rng(seed)
    filters = rng.normal(size=(24, 3))
    colours = rng.integers(0, 256, (2, 60, 1, 1, 3)) * np.array([1.0, 0.7, 0.4])  # red more than blue, as of skin
    images = np.clip(colours + rng.normal(0, 20, (2, 60, 8, 8, 3)), 0, 255).astype(np.uint8)

    def statistics(scaling, pixels):
        return [channel_statistics(scaling(pixels) @ filters.T, 3)]

    stored = statistics(truth, images[0])
    values = {scaling: divergence(stored, statistics(scaling, images[1])) for scaling in candidates(ZERO)}
    assert choose(values) == truth


def test_channel_statistics_are_those_of_each_channel():
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    found = channel_statistics(values, 1)
    np.testing.assert_allclose(found.mean, [values[:, c].mean() for c in range(3)])
    np.testing.assert_allclose(found.variance, [values[:, c].var() for c in range(3)])


def test_an_assumption_comes_back_from_its_json(tmp_path):
    graph = tmp_path / "norms.onnx"
    norms = Norms(graph, (ChannelStatistics((1.0, 2.0), (3.0, 4.0)),), (1,), padding_is_open=True)
    for held in (norms, None):
        assumption = Assumption("assumed.", reversed_order(IMAGENET), held)
        assert Assumption.from_dict(assumption.to_dict(), graph) == assumption
