"""The nearest class mean against distances written out, and its held-out scores against refits."""

import numpy as np
import pytest
from helpers.heads import assert_solution_in_basis_is_that_of_statistics, centred, gaussian_classes, scores_of_refits

from headstart.heads.centroid import centroid_in_basis, held_out_centroid, solve_centroid
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import LinearProblem, Targets
from headstart.heads.statistics import Statistics


def test_scores_are_squared_distances_to_the_class_means():
    x, labels, _ = gaussian_classes()
    weights, bias = solve_centroid(Statistics.of(x, labels, 3))
    means = np.array([x[labels == c].mean(axis=0) for c in range(3)])
    distances = ((x[:, None] - means) ** 2).sum(axis=2)
    np.testing.assert_allclose(-2 * (x @ weights + bias) + (x**2).sum(axis=1, keepdims=True), distances, atol=1e-9)


def test_a_class_without_images_has_no_score():
    x, labels, _ = gaussian_classes(classes=3)
    weights, bias = solve_centroid(Statistics.of(x, labels, 4))
    expected_weights, expected_bias = solve_centroid(Statistics.of(x, labels, 3))
    np.testing.assert_array_equal(weights, np.c_[expected_weights, np.zeros(12)])
    np.testing.assert_array_equal(bias, np.r_[expected_bias, -np.inf])


def test_held_out_scores_are_those_of_refits():
    x, labels, groups = gaussian_classes()
    scores = held_out_centroid(LinearProblem.of(Eigenbasis.of(x), Targets(labels, 3, groups)))
    expected = scores_of_refits(x, labels, groups, lambda x, labels: solve_centroid(Statistics.of(x, labels, 3)))
    np.testing.assert_allclose(centred(scores), centred(expected), atol=1e-9)


@pytest.mark.parametrize(("count", "width"), [(40, 90), (300, 20)])
def test_the_solution_in_the_eigenbasis_is_that_of_the_statistics(count, width):
    assert_solution_in_basis_is_that_of_statistics(count, width, centroid_in_basis, solve_centroid)
