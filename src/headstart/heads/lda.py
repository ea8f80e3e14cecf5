"""Linear discriminant analysis with a shrunk covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import Array, HeadKind, LinearProblem, Settings, Solution
from headstart.heads.leave_one_group_out import (
    MeansWithoutGroup,
    batched_matmul,
    chunks,
    fill_large_groups,
    gram_by_group,
    group_batches,
    identity_minus,
    with_lowest_score,
)
from headstart.heads.ridge import PENALTIES
from headstart.heads.statistics import Statistics, add_to_diagonal


def solve_lda(statistics: Statistics, shrinkage: float) -> Solution:
    """Solve linear discriminant analysis with covariance ``(within-class scatter + shrinkage * I) / n``.

    ``shrinkage`` > 0 is in units of summed squared features. Class priors are the classes' shares (Hastie, Tibshirani &
    Friedman, The Elements of Statistical Learning, section 4.3.1).
    """
    present = statistics.counts > 0
    counts = statistics.counts[present]
    means = statistics.sums[present] / counts[:, None]
    within = (means.T * -counts) @ means
    within += statistics.gram
    precision_means = statistics.count * np.asarray(
        np.linalg.solve(add_to_diagonal(within, shrinkage), means.T), np.float64
    )
    weights = np.zeros((len(within), len(present)))
    bias = np.full(len(present), -np.inf)
    weights[:, present] = precision_means
    bias[present] = -0.5 * np.einsum("cd,dc->c", means, precision_means) + np.log(counts / statistics.count)
    return weights, bias


@dataclass(frozen=True)
class PrecisionMeans:
    """Class means under the inverse of the shrunk total scatter, which is diagonal in the eigenbasis, and of the shrunk
    within-class scatter, by the Woodbury identity.

    For one shrinkage, or for p of them along a first axis of all arrays. ``total_inverse`` [r] is the diagonal of the
    total scatter's inverse, ``total_means`` [r, k] the means times it, ``total_products`` [k, k] the products of the
    means under it. The within-class scatter is the total one minus one of rank k: ``core`` [k, k] and ``correction``
    [k, k] turn products under the total scatter into products under the within-class one, ``within_products`` [k, k].
    """

    total_inverse: Array
    total_means: Array
    total_products: Array
    core: Array
    correction: Array
    within_products: Array

    @classmethod
    def of(cls, means: Array, counts: NDArray[np.int64], total_inverse: Array) -> PrecisionMeans:
        """Compute from class means [k, r], class sizes [k] and ``total_inverse`` [r] or [p, r]."""
        total_means = np.swapaxes(means * total_inverse[..., None, :], -1, -2)
        total_products = means @ total_means
        core: Array = np.asarray(np.linalg.inv(np.diag(1 / np.maximum(counts, 1)) - total_products), np.float64)
        correction = core @ total_products
        within_products = total_products + total_products @ correction
        return cls(total_inverse, total_means, total_products, core, correction, within_products)

    def at(self, chunk: slice) -> PrecisionMeans:
        """Return those of some of several shrinkages."""
        return PrecisionMeans(
            self.total_inverse[chunk],
            self.total_means[chunk],
            self.total_products[chunk],
            self.core[chunk],
            self.correction[chunk],
            self.within_products[chunk],
        )


def held_out_lda(problem: LinearProblem, shrinkages: Sequence[float]) -> Array:
    """Compute the scores [p, m, k] that LDA with each of p shrinkages gives every row when its group is left out.

    Removing a group shifts the class means and subtracts a matrix of at most the group's rank from the within-class
    scatter, so its inverse follows from the Woodbury identity. In the eigenbasis the total scatter is diagonal, and the
    within-class scatter is the total minus a matrix of rank k. A class with no images left gets the row's lowest score.
    """
    total_inverses = 1 / (problem.basis.eigenvalues + np.asarray(shrinkages)[:, None])
    scores = closed_form_lda(problem, total_inverses)
    solvers = [partial(solve_lda, shrinkage=shrinkage) for shrinkage in shrinkages]
    return fill_large_groups(scores, problem, solvers)


def closed_form_lda(problem: LinearProblem, total_inverses: Array, *, all_sizes: bool = False) -> Array:
    """Compute the scores of ``held_out_lda`` [p, m, k] from the inverses of p shrunk total scatter matrices.

    Those are diagonal in the coordinates: ``total_inverses`` [p, r]. Scores of large groups are left open,
    unless ``all_sizes`` are wanted.
    """
    labels, classes, counts, means = problem.labels, problem.targets.classes, problem.counts, problem.means
    all_precisions = PrecisionMeans.of(means, counts, total_inverses)
    scores = np.empty((len(total_inverses), len(labels), classes))
    for rows in group_batches(problem, all_sizes=all_sizes):
        group_labels, points = labels[rows], problem.points[rows]
        offsets = points - means[group_labels]
        for chunk in chunks(len(total_inverses), rows, classes):
            precision = all_precisions.at(chunk)
            total_point_means = batched_matmul(points, precision.total_means)
            total_offset_means = total_point_means - precision.total_products[:, group_labels]
            point_means = total_point_means + total_point_means @ precision.correction[:, None]
            offset_products = gram_by_group(offsets, precision.total_inverse)
            offset_products += total_offset_means @ precision.core[:, None] @ total_offset_means.swapaxes(-1, -2)
            without = MeansWithoutGroup.of(
                group_labels,
                counts,
                offset_products,
                point_means - precision.within_products[:, group_labels],
                point_means,
                np.diagonal(precision.within_products, axis1=1, axis2=2)[:, None],
            )
            scores[chunk, rows] = _scores(without, group_labels, counts, offset_products)
    return scores


def _scores(
    without: MeansWithoutGroup, labels: NDArray[np.integer], counts: NDArray[np.int64], offset_products: Array
) -> Array:
    """Compute scores [p, g, m, k]: the precision matrix changes with the group, and class shares count.

    ``offset_products`` [p, g, m, m] is used up.
    """
    has_class_left = np.take_along_axis(without.remaining_counts, labels, axis=1) > 0
    same_class = labels[:, :, None] == labels[:, None, :]
    offset_products += same_class * (has_class_left / counts[labels])[:, :, None]
    solved = np.linalg.solve(identity_minus(offset_products), without.offset_means)
    point_means = without.point_means + without.point_offsets @ solved
    mean_norms = without.mean_norms + (without.offset_means * solved).sum(axis=-2)
    total = without.remaining_counts.sum(axis=1, keepdims=True)
    scores = total[:, :, None] * (point_means - 0.5 * mean_norms[..., None, :])
    scores = scores + np.log(np.maximum(without.remaining_counts, 1) / total)[:, None, :]
    return with_lowest_score(scores, without.is_absent)


def lda_in_basis(problem: LinearProblem, shrinkage: float) -> Solution:
    """Solve LDA for all images by the Woodbury identity; every class has images, and ``shrinkage`` > 0."""
    basis, counts, means, count = problem.basis, problem.counts, problem.means, len(problem.basis)
    precision = PrecisionMeans.of(means, counts, 1 / (basis.eigenvalues + shrinkage))
    bias = np.log(counts / count) - 0.5 * count * np.diag(precision.within_products)
    weights = count * (precision.total_means + precision.total_means @ precision.correction)
    return basis.affine(weights, bias)


def _shrinkage(settings: Settings, basis: Eigenbasis) -> float:
    return float(settings["shrinkage"]) * basis.mean_squared_length


def _held_out(problem: LinearProblem, settings: Sequence[Settings]) -> Array:
    return held_out_lda(problem, [_shrinkage(setting, problem.basis) for setting in settings])


def _solve(problem: LinearProblem, settings: Settings) -> Solution:
    return lda_in_basis(problem, _shrinkage(settings, problem.basis))


def _solve_statistics(statistics: Statistics, settings: Settings, basis: Eigenbasis) -> Solution:
    return solve_lda(statistics, _shrinkage(settings, basis))


LDA = HeadKind("lda", tuple({"shrinkage": value} for value in PENALTIES), _held_out, _solve, _solve_statistics)
