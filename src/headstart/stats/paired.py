"""Differences between two models on the same images, where images of one group are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from headstart.stats.accuracy import Z95, has_many_groups, linear_variance, resampled_means

SIGNIFICANCE = 0.05  # the chance that models which do not differ are said to differ


class Tested:
    """What is told of a difference: its 95% ``interval`` and the ``p_value`` of a test."""

    interval: tuple[float, float]
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the test is below 0.05 and the interval excludes 0."""
        return self.p_value < SIGNIFICANCE and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Difference(Tested):
    """Difference between two models, of the second minus the first, with its interval and the p-value of a test."""

    difference: float
    interval: tuple[float, float]
    p_value: float

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "difference": self.difference,
            "interval": list(self.interval),
            "p_value": self.p_value,
            "real": self.significant,
        }


@dataclass(frozen=True)
class PairedDifference(Tested):
    """Difference in accuracy between two models on the same images.

    ``difference`` is the accuracy of the second model minus that of the first, with a 95% interval from resampled
    groups. ``only_first`` and ``only_second`` count the images that one model alone classifies correctly, ``p_value``
    is the exact McNemar test of them, adjusted by Holm's method where several pairs are tested.
    """

    only_first: int
    only_second: int
    difference: float
    interval: tuple[float, float]
    p_value: float

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "difference": self.difference,
            "interval": list(self.interval),
            "only_first": self.only_first,
            "only_second": self.only_second,
            "p_value": self.p_value,
            "real": self.significant,
        }


@dataclass(frozen=True)
class MetricDifference(Difference):
    """Difference in a metric between two models on the same images.

    ``difference`` is the metric of the second model minus that of the first, with a 95% ``interval`` from resampled
    groups; ``p_value`` is twice the share of the resampled differences on the less frequent side of 0 (Efron &
    Tibshirani 1993, section 15.4), adjusted by Holm's method where several pairs are tested.
    """

    @classmethod
    def of(cls, difference: float, resampled: NDArray[np.float64]) -> MetricDifference:
        """Make it of the differences in resamples [m], which say nothing where there are none."""
        if not len(resampled):
            return cls(difference, (-1.0, 1.0), 1.0)
        low, high = np.quantile(resampled, [0.025, 0.975])
        tail = min(int((resampled <= 0).sum()), int((resampled >= 0).sum()))
        return cls(difference, (float(low), float(high)), min(1.0, 2 * (tail + 1) / (len(resampled) + 1)))


def paired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.integer]
) -> PairedDifference:
    """Compare two models by which of the same images [n] each classifies correctly."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    change = second.astype(np.float64) - first
    return PairedDifference(
        only_first,
        only_second,
        float(change.mean()),
        group_bootstrap(change, groups),
        mcnemar(only_first, only_second),
    )


def grouped_difference(
    first: NDArray[np.float64], second: NDArray[np.float64], groups: NDArray[np.integer]
) -> tuple[float, float]:
    """Return the mean of ``first - second`` [n] and its standard error when groups, not images, are independent."""
    difference = first - second
    mean = float(difference.mean())
    _, index = np.unique(groups, return_inverse=True)
    per_group = np.bincount(index, weights=difference - mean)
    count = len(per_group)
    if count < 2:
        return mean, float("inf")
    return mean, float(np.sqrt(count / (count - 1) * (per_group**2).sum()) / len(difference))


def group_bootstrap(
    values: NDArray[np.float64], groups: NDArray[np.integer], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95% interval of the mean of ``values`` [n] by resampling groups, not images.

    ``values`` lie within -1..1. A single group says nothing about others: the interval is then -1 to 1. Where
    ``has_many_groups`` it is that of a normal distribution with ``linear_variance``.
    """
    _, index = np.unique(groups, return_inverse=True)
    sizes: NDArray[np.float64] = np.bincount(index).astype(np.float64)
    sums = np.bincount(index, weights=values).astype(np.float64)
    if len(sizes) < 2:
        return -1.0, 1.0
    if has_many_groups(sizes):
        mean, half = float(values.mean()), Z95 * float(np.sqrt(linear_variance(sums, sizes)))
        return max(-1.0, mean - half), min(1.0, mean + half)
    low, high = np.quantile(resampled_means(sums, sizes, resamples, seed), [0.025, 0.975])
    return float(low), float(high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947).

    It is the probability that the images which one model alone classifies correctly are divided between the models at
    least this unevenly by chance.
    """
    trials = only_first + only_second
    tail = sum(comb(trials, i) for i in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**trials))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of several tests adjusted by Holm's method (1979), in the same order."""
    adjusted, largest = list(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
