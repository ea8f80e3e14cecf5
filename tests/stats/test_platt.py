"""Platt scaling against a general optimiser."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from headstart.stats.platt import fit_platt, log_losses, platt_targets, sigmoid


def test_the_sigmoid_of_large_numbers():
    np.testing.assert_allclose(sigmoid(np.array([-1e4, -1.0, 0.0, 1.0, 1e4])), [0, 0.26894142, 0.5, 0.73105858, 1])


def test_the_log_loss_of_a_target():
    logits, targets = np.array([[0.3], [-2.0]]), np.array([[0.9], [0.2]])
    p = sigmoid(logits)
    np.testing.assert_allclose(
        log_losses(logits, targets), -(targets * np.log(p) + (1 - targets) * np.log(1 - p)), atol=1e-12
    )


def test_targets_count_groups():
    values = np.array([[1, 0], [1, 1], [0, 0], [1, 0]], bool)
    known = np.array([[1, 1], [1, 1], [1, 1], [0, 1]], bool)
    targets = platt_targets(values, known, np.array([5, 5, 7, 9]))
    assert targets[0, 0] == pytest.approx(2 / 3)  # one group has it
    assert targets[2, 0] == pytest.approx(1 / 3)
    assert targets[1, 1] == pytest.approx(2 / 3)
    assert targets[0, 1] == pytest.approx(1 / 5)  # three groups have images without it


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(6, 40), st.floats(0.0, 4.0), st.floats(0.01, 100.0))
def test_it_has_the_least_loss_of_all_slopes_from_zero_on(seed, n, strength, scale):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 2)) * scale + 3
    values = rng.random((n, 2)) < sigmoid(strength * (scores - 3) / scale - 0.5)
    known = rng.random((n, 2)) < 0.8
    known[:2] = True
    targets = platt_targets(values, known, np.arange(n))
    found = fit_platt(np.where(known, scores, np.nan), targets, known)
    for label in range(2):
        at = known[:, label]
        x, t = (scores[at, label] - 3) / scale, targets[at, label]
        best = minimize(
            lambda p, x=x, t=t: log_losses(p[0] * x + p[1], t).sum(), [0.5, 0.0], bounds=[(0, None), (None, None)]
        )
        losses = log_losses(found.logits(scores)[at, label], t).sum()
        assert found.slopes[label] >= 0
        assert losses <= best.fun + 1e-5 * n


def test_scores_that_run_against_the_truth_say_nothing():
    scores = np.array([[0.0], [1.0], [2.0], [3.0]])
    values = np.array([[True], [True], [False], [False]])
    targets = platt_targets(values, np.ones((4, 1), bool), np.arange(4))
    platt = fit_platt(scores, targets, np.ones((4, 1), bool))
    assert platt.slopes.tolist() == [0]
    np.testing.assert_allclose(sigmoid(platt.logits(scores)), 0.5)


def test_scores_that_are_all_the_same():
    scores = np.full((4, 1), 0.25)
    values = np.array([[True], [False], [False], [False]])
    targets = platt_targets(values, np.ones((4, 1), bool), np.arange(4))
    platt = fit_platt(scores, targets, np.ones((4, 1), bool))
    np.testing.assert_allclose(sigmoid(platt.logits(scores)), targets.mean())
