"""The nearest class mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import Array, HeadKind, LinearProblem, Settings, Solution
from headstart.heads.leave_one_group_out import (
    MeansWithoutGroup,
    fill_large_groups,
    group_batches,
    with_lowest_score,
)
from headstart.heads.statistics import Statistics


def solve_centroid(statistics: Statistics) -> Solution:
    """Solve for the nearest class mean: scores are minus half the squared distance, up to a part that all share."""
    means = statistics.sums / np.maximum(statistics.counts, 1)[:, None]
    bias = np.where(statistics.counts > 0, -0.5 * (means**2).sum(axis=1), -np.inf)
    return means.T, bias


def held_out_centroid(problem: LinearProblem) -> Array:
    """Compute the scores [m, k] that the nearest class mean gives every row when its group is left out."""
    labels, counts, means = problem.labels, problem.counts, problem.means
    mean_products = means @ means.T
    scores = np.empty((1, len(labels), problem.targets.classes))
    for rows in group_batches(problem):
        group_labels, points = labels[rows], problem.points[rows]
        offsets, point_means = points - means[group_labels], points @ means.T
        without = MeansWithoutGroup.of(
            group_labels,
            counts,
            offsets @ offsets.transpose(0, 2, 1),
            point_means - mean_products[group_labels],
            point_means,
            np.diag(mean_products),
        )
        nearest = without.point_means - 0.5 * without.mean_norms[..., None, :]
        scores[0, rows] = with_lowest_score(nearest, without.is_absent)
    held_out: Array = fill_large_groups(scores, problem, [solve_centroid])[0]
    return held_out


def centroid_in_basis(problem: LinearProblem) -> Solution:
    """Solve for the nearest class mean of all images."""
    return problem.basis.affine(problem.means.T, -0.5 * (problem.means**2).sum(axis=1))


def _held_out(problem: LinearProblem, settings: Sequence[Settings]) -> Array:
    return np.stack([held_out_centroid(problem) for _ in settings])


def _solve(problem: LinearProblem, _: Settings) -> Solution:
    return centroid_in_basis(problem)


def _solve_statistics(statistics: Statistics, _: Settings, __: Eigenbasis) -> Solution:
    return solve_centroid(statistics)


CENTROID = HeadKind("centroid", ({},), _held_out, _solve, _solve_statistics)
