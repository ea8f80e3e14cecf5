"""What the closed forms of leave-one-group-out prediction share.

The scores of an image come from a head that was fitted without the image's whole *group*: frames of one scene, crops
of one image, near duplicates. Leaving out single images of a scene would test whether a head remembers the scene, not
whether it generalises. The scores are exact, and nothing is refitted except for large groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.kinds import Array, Labels, LinearProblem, Solution
from headstart.heads.statistics import Statistics, add_to_diagonal

CHUNK_SIZE = 1_000_000  # numbers in the largest temporary array of a batch of groups
LARGE_GROUP = 256  # images: a group with more, and with more than a vector is wide, is refitted, which saves memory


def chunks_of_groups(groups: Labels, size: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of whole groups, ascending, at least ``size`` of them at a time where so many are left."""
    order = np.argsort(groups, kind="stable")
    last_of_group = np.flatnonzero(np.r_[np.diff(groups[order]) != 0, True]) + 1
    start = 0
    while start < len(order):
        end = int(last_of_group[np.searchsorted(last_of_group, min(start + size, len(order)))])
        yield np.sort(order[start:end])
        start = end


def group_batches(problem: LinearProblem, *, all_sizes: bool = False) -> Iterator[NDArray[np.int64]]:
    """Yield all but large groups as arrays [groups, size]: groups of one size, a chunk at a time.

    A number is the position of an image in ``problem.rows``. With ``all_sizes`` large groups are among them.
    """
    width = max(len(problem.basis.eigenvalues), problem.targets.classes)
    for rows in rows_by_group_size(problem.groups):
        size = rows.shape[1]
        if all_sizes or not _is_large(size, problem):
            step = max(1, CHUNK_SIZE // (size * max(size, width)))
            yield from (rows[first : first + step] for first in range(0, len(rows), step))


def large_groups(problem: LinearProblem) -> Iterator[tuple[list[NDArray[np.int64]], Statistics]]:
    """Yield each large group, in blocks [size], with the statistics of the coordinates of all other images.

    A head is refitted from those: its matrices are as wide as a vector, those of the closed form as the group. A number
    is the position of an image in ``problem.rows``.
    """
    eigenvalues, labels, classes = problem.basis.eigenvalues, problem.labels, problem.targets.classes
    sums = problem.counts[:, None] * problem.means
    large = (rows for rows in rows_by_group_size(problem.groups) if _is_large(rows.shape[1], problem))
    for rows in (group for same_size in large for group in same_size):
        blocks = np.array_split(rows, len(rows) * len(eigenvalues) // CHUNK_SIZE + 1)
        left_out = Statistics.merged(Statistics.of(problem.points[block], labels[block], classes) for block in blocks)
        gram = add_to_diagonal(-left_out.gram, eigenvalues)  # the Gram matrix of all coordinates is diagonal
        yield blocks, Statistics(problem.counts - left_out.counts, sums - left_out.sums, gram)


def fill_large_groups(
    scores: Array, problem: LinearProblem, solvers: Sequence[Callable[[Statistics], Solution]]
) -> Array:
    """Fill in ``scores`` [p, m, k] of the images in large groups, by refitting each of p heads; return ``scores``."""
    for blocks, others in large_groups(problem):
        solutions = [solver(others) for solver in solvers]
        for rows in blocks:
            points = problem.points[rows]
            for i, (weights, bias) in enumerate(solutions):
                scores[i, rows] = with_lowest_score(points @ weights + bias, np.isneginf(bias))
    return scores


@dataclass(frozen=True)
class MeansWithoutGroup:
    """Class means after one group was left out, for g groups of m images each; every axis before g is one of heads.

    ``remaining_counts`` [g, k] are the images of each class that stay. The others are inner products after the removal:
    ``point_offsets`` [..., g, m, m] of the group's images with its images' offsets from their class means,
    ``point_means`` [..., g, m, k] of its images with the class means, ``offset_means`` [..., g, m, k] of the offsets
    with the class means, ``mean_norms`` [..., g, k] of each class mean with itself.
    """

    remaining_counts: Array
    point_offsets: Array
    point_means: Array
    offset_means: Array
    mean_norms: Array

    @classmethod
    def of(
        cls,
        labels: Labels,
        counts: NDArray[np.int64],
        offsets: Array,
        offset_means: Array,
        point_means: Array,
        mean_norms: Array,
    ) -> MeansWithoutGroup:
        """Compute them from ``labels`` [g, m], ``counts`` [k] and the same products before the removal.

        ``offsets`` [..., g, m, m] are the products of the offsets with one another, ``mean_norms`` is [k] or [p, 1, k].
        """
        member = (labels[:, :, None] == np.arange(len(counts))).astype(np.float64)
        remaining_counts = counts - member.sum(axis=1)
        share = member / np.maximum(remaining_counts, 1)[:, None, :]  # the mean of a class moves by -share.T @ offsets
        own_class = np.broadcast_to(labels[:, :, None], (*offsets.shape[:-1], 1))
        point_offsets = np.take_along_axis(np.swapaxes(offset_means, -1, -2), own_class, axis=-2)  # mean . offset
        point_offsets += offsets  # image . offset
        offset_share = offsets @ share
        return cls(
            remaining_counts,
            point_offsets,
            point_means - point_offsets @ share,
            offset_means - offset_share,
            mean_norms - 2 * (share * offset_means).sum(axis=-2) + (share * offset_share).sum(axis=-2),
        )

    @property
    def is_absent(self) -> NDArray[np.bool_]:
        """Which classes [g, 1, k] vanish with the group."""
        is_absent: NDArray[np.bool_] = (self.remaining_counts == 0)[:, None, :]
        return is_absent


def with_lowest_score(scores: Array, is_absent: NDArray[np.bool_]) -> Array:
    """Give classes that have no images left the lowest score of their row; scores [..., k]."""
    if not is_absent.any():
        return scores
    lowest = np.where(is_absent, np.inf, scores).min(axis=-1, keepdims=True)
    return np.where(is_absent, np.where(np.isfinite(lowest), lowest, 0.0), scores)


def chunks(count: int, rows: NDArray[np.int64], classes: int) -> Iterator[slice]:
    """Yield slices of ``count`` penalties, as many at a time as keep arrays small: one product for all is fastest."""
    step = max(1, CHUNK_SIZE // (rows.size * max(rows.shape[1], classes)))
    return (slice(first, first + step) for first in range(0, count, step))


def gram_by_group(points: Array, weights: Array) -> Array:
    """Compute weighted Gram matrices [p, g, m, m] of groups of points [g, m, r], for each of the weights [p, r]."""
    if points.shape[1] == 1:
        return np.asarray(weights @ (points[:, 0] ** 2).T)[:, :, None, None]
    transposed = points.transpose(0, 2, 1)
    gram = np.empty((len(weights), len(points), points.shape[1], points.shape[1]))
    for i, weight in enumerate(weights):
        np.matmul(points * weight, transposed, out=gram[i])
    return gram


def batched_matmul(points: Array, matrices: Array) -> Array:
    """Multiply points [g, m, r] by each of the matrices [p, r, k]: [p, g, m, k], as one product of two matrices."""
    (g, m, r), (p, _, k) = points.shape, matrices.shape
    flat = points.reshape(g * m, r) @ matrices.transpose(1, 0, 2).reshape(r, p * k)
    return flat.reshape(g, m, p, k).transpose(2, 0, 1, 3)


def identity_minus(matrices: Array) -> Array:
    """Return the identity minus each of ``matrices`` [..., m, m], computed in their place, which saves memory."""
    return add_to_diagonal(np.negative(matrices, out=matrices), 1)


def rows_by_group_size(groups: Labels) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of all groups of one size [groups, size], for each size."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0])
    sizes = np.diff(np.r_[starts, len(order)])
    return (order[starts[sizes == size][:, None] + np.arange(size)] for size in np.unique(sizes))


def _is_large(size: int, problem: LinearProblem) -> bool:
    return max(LARGE_GROUP, len(problem.basis.eigenvalues)) < size < len(problem.basis)
