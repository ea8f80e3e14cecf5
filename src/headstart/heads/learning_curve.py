"""How many more pictures? What the chosen kind of head gets right after fewer pictures, carried on to more.

The pictures are dealt into FOLDS of whole groups. A head learned from some of them is judged on the others; since
sufficient statistics add, every subset costs one solve and no look at the pictures. Errors of heads fall about as a
power of the number of pictures (Cortes et al. 1993; Hestness et al. 2017): ``log error = a - b log pictures``, with
b between 0, nothing left to gain, and 1, the fastest that a well-posed problem allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from headstart.heads import solve
from headstart.heads.held_out import Basis
from headstart.heads.selection import Choice
from headstart.heads.statistics import Statistics
from headstart.machine import cores

Array = NDArray[np.float64]
FOLDS = 5
DRAWS = 400
WIDEST = 384  # directions of the basis; the others hold next to nothing of the variation, and a solve grows as its cube
STEPS = (1, 2, 5)
BLOCK = 512  # pictures whose coordinates are held at a time


@dataclass(frozen=True)
class Point:
    """Accuracy, 0 to 1, with its 95% interval, of heads learned from ``pictures`` (``per_class`` [k] of each class)."""

    pictures: int
    per_class: tuple[int, ...]
    accuracy: float
    interval: tuple[float, float]

    def to_dict(self) -> dict[str, object]:
        """The JSON form in ``run.json``."""
        return {
            "pictures": self.pictures, "per_class": list(self.per_class), "accuracy": self.accuracy,
            "interval": list(self.interval),
        }  # fmt: skip


@dataclass(frozen=True)
class LearningCurve:
    """Points from few pictures to all, and what is expected of ``more`` of them."""

    points: tuple[Point, ...]
    more: int
    expected: Point

    def to_dict(self) -> dict[str, object]:
        """The JSON form in ``run.json``."""
        return {
            "points": [point.to_dict() for point in self.points],
            "expectation": {"more": self.more, **self.expected.to_dict()},
        }


def learning_curve(
    choice: Choice, labels: NDArray[np.integer], groups: NDArray[np.integer], *, more: int | None = None, seed: int = 0
) -> LearningCurve | None:
    """The learning curve of the head chosen for pictures with ``labels`` [n] and ``groups`` [n].

    ``more`` pictures are asked about; by default a round number, as many again at most. None for a head that has no
    closed form or learned from further views, and where a class has fewer groups than there are folds.
    """
    basis, classes = choice.chosen.basis, int(labels.max()) + 1
    folds = deal(labels, groups, np.random.default_rng(seed))
    if basis is None or len(basis) != len(labels) or choice.head.kind == "logistic" or folds is None:
        return None
    count = len(labels)
    counts, wrong = _wrong(basis, labels, classes, folds, _solver(choice, basis, count))
    wrong = np.vstack([wrong, choice.probabilities.argmax(axis=1) != labels])  # each group left out: nearly all learned
    learned = np.vstack([counts, np.bincount(labels, minlength=classes)])
    sizes = learned.sum(axis=1)
    more = more or round_number(count)
    errors = _draws(wrong, groups, np.random.default_rng(seed))
    expected = extrapolated(sizes, errors, count + more)
    low, high = _intervals(np.column_stack([errors, expected]))
    smoothed = _smoothed(wrong, groups)[None]  # a slope from no mistake at all would be the logarithm of nothing
    less = extrapolated(sizes, smoothed, count + more)[0] / smoothed[0, -1]
    means = [*(1 - wrong.mean(axis=1)), 1 - less * float(wrong[-1].mean())]
    shares = np.vstack([learned, learned[-1] * (count + more) / count]).round().astype(int)
    points = [
        Point(int(share.sum()), tuple(map(int, share)), float(mean), (float(min(a, mean)), float(max(b, mean))))
        for share, mean, a, b in zip(shares, means, low, high, strict=True)
    ]
    return LearningCurve(tuple(points[:-1]), more, points[-1])


def round_number(count: int) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, ... that is not above ``count`` >= 1."""
    power = int(10 ** (len(str(count)) - 1))
    return max(step * power for step in STEPS if step * power <= count)


def deal(
    labels: NDArray[np.integer], groups: NDArray[np.integer], generator: np.random.Generator
) -> NDArray[np.int64] | None:
    """The fold [n] of each picture: groups stay whole, and of each class every fold gets as many groups as another.

    None where a class has fewer groups than there are folds. A group of several classes goes with its first.
    """
    numbers, first, index = np.unique(groups, return_index=True, return_inverse=True)
    fold = np.empty(len(numbers), np.int64)
    for c in np.unique(labels):
        these = np.flatnonzero(labels[first] == c)
        if len(these) < FOLDS:
            return None
        fold[generator.permutation(these)] = np.arange(len(these)) % FOLDS
    return fold[index]


def _solver(choice: Choice, basis: Basis, count: int) -> Callable[[Statistics], solve.Solution]:
    """The chosen head's solution from statistics of part of its pictures, penalised as it is itself."""
    settings, unit = choice.head.settings, float(basis.spread.sum()) / count
    if "dropout" in settings:  # its penalty is on the summed squares of the pictures learned from
        rate = float(settings["dropout"])
        return lambda some: solve.ridge(some, max(rate / (1 - rate) * some.count / count, 1e-6))
    if choice.head.kind == "ridge":
        return partial(solve.ridge, penalty=float(settings["penalty"]) * unit)
    if choice.head.kind == "lda":
        return partial(solve.lda, shrinkage=float(settings["shrinkage"]) * unit)
    return solve.centroid


def _wrong(
    basis: Basis,
    labels: NDArray[np.integer],
    classes: int,
    folds: NDArray[np.int64],
    solver: Callable[[Statistics], solve.Solution],
) -> tuple[Array, Array]:
    """For 1 to FOLDS - 1 folds learned from: pictures of each class, and how often each picture was judged wrongly.

    Both are means over FOLDS rounds, [FOLDS - 1, k] and [FOLDS - 1, n]; each round learns from neighbouring folds.
    """
    narrow, rows = basis.widest(WIDEST), [np.flatnonzero(folds == fold) for fold in range(FOLDS)]
    tasks = [(size, start) for size in range(1, FOLDS) for start in range(FOLDS)]
    learned = [{(start + i) % FOLDS for i in range(size)} for size, start in tasks]

    def blocks(fold: int) -> Iterator[NDArray[np.int64]]:
        return (rows[fold][start : start + BLOCK] for start in range(0, len(rows[fold]), BLOCK))

    def summed(fold: int) -> Statistics:
        return reduce(add, (Statistics.of(narrow.at(some), labels[some], classes) for some in blocks(fold)))

    def solved(task: int) -> solve.Solution:
        return solver(reduce(add, (parts[fold] for fold in learned[task])))

    def judged(fold: int) -> None:
        heads = [task for task, own in enumerate(learned) if fold not in own]
        for some in blocks(fold):  # the coordinates once more, instead of all of them kept: memory
            points = narrow.at(some)
            for task in heads:
                weights, bias = found[task]
                mistaken = (points @ weights + bias).argmax(axis=1) != labels[some]
                size = tasks[task][0]
                wrong[size - 1, some] += mistaken / (FOLDS - size)

    wrong = np.zeros((FOLDS - 1, len(labels)))
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:
        parts = list(pool.map(summed, range(FOLDS)))
        found = list(pool.map(solved, range(len(tasks))))
        list(pool.map(judged, range(FOLDS)))
    whole = np.bincount(labels, minlength=classes)
    return np.outer(np.arange(1, FOLDS) / FOLDS, whole), wrong


def _by_group(wrong: Array, groups: NDArray[np.integer]) -> tuple[Array, Array]:
    """Sums of mistakes [g, sizes] and of pictures [g] of each group, then of two more groups that nobody has seen.

    One is wrong throughout, one right, each of half a group's weight (Jeffreys' prior): no mistake is not certainty.
    """
    _, index = np.unique(groups, return_inverse=True)
    size = np.bincount(index).astype(np.float64)
    sums = np.stack([np.bincount(index, weights=row) for row in wrong], axis=1)
    unseen = np.array([[1.0], [0.0]]) * np.full(len(wrong), size.mean())
    return np.vstack([sums, unseen]), np.r_[size, size.mean(), size.mean()]


def _smoothed(wrong: Array, groups: NDArray[np.integer]) -> Array:
    sums, size = _by_group(wrong, groups)
    weight = np.r_[np.ones(len(size) - 2), 0.5, 0.5]
    shares: Array = weight @ sums / (weight @ size)
    return shares


def _draws(wrong: Array, groups: NDArray[np.integer], generator: np.random.Generator) -> Array:
    """Errors [DRAWS, sizes] of the groups weighted at random (the Bayesian bootstrap: Rubin 1981)."""
    sums, size = _by_group(wrong, groups)
    shape = np.r_[np.ones(len(size) - 2), 0.5, 0.5]
    drawn = np.empty((DRAWS, len(wrong)))
    for i in range(DRAWS):  # one at a time: memory
        weight = generator.standard_gamma(shape)
        drawn[i] = weight @ sums / (weight @ size)
    return drawn


def extrapolated(sizes: Array, errors: Array, size: float) -> Array:
    """The error [m] at ``size`` pictures by the power law through errors [m, s] at ``sizes`` [s], s >= 2.

    It goes through the last error, that of all pictures; the slope is that of the least squares.
    """
    x, y = np.log(sizes), np.log(np.maximum(errors, 1e-12))
    slope = np.clip(-(y - y.mean(axis=1, keepdims=True)) @ (x - x.mean()) / ((x - x.mean()) ** 2).sum(), 0, 1)
    error: Array = errors[:, -1] * (size / sizes[-1]) ** -slope
    return error


def _intervals(errors: Array) -> tuple[Array, Array]:
    """Of errors [m, s] the accuracies [s] that 95% lie between."""
    low, high = np.quantile(1 - errors, [0.025, 0.975], axis=0)
    return low, high
