"""Folds of several labels an image, and whether fine-tuning is better than the frozen model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.finetune.label_verdict import compare_labels_to_frozen
from headstart.finetune.verdict import ALPHAS, make_folds
from headstart.heads.folds import count_by_group, holdout_groups


def make_labels(n, rng, shares=(0.5, 0.2, 0.1), unknown=0.1):
    labels = (rng.random((n, len(shares))) < np.array(shares)).astype(np.float32)
    labels[rng.random(labels.shape) < unknown] = np.nan
    return labels


def answers(labels):
    """Which answers occur: yes and no to each label."""
    return np.concatenate([(labels == 1).any(axis=0), (labels == 0).any(axis=0)])


@given(st.integers(0, 10**6), st.integers(12, 120), st.integers(4, 40))
def test_folds_keep_groups_whole_and_train_on_every_answer(seed, n, count):
    rng = np.random.default_rng(seed)
    groups, labels = rng.integers(0, count, n), make_labels(n, rng)
    folds = make_folds(labels, groups, seed)
    per_answer = [
        len(np.unique(groups[labels[:, label] == answer]))
        for label in range(3)
        for answer in (0, 1)
        if (labels[:, label] == answer).any()
    ]
    if folds is None:
        assert min(per_answer) < 3
        return
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(n))
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert (answers(labels[train]) == answers(labels)).all()


def test_folds_divide_every_label_evenly():
    rng = np.random.default_rng(0)
    labels = make_labels(300, rng, unknown=0)
    folds = make_folds(labels, np.arange(300) // 2, 0)
    shares = np.array([labels[test].mean(axis=0) for _, test in folds])
    assert np.abs(shares - labels.mean(axis=0)).max() < 0.02


@given(st.integers(0, 10**6))
def test_what_is_held_out_leaves_every_answer_to_learn_from(seed):
    rng = np.random.default_rng(seed)
    groups, labels = rng.integers(0, 25, 80), make_labels(80, rng)
    is_held_out = holdout_groups(groups, labels, seed)
    assert not set(groups[is_held_out]) & set(groups[~is_held_out])
    assert is_held_out.sum() <= 8
    assert (answers(labels[~is_held_out]) == answers(labels)).all()


def test_images_are_counted_by_group_and_answer():
    labels = np.array([[1, 0], [1, np.nan], [0, 0], [np.nan, 0]])
    counts, index = count_by_group(labels, np.array([7, 3, 3, 7]))
    np.testing.assert_array_equal(counts, [[1, 1, 1], [1, 0, 2]])  # the second label holds of none
    np.testing.assert_array_equal(index, [1, 0, 0, 1])


def make_scores(labels, rng, noise):
    """Scores of labels: 2 where one holds and -2 where not, and noise."""
    return np.where(labels == 1, 2.0, -2.0) + rng.normal(0, noise, labels.shape)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(1)
    labels, groups = make_labels(240, rng), np.arange(240) // 2
    return rng, labels, groups, groups % 3, make_scores(labels, rng, 3)


def test_a_difference_by_chance_keeps_the_frozen_model_and_a_significant_one_does_not(case):
    rng, labels, groups, folds, frozen = case
    similar = np.stack([make_scores(labels, rng, 3) for _ in ALPHAS])
    similar[3] = frozen + rng.normal(0, 0.05, frozen.shape)
    verdict = compare_labels_to_frozen(frozen, similar, labels, groups, folds)
    assert not verdict.is_better
    assert "the frozen model is kept" in str(verdict)
    better = similar.copy()
    better[2] = make_scores(labels, rng, 1)
    verdict = compare_labels_to_frozen(frozen, better, labels, groups, folds)
    assert verdict.is_better
    assert "the fine-tuned model is kept" in str(verdict)
    assert (verdict.alpha, verdict.alphas) == (ALPHAS[2], (ALPHAS[2],) * 3)
    assert verdict.tuned_loss < verdict.frozen_loss
    assert verdict.tuned_precision > verdict.frozen_precision
    assert verdict.tuned_loss - verdict.frozen_loss == pytest.approx(verdict.difference.difference)
    worse = np.stack([make_scores(labels, rng, 9)] * len(ALPHAS))
    verdict = compare_labels_to_frozen(frozen, worse, labels, groups, folds)
    assert verdict.difference.significant
    assert not verdict.is_better


def test_scores_that_are_too_sure_are_no_loss_and_unknown_cells_decide_nothing(case):
    rng, labels, groups, folds, frozen = case
    tuned = np.stack([frozen] * len(ALPHAS))
    expected = compare_labels_to_frozen(frozen, tuned, labels, groups, folds)
    sure = compare_labels_to_frozen(frozen, 20 * tuned, labels, groups, folds)  # calibration takes it back
    assert expected.difference.difference == 0
    assert sure.tuned_loss == pytest.approx(expected.frozen_loss, rel=1e-4)
    np.testing.assert_allclose(sure.platt.slopes * 20, expected.platt.slopes, rtol=1e-3)
    changed, changed_tuned = frozen.copy(), tuned.copy()
    unknown = np.isnan(labels)
    changed[unknown], changed_tuned[:, unknown] = rng.normal(0, 50, (2, unknown.sum()))
    other = compare_labels_to_frozen(changed, changed_tuned, labels, groups, folds)
    assert (other.frozen_loss, other.tuned_loss) == (expected.frozen_loss, expected.tuned_loss)
    assert (other.frozen_precision, other.tuned_precision) == (expected.frozen_precision, expected.tuned_precision)
