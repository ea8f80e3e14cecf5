"""Folds, and whether fine-tuning is better than the frozen model."""

import numpy as np

from headstart.finetune.verdict import ALPHAS, compare_to_frozen, make_folds


def test_folds_keep_groups_whole_and_train_on_every_class():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 20, 90)
    labels = groups % 3
    for train, test in make_folds(labels, groups, 0):
        assert not set(groups[train]) & set(groups[test])
        assert set(labels[train]) == {0, 1, 2}
        assert sorted([*train, *test]) == list(range(90))
    assert make_folds(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]), 0) is None


def make_scores(is_right, labels, rng):
    """Scores of two classes whose prediction is right where ``is_right``."""
    predicted = np.where(is_right, labels, 1 - labels)
    return np.eye(2)[predicted] * 4 + rng.normal(0, 0.1, (len(labels), 2))


def test_a_difference_by_chance_keeps_the_frozen_model_and_a_significant_one_does_not():
    rng = np.random.default_rng(1)
    n = 200
    labels, groups, folds = np.arange(n) % 2, np.arange(n), np.arange(n) % 3
    is_right = rng.random(n) < 0.8
    frozen = make_scores(is_right, labels, rng)
    similar = np.stack([make_scores(is_right ^ (np.arange(n) == i), labels, rng) for i in range(len(ALPHAS))])
    verdict = compare_to_frozen(frozen, similar, labels, groups, folds)
    assert not verdict.is_better
    assert "the frozen model is kept" in str(verdict)
    better = similar.copy()
    better[2] = make_scores(rng.random(n) < 0.97, labels, rng)
    verdict = compare_to_frozen(frozen, better, labels, groups, folds)
    assert verdict.is_better
    assert "the fine-tuned model is kept" in str(verdict)
    assert (verdict.alpha, verdict.alphas) == (ALPHAS[2], (ALPHAS[2],) * 3)
    assert verdict.frozen_accuracy == is_right.mean()
    worse = np.stack([make_scores(rng.random(n) < 0.5, labels, rng)] * len(ALPHAS))
    verdict = compare_to_frozen(frozen, worse, labels, groups, folds)
    assert verdict.difference.significant
    assert not verdict.is_better
