"""What a head would have said of pictures left out of its training, exactly; only for large groups is it refitted.

A *group* is left out whole: frames of one scene, crops of one picture, near duplicates. Leaving out single
pictures of a scene tests the memory of a head, not its judgement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from headstart.heads import solve
from headstart.heads.statistics import Statistics
from headstart.heads.vectors import Vectors, one_hot

Array = NDArray[np.float64]
CHUNK = 1_000_000  # numbers in the largest temporary array of a batch of groups
LARGE = 256  # pictures: a group with more, and with more than a vector is wide, is refitted, since it spares memory


@dataclass(frozen=True)
class Basis:
    """Centred vectors in the directions in which they vary.

    Their coordinates [n, r] have orthogonal columns of squared length ``spread`` [r], all positive; ``mean`` [d]
    was taken off before. Ridge, LDA and centroids do not change under this rotation. Where there are fewer
    vectors than numbers in one, ``kept`` holds the coordinates; else they are ``turn`` [d, r] times the vectors.
    """

    vectors: Vectors
    mean: Array
    spread: Array
    turn: Array | None
    kept: Array | None

    @classmethod
    def of(cls, x: Vectors | NDArray[np.floating]) -> Basis:
        """The basis of vectors [n, d], from the smaller of the n x n and the d x d Gram matrix."""
        vectors = x if isinstance(x, Vectors) else Vectors.of(x)
        mean, _ = vectors.moments()
        wide = len(vectors) <= vectors.width
        if wide:
            centred = vectors.rows(slice(None)) - mean
            gram = centred @ centred.T
        else:
            gram = np.zeros((vectors.width, vectors.width))
            for block in vectors.blocks():
                centred = vectors.rows(block) - mean
                gram += centred.T @ centred
        spread, turn = np.linalg.eigh(gram)  # SciPy's is as fast but holds the interpreter's lock
        # 1e-10: below it a direction is rounding of the fp16 features, and 1/spread would amplify it.
        keep = spread > max(float(spread[-1]), 1e-300) * 1e-10
        spread, turn = spread[keep], turn[:, keep]
        if wide:
            turn = turn - turn.mean(axis=0)  # the constant direction is the intercept's: none may be left
            return cls(vectors, mean, spread, None, turn * np.sqrt(spread))
        return cls(vectors, mean, spread, turn, None)

    def __len__(self) -> int:
        return len(self.vectors)

    def at(self, rows: slice | NDArray[np.integer]) -> Array:
        """Coordinates [..., r] of the vectors at ``rows``."""
        if self.kept is not None:
            return self.kept[rows]
        assert self.turn is not None
        away = self.vectors.rows(rows) - self.mean
        # One product of two matrices: of three axes numpy would make one product a group, forty times as slow.
        coordinates: Array = away.reshape(-1, away.shape[-1]) @ self.turn
        return coordinates.reshape(*away.shape[:-1], -1)

    def widest(self, count: int) -> Basis:
        """Only the ``count`` directions that vary most."""
        turn = None if self.turn is None else self.turn[:, -count:]
        kept = None if self.kept is None else self.kept[:, -count:]
        return replace(self, spread=self.spread[-count:], turn=turn, kept=kept)

    def products(self, targets: Array) -> Array:
        """``coordinates.T @ targets`` [r, k] for targets [n, k]."""
        if self.kept is not None:
            return self.kept.T @ targets
        assert self.turn is not None
        centred = self.vectors.products(targets) - np.outer(self.mean, targets.sum(axis=0))
        result: Array = self.turn.T @ centred
        return result

    def weights(self, inner: Array) -> Array:
        """Weights [d, k] on the vectors for weights [r, k] on the coordinates."""
        if self.turn is not None:
            return self.turn @ inner
        assert self.kept is not None
        along = self.kept @ (inner / self.spread[:, None])
        weights: Array = self.vectors.products(along) - np.outer(self.mean, along.sum(axis=0))
        return weights


def group_batches(groups: NDArray[np.integer], basis: Basis, classes: int = 1) -> Iterator[NDArray[np.int64]]:
    """The pictures of all groups but large ones as rows of arrays [groups, size]: groups of one size in chunks."""
    width = max(len(basis.spread), classes)
    for rows in _by_size(groups):
        size = rows.shape[1]
        if not _large(size, basis):
            step = max(1, CHUNK // (size * max(size, width)))
            yield from (rows[first : first + step] for first in range(0, len(rows), step))


def refits(
    groups: NDArray[np.integer], basis: Basis, labels: NDArray[np.integer], classes: int
) -> Iterator[tuple[list[NDArray[np.int64]], Statistics]]:
    """Each large group's pictures, in blocks [size], with the statistics [r] of the coordinates of all the others.

    A head is refitted from those: its matrices are as wide as a vector, those of the closed form as the group.
    """
    counts, sums = np.bincount(labels, minlength=classes), None
    for rows in (group for same in _by_size(groups) if _large(same.shape[1], basis) for group in same):
        if sums is None:
            sums = basis.products(one_hot(labels, classes)).T
        blocks = np.array_split(rows, len(rows) * len(basis.spread) // CHUNK + 1)
        out = Statistics.merged(Statistics.of(basis.at(some), labels[some], classes) for some in blocks)
        # All pictures' Gram matrix is diagonal: what is left of it takes the place of what is taken away.
        left = solve.raised(np.negative(out.gram, out=out.gram), basis.spread)
        yield blocks, Statistics(counts - out.counts, sums - out.sums, left)


def _by_size(groups: NDArray[np.integer]) -> Iterator[NDArray[np.int64]]:
    """The pictures of groups of one size [groups, size], for each size."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0])
    sizes = np.diff(np.r_[starts, len(order)])
    return (order[starts[sizes == size][:, None] + np.arange(size)] for size in np.unique(sizes))


def _large(size: int, basis: Basis) -> bool:
    return max(LARGE, len(basis.spread)) < size < len(basis)


def _refit(
    scores: Array,
    basis: Basis,
    labels: NDArray[np.integer],
    groups: NDArray[np.integer],
    solvers: Sequence[Callable[[Statistics], solve.Solution]],
) -> Array:
    """``scores`` [p, n, k] with those of large groups filled in, by each of p heads."""
    for blocks, others in refits(groups, basis, labels, scores.shape[2]):
        heads = [solver(others) for solver in solvers]
        for rows in blocks:
            points = basis.at(rows)
            for place, (weights, bias) in enumerate(heads):
                scores[place, rows] = _with_lowest(points @ weights + bias, np.isneginf(bias))
    return scores


def ridge(
    basis: Basis,
    labels: NDArray[np.integer],
    classes: int,
    groups: NDArray[np.integer],
    penalties: Sequence[float],
) -> Array:
    """Scores [p, n, classes] that ridge with each of p penalties gives every picture when its group is left out.

    ``penalties`` > 0 are in units of summed squared coordinates. The residual of a group left
    out is ``(I - H_GG)^-1 r_G`` with the smoother H of all pictures; its constant direction is taken out of
    the kernel and added back as 1/n, else every score looks perfect as the penalty goes to zero.
    """
    targets = one_hot(labels, classes)
    count, mean = len(targets), targets.mean(axis=0)
    weights = 1 / (basis.spread + np.asarray(penalties)[:, None])
    projected = weights[:, :, None] * basis.products(targets - mean)
    scores = np.empty((len(penalties), *targets.shape))
    for rows in group_batches(groups, basis, classes):
        points, wanted = basis.at(rows), targets[rows]
        for some in _some(len(penalties), rows, classes):
            residual = wanted - mean - _times(points, projected[some])
            smoothed = _pairs(points, weights[some])
            smoothed += 1 / count
            scores[some, rows] = wanted - np.linalg.solve(_one_less(smoothed), residual)
    return _refit(scores, basis, labels, groups, [partial(solve.ridge, penalty=penalty) for penalty in penalties])


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
    counts, means = class_means(basis, labels, classes)
    every = Means.of(means, counts, 1 / (basis.spread + np.asarray(shrinkages)[:, None]))
    scores = np.empty((len(shrinkages), len(labels), classes))
    for rows in group_batches(groups, basis, classes):
        own, points = labels[rows], basis.at(rows)
        away = points - means[own]
        for some in _some(len(shrinkages), rows, classes):
            under = every.at(some)
            total = _times(points, under.scaled)  # under the total scatter's inverse
            half = total - under.total[:, own]
            within = total + total @ under.mended[:, None]
            pairs = _pairs(away, under.weight)
            pairs += half @ under.core[:, None] @ half.swapaxes(-1, -2)
            means_means = np.diagonal(under.within, axis1=1, axis2=2)[:, None]
            scores[some, rows] = _scores_without(
                own, counts, pairs, within - under.within[:, own], within, means_means, woodbury=True
            )
    return _refit(scores, basis, labels, groups, [partial(solve.lda, shrinkage=one) for one in shrinkages])


@dataclass(frozen=True)
class Means:
    """Class means under the inverse of the total scatter (diagonal), and of the within scatter by Woodbury.

    For one shrinkage, or for p of them along a first axis of all.
    """

    weight: Array  # [r], the inverse of the shrunk total scatter
    scaled: Array  # [r, k], the means under it
    total: Array  # [k, k], products of the means under it
    core: Array  # [k, k]
    mended: Array  # [k, k]: products under the total's inverse, times this, are what the within's adds
    within: Array  # [k, k], products of the means under the within scatter's inverse

    @classmethod
    def of(cls, means: Array, counts: NDArray[np.int64], weight: Array) -> Means:
        """Of class means [k, r], pictures a class [k], and the inverse of the shrunk total scatter [r] or [p, r]."""
        scaled = np.swapaxes(means * weight[..., None, :], -1, -2)
        total = means @ scaled
        core: Array = np.asarray(np.linalg.inv(np.diag(1 / np.maximum(counts, 1)) - total), np.float64)
        mended = core @ total
        return cls(weight, scaled, total, core, mended, total + total @ mended)

    def at(self, some: slice) -> Means:
        """Of several shrinkages these."""
        parts = (self.weight, self.scaled, self.total, self.core, self.mended, self.within)
        return Means(*(part[some] for part in parts))


def _some(penalties: int, rows: NDArray[np.int64], classes: int) -> Iterator[slice]:
    """As many of the penalties at a time as their arrays stay small for: one product for all is much faster."""
    step = max(1, CHUNK // (rows.size * max(rows.shape[1], classes)))
    return (slice(first, first + step) for first in range(0, penalties, step))


def _pairs(points: Array, weights: Array) -> Array:
    """For each weight [p, r]: weighted inner products [p, g, m, m] within each of g groups of points [g, m, r]."""
    if points.shape[1] == 1:
        return np.asarray(weights @ (points[:, 0] ** 2).T)[:, :, None, None]
    turned = points.transpose(0, 2, 1)
    found = np.empty((len(weights), len(points), points.shape[1], points.shape[1]))
    for place, weight in enumerate(weights):
        np.matmul(points * weight, turned, out=found[place])
    return found


def _one_less(matrices: Array) -> Array:
    """The identity less each of ``matrices`` [..., m, m], in their place, which spares memory."""
    return solve.raised(np.negative(matrices, out=matrices), 1)


def _times(points: Array, right: Array) -> Array:
    """Points [g, m, r] times each of ``right`` [p, r, k]: [p, g, m, k], as one product of two matrices."""
    (g, m, r), (p, _, k) = points.shape, right.shape
    flat = points.reshape(g * m, r) @ right.transpose(1, 0, 2).reshape(r, p * k)
    return flat.reshape(g, m, p, k).transpose(2, 0, 1, 3)


def centroid(basis: Basis, labels: NDArray[np.integer], classes: int, groups: NDArray[np.integer]) -> Array:
    """Scores [n, classes] that the nearest centroid gives every picture when its group is left out."""
    counts, means = class_means(basis, labels, classes)
    means_means = means @ means.T
    scores = np.empty((1, len(labels), classes))
    for rows in group_batches(groups, basis, classes):
        own, points = labels[rows], basis.at(rows)
        away, points_means = points - means[own], points @ means.T
        scores[0, rows] = _scores_without(
            own, counts, away @ away.transpose(0, 2, 1), points_means - means_means[own], points_means,
            np.diag(means_means), woodbury=False,
        )  # fmt: skip
    found: Array = _refit(scores, basis, labels, groups, [solve.centroid])[0]
    return found


def class_means(basis: Basis, labels: NDArray[np.integer], classes: int) -> tuple[NDArray[np.int64], Array]:
    """Pictures of each class [k], and their mean coordinates [k, r]."""
    counts = np.bincount(labels, minlength=classes)
    return counts, basis.products(one_hot(labels, classes)).T / np.maximum(counts, 1)[:, None]


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
    """Scores [..., g, m, k] of g groups of m pictures each when each group is left out.

    All products are under the full data's precision P: ``pairs`` [..., g, m, m] of the pictures' offsets z from
    their class means, ``away_means`` [..., g, m, k] of z with the means, ``points_means`` [..., g, m, k] of the
    pictures themselves, ``means_means`` [k] or [p, 1, k]. With ``woodbury`` P itself changes and class shares count,
    and ``pairs`` is used up.
    """
    member = (own[:, :, None] == np.arange(len(counts))).astype(np.float64)
    left = counts - member.sum(axis=1)  # [g, k] pictures of each class that stay
    share = member / np.maximum(left, 1)[:, None, :]  # the mean of a class moves by -share.T @ z
    crossed = np.swapaxes(away_means, -1, -2)
    turned = np.broadcast_to(own[:, :, None], (*pairs.shape[:-1], 1))
    points_pairs = np.take_along_axis(crossed, turned, axis=-2)  # mean . z
    points_pairs += pairs  # point . z
    points_new = points_means - points_pairs @ share
    pairs_share = pairs @ share
    away_new = away_means - pairs_share
    new_new = means_means - 2 * (share * away_means).sum(axis=-2) + (share * pairs_share).sum(axis=-2)
    if woodbury:
        stays = np.take_along_axis(left, own, axis=1) > 0
        pairs += (own[:, :, None] == own[:, None, :]) * (stays / counts[own])[:, :, None]
        solved = np.linalg.solve(_one_less(pairs), away_new)
        points_new = points_new + points_pairs @ solved
        new_new = new_new + (away_new * solved).sum(axis=-2)
    scores: Array = points_new - 0.5 * new_new[..., None, :]
    if woodbury:
        total = left.sum(axis=1, keepdims=True)
        scores = total[:, :, None] * scores + np.log(np.maximum(left, 1) / total)[:, None, :]
    return _with_lowest(scores, (left == 0)[:, None, :])


def _with_lowest(scores: Array, gone: NDArray[np.bool_]) -> Array:
    """Scores [..., k] with the row's lowest for classes of which nothing stays."""
    if not gone.any():
        return scores
    lowest = np.where(gone, np.inf, scores).min(axis=-1, keepdims=True)
    return np.where(gone, np.where(np.isfinite(lowest), lowest, 0.0), scores)
