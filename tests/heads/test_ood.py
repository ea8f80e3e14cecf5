"""OOD scores against ridge written out, and against refits where groups are left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.ood import PENALTY, fit_ood, held_out_ood_scores
from headstart.heads.vectors import Vectors


def distance_by_hand(x, new, penalty):
    """Ridge on each picture's difference from the mean, written out."""
    mean = x.mean(axis=0)
    scatter = (x - mean).T @ (x - mean)
    away = new - mean
    left = penalty * np.linalg.solve(scatter + penalty * np.eye(x.shape[1]), away.T).T
    return (away * left).sum(axis=1) / (away**2).sum(axis=1)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([(60, 12), (60, 4), (20, 40), (41, 40)]))
def test_distances_of_groups_left_out_are_those_of_refits(seed, shape):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * np.geomspace(0.1, 3, shape[1]) + 2
    groups = rng.integers(0, 9, shape[0])
    basis = Eigenbasis.of(x)
    penalty = PENALTY * basis.eigenvalues.sum()
    expected = np.empty(len(x))
    for group in np.unique(groups):
        out = groups == group
        expected[out] = distance_by_hand(x[~out], x[out], penalty)
    np.testing.assert_allclose(held_out_ood_scores(basis, groups), expected, atol=1e-7)
    with pytest.MonkeyPatch.context() as low:  # groups larger than this and than the vectors are wide come from a refit
        low.setattr("headstart.heads.leave_one_group_out.LARGE_GROUP", 3)
        np.testing.assert_allclose(held_out_ood_scores(basis, groups), expected, atol=1e-7)


@pytest.mark.parametrize("shape", [(200, 12), (20, 40)])
def test_distances_of_new_pictures_are_those_of_the_whole_ridge(shape):
    """But for half precision, and for directions that explain next to nothing."""
    rng = np.random.default_rng(0)
    parts = (rng.normal(size=shape) + 2, 5 * rng.normal(size=shape) - 1)
    scales = np.r_[np.full(shape[1], 0.3), np.full(shape[1], 0.05)]
    x = np.hstack(parts) * scales
    new = rng.normal(size=(30, 2 * shape[1])) * 8
    basis = Eigenbasis.of(Vectors(parts, scales))
    found = fit_ood(basis)
    expected = distance_by_hand(x, new * scales, PENALTY * basis.eigenvalues.sum())
    np.testing.assert_allclose(found.scores(new), expected, atol=0.01)
    assert found.factor.dtype == np.float16
    assert 0 <= found.scores(new).min() <= found.scores(new).max() <= 1


def test_what_training_pictures_do_not_vary_in_is_far():
    rng = np.random.default_rng(0)
    x = np.zeros((100, 20))
    x[:, :10] = rng.normal(size=(100, 10))
    found = fit_ood(Eigenbasis.of(x))
    alike, other = np.zeros((2, 20)), np.zeros((2, 20))
    alike[:, :10], other[:, 10:] = rng.normal(size=(2, 10)), 0.01 * rng.normal(size=(2, 10))
    assert found.scores(alike).max() < 0.1
    assert found.scores(found.centre + other).min() > 0.9
    np.testing.assert_allclose(found.scores(found.centre[None]), 1, atol=0.01)


def test_pictures_without_variation_or_of_one_group_have_a_distance():
    flat = fit_ood(Eigenbasis.of(np.ones((5, 3))))
    assert flat.factor.shape == (3, 1)
    np.testing.assert_array_equal(flat.scores(np.zeros((2, 3))), 1)
    np.testing.assert_array_equal(held_out_ood_scores(Eigenbasis.of(np.ones((5, 3))), np.arange(5)), 1)
    x = np.random.default_rng(0).normal(size=(6, 3))
    np.testing.assert_array_equal(held_out_ood_scores(Eigenbasis.of(x), np.zeros(6, int)), 1)
