"""Accuracy: Wilson's interval against SciPy, and intervals of grouped images against simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from headstart.stats.accuracy import disjoint, held_out_accuracy, leave_one_group_out_accuracy, wilson


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_agrees_with_scipy(correct_and_count):
    correct, count = correct_and_count
    expected = binomtest(correct, count).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(correct, count), (expected.low, expected.high), atol=1e-9)


def test_held_out_accuracy_counts_and_names_its_method():
    accuracy = held_out_accuracy(np.array([True] * 254 + [False] * 2))
    assert (accuracy.correct, accuracy.count, accuracy.method) == (254, 256, "Wilson")
    assert str(accuracy) == "99.2% (254/256, 95% interval 97.2% to 99.8%, Wilson)"
    assert accuracy.to_dict()["value"] == 254 / 256


def test_with_single_images_as_groups_the_interval_is_wilsons():
    correct = np.random.default_rng(0).random(400) < 0.9
    accuracy = leave_one_group_out_accuracy(correct, np.arange(400))
    np.testing.assert_allclose(accuracy.interval, wilson(int(correct.sum()), 400), atol=0.006)


def test_intervals_of_grouped_images_are_wider_and_cover_the_true_accuracy():
    """Simulated scenes, each predicted right or wrong as a whole: coverage is about 95%."""
    rng, covered, widths = np.random.default_rng(0), 0, []
    for _ in range(300):
        correct = np.repeat(rng.random(50) < 0.85, 10)
        low, high = leave_one_group_out_accuracy(correct, np.repeat(np.arange(50), 10), resamples=300).interval
        covered += low <= 0.85 <= high
        widths.append(high - low)
    assert 0.91 <= covered / 300 <= 0.99
    assert np.mean(widths) > 2 * np.diff(wilson(425, 500))[0]


def test_without_errors_the_interval_still_has_a_width():
    low, high = leave_one_group_out_accuracy(np.ones(100, bool), np.repeat(np.arange(10), 10)).interval
    assert high == pytest.approx(1.0)
    assert low < 0.75  # as of ten images, not a hundred: there are ten groups


def test_intervals_that_touch_are_not_disjoint():
    assert disjoint((0.1, 0.2), (0.3, 0.4))
    assert disjoint((0.3, 0.4), (0.1, 0.2))
    assert not disjoint((0.1, 0.3), (0.3, 0.4))
    assert not disjoint((0.1, 0.9), (0.3, 0.4))
