"""What a head would have said of pictures left out of its training, exactly and without refitting.

A *group* is left out whole: frames of one scene, crops of one picture, near duplicates. Leaving out single
pictures of a scene tests the memory of a head, not its judgement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.statistics import class_sums

Array = NDArray[np.float64]
CHUNK = 1_000_000  # numbers in the largest temporary array of a batch of groups


@dataclass(frozen=True)
class Basis:
    """Centred vectors in the directions in which they vary.

    ``coordinates`` [n, r] have orthogonal columns of squared length ``spread`` [r], all positive; ``mean`` [d]
    was taken off before. Ridge, LDA and centroids do not change under this rotation.
    """

    coordinates: Array
    mean: Array
    spread: Array

    @classmethod
    def of(cls, x: NDArray[np.floating]) -> Basis:
        """The basis of vectors x [n, d], from the smaller of the n x n and the d x d Gram matrix."""
        from scipy.linalg import eigh

        x = np.asarray(x, np.float64)
        mean = x.mean(axis=0)
        centred = x - mean
        wide = x.shape[0] <= x.shape[1]
        gram = centred @ centred.T if wide else centred.T @ centred
        spread, vectors = eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
        # 1e-10: below it a direction is rounding of the fp16 features, and 1/spread would amplify it.
        keep = spread > max(float(spread[-1]), 1e-300) * 1e-10
        spread, vectors = spread[keep], vectors[:, keep]
        if wide:
            vectors = vectors - vectors.mean(axis=0)  # the constant direction is the intercept's: none may be left
            return cls(vectors * np.sqrt(spread), mean, spread)
        return cls(centred @ vectors, mean, spread)

    def weights(self, x: NDArray[np.floating], inner: Array) -> Array:
        """Weights [d, k] on vectors x [n, d], the ones this basis was made of, for weights [r, k] on coordinates."""
        turned: Array = (np.asarray(x, np.float64) - self.mean).T @ (self.coordinates @ (inner / self.spread[:, None]))
        return turned


def group_batches(groups: NDArray[np.integer], width: int) -> Iterator[NDArray[np.int64]]:
    """The pictures of each group as rows of arrays [groups, size]: groups of one size together, in chunks."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0])
    sizes = np.diff(np.r_[starts, len(order)])
    for size in np.unique(sizes):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]
        step = max(1, CHUNK // int(size * max(size, width)))
        for first in range(0, len(rows), step):
            yield rows[first : first + step]


def ridge(basis: Basis, targets: Array, groups: NDArray[np.integer], penalties: Sequence[float]) -> Array:
    """Scores [p, n, k] that ridge with each of p penalties gives every picture when its group is left out.

    ``targets`` [n, k]; ``penalties`` > 0 in units of summed squared coordinates. The residual of a group left
    out is ``(I - H_GG)^-1 r_G`` with the smoother H of all pictures; its constant direction is taken out of
    the kernel and added back as 1/n, else every score looks perfect as the penalty goes to zero.
    """
    count, points = len(targets), basis.coordinates
    weights = [1 / (basis.spread + penalty) for penalty in penalties]
    mean, projected = targets.mean(axis=0), points.T @ targets
    residuals = [targets - mean - points @ (weight[:, None] * projected) for weight in weights]
    scores = np.empty((len(penalties), *targets.shape))
    for rows in group_batches(groups, max(points.shape[1], targets.shape[1])):
        for place, hat in enumerate(_pairs(points[rows], weights)):
            inner = np.eye(rows.shape[1]) - hat - 1 / count
            scores[place, rows] = targets[rows] - np.linalg.solve(inner, residuals[place][rows])
    return scores


def lda(
    basis: Basis,
    labels: NDArray[np.integer],
    classes: int,
    groups: NDArray[np.integer],
    shrinkages: Sequence[float],
) -> Array:
    """Scores [p, n, classes] that LDA with each of p shrinkages gives every picture when its group is left out.

    Leaving out a group changes the class means and takes a matrix of the group's rank from the within
    scatter, so the inverse follows by the Woodbury identity; the within scatter itself is the total one
    (diagonal here) less one of rank k. A class that vanishes with the group gets the row's lowest score.
    """
    points = basis.coordinates
    counts, means = _class_means(points, labels, classes)
    weights = [1 / (basis.spread + shrinkage) for shrinkage in shrinkages]
    under = [_MeanProducts.of(points, means, counts, labels, weight) for weight in weights]
    scores = np.empty((len(shrinkages), len(points), classes))
    for rows in group_batches(groups, max(points.shape[1], classes)):
        own = labels[rows]
        for place, pairs in enumerate(_pairs(points[rows] - means[own], weights)):
            product = under[place]
            half = product.away_means[rows]
            scores[place, rows] = _scores_without(
                own, counts, pairs + half @ product.core @ half.transpose(0, 2, 1),
                product.points_means[rows] - product.means_means[own],
                product.points_means[rows], np.diag(product.means_means), woodbury=True,
            )  # fmt: skip
    return scores


@dataclass(frozen=True)
class _MeanProducts:
    """Inner products with the class means under the within scatter's inverse (Woodbury on the total one)."""

    core: Array  # [k, k]
    away_means: Array  # [n, k] of a picture's offset from its class mean, under the total scatter's inverse
    points_means: Array  # [n, k]
    means_means: Array  # [k, k]

    @classmethod
    def of(
        cls,
        points: Array,
        means: Array,
        counts: NDArray[np.int64],
        labels: NDArray[np.integer],
        weight: Array,
    ) -> _MeanProducts:
        scaled = (means * weight).T
        points_means, means_means = points @ scaled, means @ scaled
        core: Array = np.asarray(np.linalg.inv(np.diag(1 / np.maximum(counts, 1)) - means_means), np.float64)
        return cls(
            core,
            points_means - means_means[labels],
            points_means + points_means @ core @ means_means,
            means_means + means_means @ core @ means_means,
        )


def _pairs(points: Array, weights: Sequence[Array]) -> Iterator[Array]:
    """For each weight [r]: weighted inner products [g, m, m] within each of g groups of points [g, m, r]."""
    if points.shape[1] == 1:
        squares = points[:, 0] ** 2
        yield from ((squares @ weight)[:, None, None] for weight in weights)
    else:
        turned = points.transpose(0, 2, 1)
        yield from ((points * weight) @ turned for weight in weights)


def centroid(basis: Basis, labels: NDArray[np.integer], classes: int, groups: NDArray[np.integer]) -> Array:
    """Scores [n, classes] that the nearest centroid gives every picture when its group is left out."""
    points = basis.coordinates
    counts, means = _class_means(points, labels, classes)
    points_means, means_means = points @ means.T, means @ means.T
    scores = np.empty((len(points), classes))
    for rows in group_batches(groups, max(points.shape[1], classes)):
        own = labels[rows]
        away = points[rows] - means[own]
        pairs = away @ away.transpose(0, 2, 1)
        away_means = points_means[rows] - means_means[own]
        scores[rows] = _scores_without(
            own, counts, pairs, away_means, points_means[rows], np.diag(means_means), woodbury=False
        )
    return scores


def _class_means(points: Array, labels: NDArray[np.integer], classes: int) -> tuple[NDArray[np.int64], Array]:
    counts = np.bincount(labels, minlength=classes)
    return counts, class_sums(points, labels, classes) / np.maximum(counts, 1)[:, None]


def _scores_without(
    own: NDArray[np.integer],
    counts: NDArray[np.int64],
    pairs: Array,
    away_means: Array,
    points_means: Array,
    means_means: Array,
    *,
    woodbury: bool,
) -> Array:
    """Scores [g, m, k] of g groups of m pictures each when each group is left out.

    All products are under the full data's precision P: ``pairs`` [g, m, m] of the pictures' offsets z from
    their class means, ``away_means`` [g, m, k] of z with the means, ``points_means`` [g, m, k] of the
    pictures themselves, ``means_means`` [k]. With ``woodbury`` P itself changes and class shares count.
    """
    member = (own[:, :, None] == np.arange(len(counts))).astype(np.float64)
    left = counts - member.sum(axis=1)  # [g, k] pictures of each class that stay
    share = member / np.maximum(left, 1)[:, None, :]  # the mean of a class moves by -share.T @ z
    points_pairs = pairs + np.take_along_axis(away_means.transpose(0, 2, 1), own[:, :, None], axis=1)  # point . z
    points_new = points_means - points_pairs @ share
    away_new = away_means - pairs @ share
    new_new = means_means - 2 * (share * away_means).sum(axis=1) + np.einsum("gik,gij,gjk->gk", share, pairs, share)
    if woodbury:
        stays = np.take_along_axis(left, own, axis=1) > 0
        together = (own[:, :, None] == own[:, None, :]) / counts[own][:, None, :]
        inner = np.eye(own.shape[1]) - together * stays[:, :, None] - pairs
        solved = np.linalg.solve(inner, away_new)
        points_new = points_new + points_pairs @ solved
        new_new = new_new + (away_new * solved).sum(axis=1)
    scores = points_new - 0.5 * new_new[:, None, :]
    if woodbury:
        total = left.sum(axis=1, keepdims=True)
        scores = total[:, :, None] * scores + np.log(np.maximum(left, 1) / total)[:, None, :]
    gone = np.broadcast_to((left == 0)[:, None, :], scores.shape)
    lowest = np.where(gone, np.inf, scores).min(axis=2, keepdims=True)
    return np.where(gone, np.where(np.isfinite(lowest), lowest, 0.0), scores)
