"""Reliability bins and risk-coverage points against counting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headstart.report.reliability import MAX_POINTS, reliability_bins, risk_coverage
from headstart.stats.accuracy import wilson


@settings(deadline=None)
@given(arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0])), st.randoms())
def test_risk_is_the_counted_error_rate(confidence, random):
    is_correct = np.array([random.random() < 0.7 for _ in confidence])
    points = risk_coverage(confidence, is_correct)
    assert points == tuple(
        (float((confidence >= level).mean()), float((~is_correct[confidence >= level]).mean()))
        for level in sorted(set(confidence))[::-1]
    )
    assert points[-1] == (1.0, float((~is_correct).mean()))


@settings(deadline=None)
@given(arrays(np.float64, st.integers(1, 200), elements=st.floats(0, 1)), st.randoms())
def test_every_prediction_is_in_one_reliability_bin(confidence, random):
    is_correct = np.array([random.random() < 0.7 for _ in confidence])
    bins = reliability_bins(confidence, is_correct, np.arange(len(confidence)))
    assert sum(b.count for b in bins) == len(confidence)
    assert sum(b.count * b.accuracy for b in bins) == pytest.approx(is_correct.sum())
    assert sum(b.count * b.mean_confidence for b in bins) == pytest.approx(confidence.sum())
    assert all(b.low - 1e-9 <= b.accuracy <= b.high + 1e-9 for b in bins)
    for b in bins:  # of images that are alone in their groups
        assert (b.low, b.high) == pytest.approx(wilson(b.count * b.accuracy, b.count))


def test_predictions_of_one_scene_widen_the_interval_of_a_bin():
    confidence, is_correct = np.full(600, 0.95), np.arange(600) % 300 >= 30
    (alone,) = reliability_bins(confidence, is_correct, np.arange(600))
    (frames,) = reliability_bins(confidence, is_correct, np.arange(600) // 10)  # 6 of 60 scenes are wrong as a whole
    assert (alone.low, alone.high) == pytest.approx(wilson(540, 600))
    assert (frames.low, frames.high) == pytest.approx(wilson(54, 60))


def test_a_long_curve_is_thinned_and_keeps_its_end():
    confidence = np.random.default_rng(0).uniform(0.5, 1, 5000)
    is_correct = np.random.default_rng(1).uniform(0, 1, 5000) < confidence
    points = risk_coverage(confidence, is_correct)
    assert len(points) <= MAX_POINTS
    assert points[-1] == (1.0, float((~is_correct).mean()))
    order = np.argsort(-confidence)
    for coverage, risk in points:
        count = round(coverage * 5000)
        assert risk == pytest.approx((~is_correct[order[:count]]).mean())
