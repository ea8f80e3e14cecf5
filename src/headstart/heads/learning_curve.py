"""What more images would bring: accuracy of the selected head after fewer images, extrapolated to more.

Of an average of heads the one with the greatest weight stands for it.

The images are dealt into FOLDS of whole groups. A head learned from some of them is evaluated on the others; since
sufficient statistics add, every subset costs one solve and no look at the images. Errors of heads fall about as a power
of the number of images (Cortes et al. 1993; Hestness et al. 2017): ``log error = a - b log images``, with b between 0,
nothing left to gain, and 1, the fastest that a well-posed problem allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from headstart.heads.candidates import KINDS
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.folds import FOLDS, deal_into_folds
from headstart.heads.head import softmax
from headstart.heads.kinds import Array, Labels, Solution
from headstart.heads.selection import SelectedHead
from headstart.heads.statistics import Statistics
from headstart.stats.accuracy import independent_images, linear_variance
from headstart.stats.decision import DecisionRule, decide

DRAWS = 400
MAX_DIRECTIONS = 384  # of the basis; the others hold next to no variation, and a solve grows as their cube
STEPS = (1, 2, 5)
MAX_CLASSES = 5  # with the most misclassified images: of these, intervals are drawn
MIN_ERRORS = 3  # misclassified images of a class; of fewer no curve can be drawn
BLOCK_SIZE = 512  # images whose coordinates are held at a time


@dataclass(frozen=True)
class LearningCurvePoint:
    """Accuracy, 0 to 1, with its 95% interval, of heads learned from ``images`` (``per_class`` [k] of each class).

    ``class_accuracy`` [k] is the share of the images of each class that are classified correctly, ``class_interval``
    [k] its 95% interval: of the ``MAX_CLASSES`` classes with the most errors, ``MIN_ERRORS`` at least, else None.
    """

    images: int
    per_class: tuple[int, ...]
    accuracy: float
    interval: tuple[float, float]
    class_accuracy: tuple[float, ...]
    class_interval: tuple[tuple[float, float] | None, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form in ``run.json``."""
        return {
            "pictures": self.images,
            "per_class": list(self.per_class),
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "class_accuracy": [round(share, 6) for share in self.class_accuracy],
            "class_interval": [
                None if ends is None else [round(end, 6) for end in ends] for ends in self.class_interval
            ],
        }


@dataclass(frozen=True)
class LearningCurve:
    """Points from few images to all, and what is expected of ``more`` of them."""

    points: tuple[LearningCurvePoint, ...]
    more: int
    expected: LearningCurvePoint

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form in ``run.json``."""
        return {
            "points": [point.to_dict() for point in self.points],
            "expectation": {"more": self.more, **self.expected.to_dict()},
        }


def learning_curve(
    selected: SelectedHead,
    labels: Labels,
    groups: Labels,
    *,
    more: int | None = None,
    seed: int = 0,
    workers: int = 1,
    rule: DecisionRule | None = None,
) -> LearningCurve | None:
    """Compute the learning curve of the head selected for images with ``labels`` [n] and ``groups`` [n].

    It is extrapolated to ``more`` images; by default a round number, at most as many again. Class weights of the
    selected head count, and so does the ``rule`` by which it decides, if there is one. None for a head that has no
    closed form or learned from further views, and where a class has fewer groups than there are folds.
    """
    classes, count = int(labels.max()) + 1, len(labels)
    folds = deal_into_folds(labels, groups, np.random.default_rng(seed))
    if selected.main is None or selected.main.problem is None or folds is None:
        return None
    basis, main = selected.main.problem.basis, selected.main.candidate
    kind, settings = KINDS[main.kind], main.settings
    if len(basis) != count or kind.solve_statistics is None:
        return None
    solve_statistics = kind.solve_statistics

    def solve(statistics: Statistics) -> Solution:
        return solve_statistics(statistics, settings, basis)

    def predict(scores: Array) -> Labels:
        if selected.class_weights is not None:
            scores = scores + main.temperature * np.log(selected.class_weights)
        return decide(softmax(scores / main.temperature), rule)

    fold_heads = _FoldHeads(basis, labels, classes, folds, solve, predict)
    class_counts, errors_by_image = fold_heads.evaluate(workers)
    # The last point, with each group left out, learned from nearly all.
    errors_by_image = np.vstack([errors_by_image, decide(selected.probabilities, rule) != labels])
    class_counts = np.vstack([class_counts, np.bincount(labels, minlength=classes)])
    sizes = class_counts.sum(axis=1)
    more = more or round_number(count)

    every = np.r_[sizes, count + more]
    low, high = error_interval(errors_by_image, groups, every, seed)
    means = [*(1 - errors_by_image.mean(axis=1)), 1 - expected_error(errors_by_image, groups, every)]
    per_class = np.vstack([class_counts, class_counts[-1] * (count + more) / count]).round().astype(int)
    class_errors = np.stack([errors_by_image[:, labels == c].mean(axis=1) for c in range(classes)])
    class_errors = np.column_stack([class_errors, extrapolate(sizes, class_errors, count + more)])
    class_intervals = _class_intervals(class_errors, errors_by_image, labels, groups, every, seed)
    points = [
        _point(row, float(mean), (1 - b, 1 - a), (1 - errors).tolist(), intervals)
        for row, mean, a, b, errors, intervals in zip(
            per_class, means, low.tolist(), high.tolist(), class_errors.T, class_intervals, strict=True
        )
    ]
    return LearningCurve(tuple(points[:-1]), more, points[-1])


def _point(
    per_class: Labels,
    mean: float,
    ends: tuple[float, float],
    class_accuracy: list[float],
    intervals: tuple[tuple[float, float] | None, ...],
) -> LearningCurvePoint:
    counts, interval = tuple(per_class.tolist()), (min(ends[0], mean), max(ends[1], mean))
    return LearningCurvePoint(sum(counts), counts, mean, interval, tuple(class_accuracy), intervals)


def round_number(count: int) -> int:
    """Return the largest of 1, 2, 5, 10, 20, 50, ... that is not above ``count`` >= 1."""
    power = int(10 ** (len(str(count)) - 1))
    return max(step * power for step in STEPS if step * power <= count)


@dataclass(frozen=True)
class _FoldHeads:
    """Heads fitted to some of the folds [n] of the images.

    ``solve`` gives the head from the statistics of those folds, ``decide`` the class [m] from its scores [m, k].
    """

    basis: Eigenbasis
    labels: Labels
    classes: int
    folds: NDArray[np.int64]
    solve: Callable[[Statistics], Solution]
    decide: Callable[[Array], Labels]

    def evaluate(self, workers: int) -> tuple[Array, Array]:
        """For heads learned from 1 to FOLDS - 1 folds: images of each class, and how often each image is misclassified.

        Both are means over FOLDS rounds, [FOLDS - 1, k] and [FOLDS - 1, n]; each round learns from neighbouring folds.
        """
        basis, labels = self.basis.top(MAX_DIRECTIONS), self.labels
        rows = [np.flatnonzero(self.folds == fold) for fold in range(FOLDS)]
        tasks = [(size, start) for size in range(1, FOLDS) for start in range(FOLDS)]
        training_folds = [{(start + i) % FOLDS for i in range(size)} for size, start in tasks]
        errors = np.zeros((FOLDS - 1, len(labels)))

        def blocks(fold: int) -> Iterator[NDArray[np.int64]]:
            return (rows[fold][start : start + BLOCK_SIZE] for start in range(0, len(rows[fold]), BLOCK_SIZE))

        def fold_statistics(fold: int) -> Statistics:
            parts = (Statistics.of(basis.project(block), labels[block], self.classes) for block in blocks(fold))
            return Statistics.merged(parts)

        def solve(folds: set[int]) -> Solution:
            return self.solve(reduce(add, (statistics[fold] for fold in folds)))

        def predict(fold: int) -> None:
            held_out_by = [task for task, folds in enumerate(training_folds) if fold not in folds]
            for block in blocks(fold):  # the coordinates once more, instead of all of them kept: memory
                points = basis.project(block)
                for task in held_out_by:
                    weights, bias = solutions[task]
                    is_wrong = self.decide(points @ weights + bias) != labels[block]
                    size = tasks[task][0]
                    errors[size - 1, block] += is_wrong / (FOLDS - size)

        with ThreadPoolExecutor(workers) as pool:
            statistics = list(pool.map(fold_statistics, range(FOLDS)))
            solutions = list(pool.map(solve, training_folds))
            list(pool.map(predict, range(FOLDS)))
        class_counts = np.bincount(labels, minlength=self.classes)
        return np.outer(np.arange(1, FOLDS) / FOLDS, class_counts), errors


def _errors_by_group(errors: Array, groups: Labels) -> tuple[Array, Array]:
    """Sum the errors [g, sizes] and images [g] of each group, and append two pseudo-groups.

    One has every image misclassified and one has none, each with half a group's weight (Jeffreys' prior), so that zero
    errors does not mean zero uncertainty.
    """
    _, index = np.unique(groups, return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    sums = np.stack([np.bincount(index, weights=row) for row in errors], axis=1)
    unseen = np.array([[1.0], [0.0]]) * np.full(len(errors), sizes.mean())
    return np.vstack([sums, unseen]), np.r_[sizes, sizes.mean(), sizes.mean()]


def _smoothed_errors(errors: Array, groups: Labels) -> Array:
    """Return the share of errors [sizes], between 0 and 1 and never either, of errors [sizes, n] in ``groups`` [n]."""
    sums, sizes = _errors_by_group(errors, groups)
    weight = np.r_[np.ones(len(sizes) - 2), 0.5, 0.5]
    shares: Array = weight @ sums / (weight @ sizes)
    return shares


def _bootstrap_errors(errors: Array, groups: Labels, generator: np.random.Generator) -> Array:
    """Draw errors [DRAWS, sizes] with the groups weighted at random (the Bayesian bootstrap: Rubin 1981)."""
    sums, sizes = _errors_by_group(errors, groups)
    shape = np.r_[np.ones(len(sizes) - 2), 0.5, 0.5]
    draws = np.empty((DRAWS, len(errors)))
    for i in range(DRAWS):  # one at a time: memory
        weight = generator.standard_gamma(shape)
        draws[i] = weight @ sums / (weight @ sizes)
    return draws


def error_interval(errors: Array, groups: Labels, sizes: Array, seed: int) -> Array:
    """Return the 95% interval [2, s + 1] of the error at ``sizes``, of which the last is expected from the others'.

    It is the interval of what will be measured there, on groups of which there are then as many more. The two
    pseudo-groups count whole in its noise, which is wide rather than narrow where no error was seen.
    """
    generator = np.random.default_rng(seed)
    draws = _bootstrap_errors(errors, groups, generator)
    expected = np.clip(extrapolate(sizes[:-1], draws, sizes[-1]), 1e-9, 1 - 1e-9)
    sums, group_sizes = _errors_by_group(errors[-1:], groups)
    variance = linear_variance(sums[:, 0], group_sizes)
    count = independent_images(float(sums.sum() / group_sizes.sum()), variance, group_sizes) * sizes[-1] / sizes[-2]
    measured = generator.beta(expected * count, (1 - expected) * count)
    interval: Array = np.quantile(np.column_stack([draws, measured]), [0.025, 0.975], axis=0)
    return interval


def expected_error(errors: Array, groups: Labels, sizes: Array) -> float:
    """Return the error expected at the last of ``sizes`` [s + 1] from errors [s, n] at the others."""
    smoothed = _smoothed_errors(errors, groups)[None]  # the logarithm of no error at all does not exist
    share = extrapolate(sizes[:-1], smoothed, sizes[-1])[0] / smoothed[0, -1]
    return float(share * errors[-1].mean())


def classes_with_errors(errors: Array, counts: Array | Labels) -> list[int]:
    """Return the classes with the most misclassified images, most first, by their ``errors`` [k] and images [k]."""
    wrong = counts * errors
    order = np.argsort(-wrong, kind="stable").tolist()
    return [c for c in order if wrong[c] >= MIN_ERRORS - 1e-9][:MAX_CLASSES]


def _class_intervals(
    class_errors: Array, errors_by_image: Array, labels: Labels, groups: Labels, sizes: Array, seed: int
) -> list[tuple[tuple[float, float] | None, ...]]:
    """Return the 95% interval of the accuracy of each class at ``sizes`` [s + 1], of which the last is expected.

    ``class_errors`` [k, s + 1] are the errors of each class, which each interval contains, and ``errors_by_image``
    [s, n] those of each image.
    """
    ends: list[list[tuple[float, float] | None]] = [[None] * len(class_errors) for _ in sizes]
    for c in classes_with_errors(class_errors[:, -2], np.bincount(labels, minlength=len(class_errors))):
        low, high = error_interval(errors_by_image[:, labels == c], groups[labels == c], sizes, seed)
        for at, (a, b, error) in enumerate(zip(low.tolist(), high.tolist(), class_errors[c].tolist(), strict=True)):
            ends[at][c] = (1 - max(b, error), 1 - min(a, error))
    return [tuple(row) for row in ends]


def extrapolate(sizes: Array, errors: Array, size: float) -> Array:
    """Return the error [m] at ``size`` images by the power law through errors [m, s] at ``sizes`` [s], s >= 2.

    It goes through the last error, that of all images; the slope is that of the least squares, within 0..1.
    """
    x, y = np.log(sizes), np.log(np.maximum(errors, 1e-12))
    slope = np.clip(-(y - y.mean(axis=1, keepdims=True)) @ (x - x.mean()) / ((x - x.mean()) ** 2).sum(), 0, 1)
    error: Array = errors[:, -1] * (size / sizes[-1]) ** -slope
    return error
