"""Temperature scaling against a general minimiser, and cross-entropies written out."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from headstart.heads.head import softmax
from headstart.stats import temperature as module
from headstart.stats.temperature import fit_temperature, label_smoothing, log_losses


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0.01, 100))
def test_the_fitted_temperature_has_the_least_log_loss(seed, classes, scale):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 60)
    scores = scale * (rng.normal(size=(60, classes)) + np.eye(classes)[labels])
    smoothing = label_smoothing(60)
    temperature = fit_temperature(scores, labels, smoothing)
    minimum = minimize_scalar(
        lambda log_temperature: log_losses(scores, labels, float(np.exp(log_temperature)), smoothing).mean(),
        bounds=(np.log(scale) - 12, np.log(scale) + 12),
        method="bounded",
        options={"xatol": 1e-8},
    )
    assert log_losses(scores, labels, temperature, smoothing).mean() <= minimum.fun + 1e-9


def test_log_losses_are_cross_entropies_against_smoothed_labels():
    scores, labels = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0])
    p = np.exp(scores / 2) / np.exp(scores / 2).sum(axis=1, keepdims=True)
    smoothed_labels = 0.9 * np.eye(2)[labels] + 0.1 / 2
    expected = -(smoothed_labels * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(log_losses(scores, labels, 2.0, 0.1), expected, atol=1e-12)


def test_without_errors_the_probabilities_are_those_of_smoothed_labels():
    scores, labels = np.eye(2)[np.arange(20) % 2], np.arange(20) % 2
    temperature = fit_temperature(scores, labels, label_smoothing(20))
    p = 1 / (1 + np.exp(-1 / temperature))
    assert p == pytest.approx(1 - label_smoothing(20) / 2, abs=1e-6)


def test_equal_scores_have_temperature_one():
    assert fit_temperature(np.zeros((4, 3)), np.array([0, 1, 2, 0]), 0.2) == 1.0


def test_the_temperature_of_scaled_logits_is_their_scale():
    """Labels are drawn from the softmax of known logits."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    assert fit_temperature(7 * logits, labels, 0.0) == pytest.approx(7, rel=0.05)


@pytest.mark.parametrize("classes", [2, 7, 100])
def test_results_are_the_same_bits_for_any_number_of_rows_at_a_time(monkeypatch, classes):
    rng = np.random.default_rng(classes)
    scores, labels = rng.normal(size=(1003, classes)) * 3, rng.integers(0, classes, 1003)
    scores[np.arange(1003), labels] += 2

    def results():
        fitted = fit_temperature(scores, labels, 0.001)
        return fitted, log_losses(scores, labels, fitted, 0.001).tobytes(), softmax(scores).tobytes()

    whole = results()
    monkeypatch.setattr(module, "NUMBERS", 10 * classes)
    assert results() == whole
    assert [*module.row_blocks(scores)][-1] == slice(1000, 1010)


def test_memory_is_that_of_a_few_arrays_of_the_size_of_the_scores():
    scores, labels = np.random.default_rng(0).normal(size=(100_000, 50)), np.arange(100_000) % 50
    tracemalloc.start()
    log_losses(scores, labels, 1.0, 0.0)
    of_losses = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    fit_temperature(scores, labels, 0.001)
    of_fit = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert of_losses < scores.nbytes
    assert of_fit < 2.8 * scores.nbytes  # the centred scores and their squares; it was more than five times
