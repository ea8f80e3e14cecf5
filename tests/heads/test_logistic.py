"""Logistic regression: the solution against scikit-learn, and folds of whole groups."""

import numpy as np
import pytest
from helpers.heads import gaussian_classes
from scipy.special import logsumexp

from headstart.heads.kinds import Targets
from headstart.heads.logistic import fit_logistic, held_out_logistic


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_agrees_with_scikit_learn(classes):
    from sklearn.linear_model import LogisticRegression

    x, labels, _ = gaussian_classes(classes=classes)
    weights, bias = fit_logistic(x, labels, classes, 0.5)
    scores = x @ weights + bias
    probabilities = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
    expected = LogisticRegression(C=0.5, max_iter=2000).fit(x, labels).predict_proba(x)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_a_class_without_images_has_no_score():
    x, labels, _ = gaussian_classes(classes=2)
    weights, bias = fit_logistic(x, 2 * labels, 3, 0.5)
    expected_weights, expected_bias = fit_logistic(x, labels, 2, 0.5)
    np.testing.assert_array_equal(weights, np.insert(expected_weights, 1, 0, axis=1))
    np.testing.assert_array_equal(bias, np.insert(expected_bias, 1, -np.inf))


def test_held_out_scores_of_near_copies_are_no_better_than_chance_when_groups_stay_whole():
    """Every image twice in its group, with labels that are noise."""
    rng = np.random.default_rng(3)
    x = np.repeat(rng.normal(size=(60, 40)), 2, axis=0)
    labels, groups = np.repeat(rng.permutation(np.arange(60) % 2), 2), np.repeat(np.arange(60), 2)
    by_group = held_out_logistic(x, Targets(labels, 2, groups), [10.0])[0]
    by_image = held_out_logistic(x, Targets(labels, 2, np.arange(120)), [10.0])[0]
    assert (by_group.argmax(axis=1) == labels).mean() < 0.7
    assert (by_image.argmax(axis=1) == labels).mean() > 0.8


def test_a_class_that_is_only_in_the_fold_gets_the_lowest_score():
    x, labels, groups = gaussian_classes()
    groups = np.where(labels == 2, 99, groups)
    scores = held_out_logistic(x, Targets(labels, 3, groups), [0.5])[0]
    assert np.isfinite(scores).all()
    assert (scores[labels == 2, 2] <= scores[labels == 2, :2].min(axis=1)).all()
