"""LDA against normal densities, against scikit-learn, and its held-out scores against refits."""

import numpy as np
import pytest
from helpers.heads import (
    assert_solution_in_basis_is_that_of_statistics,
    centred,
    gaussian_classes,
    lda_scores_by_hand,
    scores_of_refits,
)
from scipy.special import logsumexp

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import LinearProblem, Targets
from headstart.heads.lda import PrecisionMeans, held_out_lda, lda_in_basis, solve_lda
from headstart.heads.statistics import Statistics


def test_lda_gives_the_class_probabilities_of_normal_densities():
    x, labels, _ = gaussian_classes(n=60, d=5)
    weights, bias = solve_lda(Statistics.of(x, labels, 3), 0.7)
    scores, expected = x @ weights + bias, lda_scores_by_hand(x, labels, 3, 0.7)
    np.testing.assert_allclose(
        scores - logsumexp(scores, axis=1, keepdims=True),
        expected - logsumexp(expected, axis=1, keepdims=True),
        atol=1e-9,
    )


def test_lda_agrees_with_scikit_learn():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, labels, _ = gaussian_classes(n=60, d=5)
    weights, bias = solve_lda(Statistics.of(x, labels, 3), 1e-9)
    scores = x @ weights + bias
    probabilities = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
    reference = LinearDiscriminantAnalysis(solver="lsqr").fit(x, labels)
    # scikit-learn weights the covariances of the classes by their priors: that is the within-class scatter over n.
    np.testing.assert_allclose(probabilities, reference.predict_proba(x), atol=1e-6)


def test_a_class_without_images_has_no_score():
    x, labels, _ = gaussian_classes(classes=3)
    weights, bias = solve_lda(Statistics.of(x, labels, 4), 0.7)
    expected_weights, expected_bias = solve_lda(Statistics.of(x, labels, 3), 0.7)
    np.testing.assert_array_equal(weights, np.c_[expected_weights, np.zeros(12)])
    np.testing.assert_array_equal(bias, np.r_[expected_bias, -np.inf])


@pytest.mark.parametrize(("n", "d"), [(40, 12), (25, 60)])
@pytest.mark.parametrize("by_group", [True, False])
def test_held_out_scores_are_those_of_refits(n, d, by_group):
    x, labels, groups = gaussian_classes(n=n, d=d)
    groups = groups if by_group else np.arange(n)
    shrinkages = [0.5, 10.0]
    scores = held_out_lda(LinearProblem.of(Eigenbasis.of(x), Targets(labels, 3, groups)), shrinkages)
    for i, shrinkage in enumerate(shrinkages):

        def refit(x, labels, shrinkage=shrinkage):
            return solve_lda(Statistics.of(x, labels, 3), shrinkage)

        expected = scores_of_refits(x, labels, groups, refit)
        np.testing.assert_allclose(centred(scores[i]), centred(expected), atol=1e-6)


@pytest.mark.parametrize(("count", "width"), [(40, 90), (300, 20)])
def test_the_solution_in_the_eigenbasis_is_that_of_the_statistics(count, width):
    assert_solution_in_basis_is_that_of_statistics(
        count,
        width,
        lambda problem: lda_in_basis(problem, 0.7),
        lambda statistics: solve_lda(statistics, 0.7),
    )


@pytest.mark.parametrize(("n", "d"), [(40, 12), (25, 60)])
def test_products_of_class_means_are_those_under_the_within_class_scatter(n, d):
    x, labels, _ = gaussian_classes(n=n, d=d)
    basis = Eigenbasis.of(x)
    counts, means = np.bincount(labels), basis.class_means(labels, 3)
    shrinkages = np.array([0.5, 10.0])
    precision_means = PrecisionMeans.of(means, counts, 1 / (basis.eigenvalues + shrinkages[:, None]))
    class_means = np.array([x[labels == c].mean(axis=0) for c in range(3)])
    offsets = x - class_means[labels]
    for i, shrinkage in enumerate(shrinkages):
        within = offsets.T @ offsets + shrinkage * np.eye(d)
        from_centre = class_means - x.mean(axis=0)
        expected = from_centre @ np.linalg.solve(within, from_centre.T)
        np.testing.assert_allclose(precision_means.within_products[i], expected, atol=1e-8)
        np.testing.assert_array_equal(
            precision_means.at(slice(i, i + 1)).within_products[0], precision_means.within_products[i]
        )
