"""OOD scores against ridge written out, and held-out ones against refits."""

import numpy as np
import pytest
from helpers.heads import ood_scores_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.heads import eigenbasis
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.ood import PENALTY, fit_ood, held_out_ood_scores
from headstart.heads.vectors import Vectors


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([(60, 12), (60, 4), (20, 40), (41, 40)]))
def test_held_out_scores_are_those_of_refits(seed, shape):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * np.geomspace(0.1, 3, shape[1]) + 2
    groups = rng.integers(0, 9, shape[0])
    basis = Eigenbasis.of(x)
    penalty = PENALTY * basis.eigenvalues.sum()
    expected = np.empty(len(x))
    for group in np.unique(groups):
        is_left_out = groups == group
        expected[is_left_out] = ood_scores_by_hand(x[~is_left_out], x[is_left_out], penalty)
    np.testing.assert_allclose(held_out_ood_scores(basis, groups), expected, atol=1e-7)
    with pytest.MonkeyPatch.context() as patch:  # groups larger than this and than a vector is wide are refitted
        patch.setattr("headstart.heads.leave_one_group_out.LARGE_GROUP", 3)
        np.testing.assert_allclose(held_out_ood_scores(basis, groups), expected, atol=1e-7)


@pytest.mark.parametrize("shape", [(200, 12), (20, 40)])
def test_scores_of_new_images_are_those_of_ridge(shape):
    """Up to half precision, and up to directions that explain next to nothing."""
    rng = np.random.default_rng(0)
    parts = (rng.normal(size=shape) + 2, 5 * rng.normal(size=shape) - 1)
    scales = np.r_[np.full(shape[1], 0.3), np.full(shape[1], 0.05)]
    x = np.hstack(parts) * scales
    new = rng.normal(size=(30, 2 * shape[1])) * 8
    basis = Eigenbasis.of(Vectors(parts, scales))
    detector = fit_ood(basis)
    expected = ood_scores_by_hand(x, new * scales, PENALTY * basis.eigenvalues.sum())
    scores = detector.scores(new)
    np.testing.assert_allclose(scores, expected, atol=0.01)
    assert detector.factor.dtype == np.float16
    assert 0 <= scores.min() <= scores.max() <= 1


def test_directions_in_which_training_images_do_not_vary_have_high_scores():
    rng = np.random.default_rng(0)
    x = np.zeros((100, 20))
    x[:, :10] = rng.normal(size=(100, 10))
    detector = fit_ood(Eigenbasis.of(x))
    in_distribution, offsets = np.zeros((2, 20)), np.zeros((2, 20))
    in_distribution[:, :10], offsets[:, 10:] = rng.normal(size=(2, 10)), 0.01 * rng.normal(size=(2, 10))
    assert detector.scores(in_distribution).max() < 0.1
    assert detector.scores(detector.centre + offsets).min() > 0.9
    np.testing.assert_allclose(detector.scores(detector.centre[None]), 1, atol=0.01)


def test_equal_images_and_images_of_one_group_have_the_highest_score():
    detector = fit_ood(Eigenbasis.of(np.ones((5, 3))))
    assert detector.factor.shape == (3, 1)
    np.testing.assert_array_equal(detector.scores(np.zeros((2, 3))), 1)
    np.testing.assert_array_equal(held_out_ood_scores(Eigenbasis.of(np.ones((5, 3))), np.arange(5)), 1)
    x = np.random.default_rng(0).normal(size=(6, 3))
    np.testing.assert_array_equal(held_out_ood_scores(Eigenbasis.of(x), np.zeros(6, int)), 1)


@pytest.mark.parametrize("large", [False, True], ids=["closed form", "refitted"])
def test_in_few_directions_what_lies_outside_counts_as_unexplained(monkeypatch, large):
    """Held-out scores by the directions kept, against the whole vectors projected on them and refitted."""
    for name, value in (("OVERSAMPLING", 4), ("MAX_COORDINATES", 0)):
        monkeypatch.setattr(eigenbasis, name, value)
    if large:
        monkeypatch.setattr("headstart.heads.leave_one_group_out.LARGE_GROUP", 3)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(90, 30)) * np.geomspace(2, 0.05, 30) + 1
    groups = np.arange(90) // 9 if large else rng.integers(0, 30, 90)
    basis = Eigenbasis.of(x, directions=6)
    directions, penalty = basis.eigenvectors, PENALTY * basis.total
    expected = np.empty(90)
    for group in np.unique(groups):
        is_left_out = groups == group
        offsets = x[is_left_out] - x[~is_left_out].mean(axis=0)
        inside = offsets @ directions
        others = (x[~is_left_out] - x[~is_left_out].mean(axis=0)) @ directions
        unexplained = penalty * np.linalg.solve(others.T @ others + penalty * np.eye(6), inside.T).T
        outside = (offsets**2).sum(axis=1) - (inside**2).sum(axis=1)
        expected[is_left_out] = ((inside * unexplained).sum(axis=1) + outside) / (offsets**2).sum(axis=1)
    np.testing.assert_allclose(held_out_ood_scores(basis, groups), expected, atol=1e-7)


def test_a_detector_behind_other_numbers_does_not_look_at_them():
    rng = np.random.default_rng(0)
    detector = fit_ood(Eigenbasis.of(rng.normal(size=(50, 8)) + 1))
    new, others = rng.normal(size=(20, 8)) * 3, rng.normal(size=(20, 5)) * 100
    behind = detector.behind(5)
    assert behind.factor.dtype == np.float16
    np.testing.assert_allclose(behind.scores(np.concatenate([others, new], axis=1)), detector.scores(new), atol=1e-7)
