"""Accuracy with an interval, and what a difference between two answers is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Accuracy:
    """Right answers out of ``count``, with a 95% interval and the name of the method that gave it."""

    correct: int
    count: int
    interval: tuple[float, float]
    method: str

    @property
    def value(self) -> float:
        """The share of right answers, 0 to 1."""
        return self.correct / self.count

    def to_dict(self) -> dict[str, object]:
        """The JSON form that ``fit --json`` and ``run.json`` use."""
        return {
            "correct": self.correct,
            "count": self.count,
            "value": self.value,
            "interval": list(self.interval),
            "method": self.method,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} ({self.correct}/{self.count}, 95% interval {low:.1%} to {high:.1%}, {self.method})"


def wilson(correct: float, count: float) -> tuple[float, float]:
    """95% interval of a share (Wilson 1927): stays within 0..1 and is honest at 0 and at ``count`` right."""
    share = correct / count
    middle = (share + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
    half = Z95 / (1 + Z95**2 / count) * np.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    # Rounding must not push the share itself out of its interval when all are right, or none.
    return float(max(0.0, min(middle - half, share))), float(min(1.0, max(middle + half, share)))


def held_out_accuracy(correct: NDArray[np.bool_]) -> Accuracy:
    """Accuracy on pictures that had no part in training, one entry [n] a picture; Wilson's interval."""
    return Accuracy(int(correct.sum()), len(correct), wilson(int(correct.sum()), len(correct)), "Wilson")


def leave_one_group_out_accuracy(
    correct: NDArray[np.bool_], groups: NDArray[np.integer], *, resamples: int = 2000, seed: int = 0
) -> Accuracy:
    """Accuracy when every picture's group was left out, ``correct`` [n] and ``groups`` [n].

    Groups, not pictures, are resampled, since the pictures of one are alike. The spread of the resampled
    accuracies says how many independent pictures the data are worth, between the number of groups and n, and
    Wilson's interval is taken at that number (Korn & Graubard 1998): with no mistake at all a plain
    bootstrap would claim certainty.
    """
    _, index = np.unique(groups, return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    right = np.bincount(index, weights=correct.astype(np.float64))
    share, count = float(correct.mean()), len(correct)
    worth = float(len(sizes))
    if 0 < share < 1 and len(sizes) > 1:
        generator, even = np.random.default_rng(seed), np.full(len(sizes), 1 / len(sizes))
        draws = (generator.multinomial(len(sizes), even) for _ in range(resamples))  # one at a time: memory
        variance = float(np.var([(draw @ right) / (draw @ sizes) for draw in draws]))
        worth = float(np.clip(share * (1 - share) / max(variance, 1e-12), len(sizes), count))
    low, high = wilson(share * worth, worth)
    return Accuracy(int(correct.sum()), count, (low, high), "groups resampled")


def disjoint(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two intervals (low, high) do not overlap."""
    return first[0] > second[1] or second[0] > first[1]


def grouped_difference(
    first: NDArray[np.float64], second: NDArray[np.float64], groups: NDArray[np.integer]
) -> tuple[float, float]:
    """Mean of ``first - second`` [n] and its standard error when groups, not pictures, are independent."""
    difference = first - second
    mean = float(difference.mean())
    _, index = np.unique(groups, return_inverse=True)
    per_group = np.bincount(index, weights=difference - mean)
    number = len(per_group)
    if number < 2:
        return mean, float("inf")
    return mean, float(np.sqrt(number / (number - 1) * (per_group**2).sum()) / len(difference))


def group_bootstrap(
    values: NDArray[np.float64], groups: NDArray[np.integer], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95% interval of the mean of ``values`` [n] when groups, not pictures, are independent: they are resampled.

    A single group says nothing of others: the interval is then that of no knowledge, from -1 to 1.
    """
    _, index = np.unique(groups, return_inverse=True)
    sizes, sums = np.bincount(index).astype(np.float64), np.bincount(index, weights=values)
    if len(sizes) < 2:
        return -1.0, 1.0
    generator, even = np.random.default_rng(seed), np.full(len(sizes), 1 / len(sizes))
    draws = (generator.multinomial(len(sizes), even) for _ in range(resamples))  # one at a time: memory
    low, high = np.quantile([(draw @ sums) / (draw @ sizes) for draw in draws], [0.025, 0.975])
    return float(low), float(high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947): of the pictures that one model alone gets right, could it be
    chance that so many are the first's and so many the second's?"""
    trials = only_first + only_second
    tail = sum(comb(trials, i) for i in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**trials))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests as they must be read together (Holm 1979), in the same order."""
    adjusted, largest = list(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def confusion_matrix(truth: NDArray[np.integer], answer: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Counts [classes, classes]: row the true class, column the answer."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth, answer), 1)
    return table
