"""Ridge and closed-form dropout against least squares written out, and held-out scores against refits."""

import numpy as np
import pytest
from helpers.heads import (
    assert_solution_in_basis_is_that_of_statistics,
    gaussian_classes,
    ridge_by_hand,
    scores_of_refits,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headstart.errors import OptionError
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import LinearProblem, Targets
from headstart.heads.ridge import dropout_penalty, held_out_ridge, ridge_in_basis, solve_ridge
from headstart.heads.statistics import Statistics


@pytest.mark.parametrize("penalty", [0.01, 1.0, np.linspace(0.1, 5, 12)], ids=["small", "one", "by feature"])
def test_ridge_is_augmented_least_squares(penalty):
    x, labels, _ = gaussian_classes()
    weights, bias = solve_ridge(Statistics.of(x, labels, 3), penalty)
    expected_weights, expected_bias = ridge_by_hand(x, labels, 3, penalty)
    np.testing.assert_allclose(weights, expected_weights, atol=1e-10)
    np.testing.assert_allclose(bias, expected_bias, atol=1e-10)


def test_ridge_without_penalty_is_the_least_squares_solution_of_least_norm():
    x, labels, _ = gaussian_classes(n=10, d=20)
    weights, bias = solve_ridge(Statistics.of(x, labels, 3), 0.0)
    targets = np.eye(3)[labels]
    np.testing.assert_allclose(x @ weights + bias, targets, atol=1e-6)
    least_norm = np.linalg.pinv(x - x.mean(axis=0)) @ (targets - targets.mean(axis=0))
    np.testing.assert_allclose(weights, least_norm, atol=1e-6)


def test_closed_form_dropout_minimises_the_mean_loss_over_sampled_masks():
    """Squared loss averaged over 10,000 masks of inverted dropout."""
    rng = np.random.default_rng(0)
    x, labels, rate = rng.normal(size=(30, 4)) + 1, np.arange(30) % 2, 0.4
    centred = x - x.mean(axis=0)
    targets = np.eye(2)[labels] - 0.5
    gram, cross = np.zeros((4, 4)), np.zeros((4, 2))
    for _ in range(10_000):
        masked = centred * (rng.random(centred.shape) >= rate) / (1 - rate)
        gram += masked.T @ masked / 10_000
        cross += masked.T @ targets / 10_000
    sampled = np.linalg.solve(gram, cross)
    statistics = Statistics.of(centred, labels, 2)
    weights, _ = solve_ridge(statistics, dropout_penalty(statistics, rate))
    np.testing.assert_allclose(weights, sampled, atol=0.02 * np.abs(weights).max())
    without_dropout, _ = solve_ridge(statistics, 0.0)
    assert np.abs(without_dropout - sampled).max() > 0.1 * np.abs(weights).max()  # the test can distinguish them


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_a_dropout_rate_outside_its_range_is_an_error(rate):
    x, labels, _ = gaussian_classes()
    with pytest.raises(OptionError, match="Dropout rate"):
        dropout_penalty(Statistics.of(x, labels, 3), rate)


@pytest.mark.parametrize(("n", "d"), [(40, 12), (25, 60), (25, 25)])
@pytest.mark.parametrize("by_group", [True, False])
def test_held_out_scores_are_those_of_refits(n, d, by_group):
    x, labels, groups = gaussian_classes(n=n, d=d)
    groups = groups if by_group else np.arange(n)
    penalties = [0.1, 5.0]
    scores = held_out_ridge(LinearProblem.of(Eigenbasis.of(x), Targets(labels, 3, groups)), penalties)
    for i, penalty in enumerate(penalties):
        expected = scores_of_refits(x, labels, groups, lambda x, labels, p=penalty: ridge_by_hand(x, labels, 3, p))
        np.testing.assert_allclose(scores[i], expected, atol=1e-8)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(6, 20), st.integers(1, 12), st.integers(2, 6))
def test_held_out_scores_are_those_of_refits_for_any_groups(seed, n, d, group_count):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 2)
    x, groups = rng.normal(size=(n, d)), rng.integers(0, group_count, n)
    assume(len(np.unique(groups)) > 1)
    scores = held_out_ridge(LinearProblem.of(Eigenbasis.of(x), Targets(labels, 2, groups)), [0.7])[0]
    expected = scores_of_refits(x, labels, groups, lambda x, labels: ridge_by_hand(x, labels, 2, 0.7))
    np.testing.assert_allclose(scores, expected, atol=1e-7)


def test_noise_is_not_predictable_with_next_to_no_penalty():
    """With the constant direction left in the smoother, every held-out score would seem perfect."""
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(30, 200)), rng.permutation(np.arange(30) % 2)
    scores = held_out_ridge(LinearProblem.of(Eigenbasis.of(x), Targets(labels, 2, np.arange(30))), [1e-6])[0]
    assert (scores.argmax(axis=1) == labels).mean() < 0.8


@pytest.mark.parametrize(("count", "width"), [(40, 90), (300, 20)])
def test_the_solution_in_the_eigenbasis_is_that_of_the_statistics(count, width):
    assert_solution_in_basis_is_that_of_statistics(
        count,
        width,
        lambda problem: ridge_in_basis(problem, 0.7),
        lambda statistics: solve_ridge(statistics, 0.7),
    )
