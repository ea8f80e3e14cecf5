"""Intervals, temperatures and tables against independent computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from headstart.stats.accuracy import held_out_accuracy, leave_one_group_out_accuracy, wilson
from headstart.stats.classification import confusion_matrix
from headstart.stats.paired import group_bootstrap, grouped_difference, holm, mcnemar
from headstart.stats.temperature import fit_temperature, label_smoothing, log_losses


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(pair):
    correct, count = pair
    expected = binomtest(correct, count).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(correct, count), (expected.low, expected.high), atol=1e-9)


def test_held_out_accuracy_counts_and_says_its_method():
    found = held_out_accuracy(np.array([True] * 254 + [False] * 2))
    assert (found.correct, found.count, found.method) == (254, 256, "Wilson")
    assert str(found) == "99.2% (254/256, 95% interval 97.2% to 99.8%, Wilson)"
    assert found.to_dict()["value"] == 254 / 256


def test_intervals_of_single_pictures_as_groups_are_wilsons():
    correct = np.random.default_rng(0).random(400) < 0.9
    found = leave_one_group_out_accuracy(correct, np.arange(400))
    np.testing.assert_allclose(found.interval, wilson(int(correct.sum()), 400), atol=0.006)


def test_intervals_widen_with_groups_and_cover():
    """Simulated scenes that are right or wrong as a whole: the interval must cover the truth about 95% of times."""
    rng, covered, widths = np.random.default_rng(0), 0, []
    for _ in range(300):
        right = np.repeat(rng.random(50) < 0.85, 10)
        low, high = leave_one_group_out_accuracy(right, np.repeat(np.arange(50), 10), resamples=300).interval
        covered += low <= 0.85 <= high
        widths.append(high - low)
    assert 0.91 <= covered / 300 <= 0.99
    assert np.mean(widths) > 2 * np.diff(wilson(425, 500))[0]


def test_no_mistake_at_all_is_not_certainty():
    low, high = leave_one_group_out_accuracy(np.ones(100, bool), np.repeat(np.arange(10), 10)).interval
    assert high == pytest.approx(1.0)
    assert low < 0.75  # ten groups are worth ten pictures, not a hundred


def test_grouped_difference_is_the_standard_error_of_group_sums():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 5)
    a, b = rng.normal(size=150), rng.normal(size=150)
    mean, error = grouped_difference(a, b, groups)
    sums = np.array([(a - b - (a - b).mean())[groups == g].sum() for g in range(30)])
    assert mean == pytest.approx((a - b).mean())
    assert error == pytest.approx(np.sqrt(30 / 29 * (sums**2).sum()) / 150)
    assert grouped_difference(a, b, np.zeros(150, int))[1] == float("inf")


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_scipys_binomial_test(a, b):
    expected = binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(a, b) == mcnemar(b, a)


def test_mcnemar_is_exact_where_floats_end():
    assert mcnemar(0, 2000) == 0.0  # 2^-1999
    assert mcnemar(5000, 5000) == 1.0


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_bootstrap_of_groups_is_wider_than_that_of_pictures_and_covers():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        values = np.repeat(rng.normal(0.1, 1, 60), 8)
        low, high = group_bootstrap(values, np.repeat(np.arange(60), 8), resamples=400)
        covered += low <= 0.1 <= high
    assert 0.88 <= covered / 200 <= 0.99
    alone = group_bootstrap(values, np.arange(480), resamples=400)
    assert high - low > 2 * (alone[1] - alone[0])
    assert group_bootstrap(values, np.zeros(480, int)) == (-1.0, 1.0)


def test_confusion_has_truth_in_rows():
    assert confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist() == [[1, 1], [0, 1]]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0.01, 100))
def test_the_temperature_has_the_least_log_loss(seed, classes, scale):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 60)
    scores = scale * (rng.normal(size=(60, classes)) + np.eye(classes)[labels])
    smooth = label_smoothing(60)
    found = fit_temperature(scores, labels, smooth)
    best = minimize_scalar(
        lambda t: log_losses(scores, labels, float(np.exp(t)), smooth).mean(),
        bounds=(np.log(scale) - 12, np.log(scale) + 12), method="bounded", options={"xatol": 1e-8},
    )  # fmt: skip
    assert log_losses(scores, labels, found, smooth).mean() <= best.fun + 1e-9


def test_log_losses_are_cross_entropies():
    scores, labels = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0])
    p = np.exp(scores / 2) / np.exp(scores / 2).sum(axis=1, keepdims=True)
    soft = 0.9 * np.eye(2)[labels] + 0.1 / 2
    np.testing.assert_allclose(log_losses(scores, labels, 2.0, 0.1), -(soft * np.log(p)).sum(axis=1), atol=1e-12)


def test_perfect_held_out_scores_do_not_become_certainty():
    scores, labels = np.eye(2)[np.arange(20) % 2], np.arange(20) % 2
    temperature = fit_temperature(scores, labels, label_smoothing(20))
    p = 1 / (1 + np.exp(-1 / temperature))
    assert p == pytest.approx(1 - label_smoothing(20) / 2, abs=1e-6)  # softened labels, exactly


def test_equal_scores_have_temperature_one():
    assert fit_temperature(np.zeros((4, 3)), np.array([0, 1, 2, 0]), 0.2) == 1.0


def test_probabilities_are_calibrated_on_fresh_answers():
    """Scores from a known model: with the fitted temperature, confidence meets the share of right answers."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    assert fit_temperature(7 * logits, labels, 0.0) == pytest.approx(7, rel=0.05)
