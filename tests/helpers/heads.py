"""Random vectors with labels and groups, and heads and scores computed the long way, for the tests of closed forms."""

import numpy as np

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import LinearProblem, Targets
from headstart.heads.selection import HeadOptions, rank_candidates, select_head
from headstart.heads.statistics import Statistics
from headstart.heads.training_set import TrainingSet


def gaussian_classes(seed=0, n=40, d=12, classes=3, groups=13):
    """Vectors [n, d] of Gaussian classes, labels [n] and groups [n]; the features differ in variance."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    x = rng.normal(size=(n, d)) * np.geomspace(0.3, 3, d) + rng.normal(size=(classes, d))[labels] + 2
    return x, labels, rng.permutation(np.arange(n) % groups)


def scenes(seed=0, groups=40, group_size=4, d=24, spread=0.3, classes=2):
    """Features by tap, labels and groups: the images of a group are near copies; only the deep tap shows the class."""
    rng = np.random.default_rng(seed)
    group_index = np.repeat(np.arange(groups), group_size)
    labels = np.arange(groups)[group_index] % classes
    scene_vectors = rng.normal(size=(groups, d))
    class_means = rng.normal(size=(classes, d))
    noise = spread * rng.normal(size=(len(group_index), d))
    deep = class_means[labels] * 1.5 + scene_vectors[group_index] + noise
    shallow = scene_vectors[group_index] * 3 + spread * rng.normal(size=(len(group_index), d))
    return {"shallow": shallow.astype(np.float16), "deep": deep.astype(np.float16)}, labels, group_index


def overlapping_classes(seed=0, images=120, classes=3):
    """Features by tap, labels and groups of two images each; many images are misclassified on any taps."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    values = {}
    for tap, width in (("shallow", 5), ("deep", 9)):
        means = 0.5 * rng.normal(size=(classes, width))
        values[tap] = ((means[labels] + rng.normal(size=(images, width))) * rng.uniform(1, 4, width)).astype(np.float16)
    return values, labels, np.arange(images) // (2 * classes) * classes + labels


def select(values, labels, groups, images=None, **options):
    """Select a head with ``HeadOptions(**options)``."""
    return select_head(TrainingSet.of(values, labels, groups, images), HeadOptions(**options))


def rank(values, labels, groups, images=None, **options):
    """Rank candidates with ``HeadOptions(**options)``."""
    return rank_candidates(TrainingSet.of(values, labels, groups, images), HeadOptions(**options))


def ridge_by_hand(x, labels, classes, penalty):
    """Augmented least squares: rows sqrt(penalty) * e_j with target 0, and an unpenalised column of ones."""
    n, d = x.shape
    penalty_rows = np.diag(np.sqrt(np.broadcast_to(penalty, d).astype(float)))
    rows = np.vstack([np.c_[x, np.ones(n)], np.c_[penalty_rows, np.zeros(d)]])
    targets = np.vstack([np.eye(classes)[labels], np.zeros((d, classes))])
    solution = np.linalg.lstsq(rows, targets, rcond=None)[0]
    return solution[:-1], solution[-1]


def lda_scores_by_hand(x, labels, classes, shrinkage):
    """Log of prior times normal density at x, up to a constant, with the pooled covariance written out."""
    counts = np.bincount(labels, minlength=classes)
    means = np.array([x[labels == c].mean(axis=0) for c in range(classes)])
    offsets = x - means[labels]
    covariance = (offsets.T @ offsets + shrinkage * np.eye(x.shape[1])) / len(x)
    precision = np.linalg.inv(covariance)
    log_densities = [-0.5 * np.einsum("nd,de,ne->n", x - mean, precision, x - mean) for mean in means]
    return np.log(counts / len(x)) + np.stack(log_densities, axis=1)


def ood_scores_by_hand(x, new, penalty):
    """OOD scores of ``new``: ridge on the differences from the mean of x, written out."""
    mean = x.mean(axis=0)
    scatter = (x - mean).T @ (x - mean)
    offsets = new - mean
    unexplained = penalty * np.linalg.solve(scatter + penalty * np.eye(x.shape[1]), offsets.T).T
    return (offsets * unexplained).sum(axis=1) / (offsets**2).sum(axis=1)


def scores_of_refits(x, labels, groups, solve):
    """Scores [n, k] of every image by the head that ``solve(x, labels)`` fits to all images but those of its group.

    A class that has images only in that group gets the lowest score of the row.
    """
    scores = np.empty((len(x), labels.max() + 1))
    for group in np.unique(groups):
        is_left_out = groups == group
        weights, bias = solve(x[~is_left_out], labels[~is_left_out])
        scores[is_left_out] = x[is_left_out] @ weights + bias
    is_missing = np.isneginf(scores)
    return np.where(is_missing, np.where(is_missing, np.inf, scores).min(axis=1, keepdims=True), scores)


def centred(scores):
    """Scores less their mean over the classes: those of LDA and centroids are defined up to that."""
    return scores - scores.mean(axis=1, keepdims=True)


def assert_solution_in_basis_is_that_of_statistics(count, width, solve_in_basis, solve_statistics):
    """Compare the solutions from an eigenbasis and from statistics, on vectors that do not vary in one direction."""
    rng = np.random.default_rng(4)
    x, labels = rng.standard_normal((count, width)) + 3, np.arange(count) % 3
    x[:, 0] = x[:, 1]
    weights, bias = solve_in_basis(LinearProblem.of(Eigenbasis.of(x), Targets(labels, 3, labels)))
    expected_weights, expected_bias = solve_statistics(Statistics.of(x - x.mean(axis=0), labels, 3))
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-8, atol=1e-8)
    new = rng.standard_normal((10, width)) + 3
    expected_scores = (new - x.mean(axis=0)) @ expected_weights + expected_bias
    np.testing.assert_allclose(new @ weights + bias, expected_scores, rtol=1e-8)
