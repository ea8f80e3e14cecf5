"""Differences between two models on the same images, where images of one group are not independent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.stats.accuracy import (
    T_GROUPS,
    Z95,
    binomial_tail,
    errors_to_each_side,
    has_many_groups,
    linear_variance,
    resampled_means,
    sums_by_group,
    wilson,
)

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
    groups; where all groups show one difference it is wider, to both sides, by that of a share of 0 of so many groups
    (Wilson).
    ``only_first`` and ``only_second`` count the images that one model alone classifies correctly, ``p_value`` is the
    exact McNemar test of them, adjusted by Holm's method where several pairs are tested.
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
    def of(cls, difference: float, resampled: NDArray[np.float64], groups: int) -> MetricDifference:
        """Make it of the differences in resamples [m] of so many groups, which say nothing where there are none."""
        if not len(resampled):
            return cls(difference, (-1.0, 1.0), 1.0)
        tail = min(int((resampled <= 0).sum()), int((resampled >= 0).sum()))
        p_value = min(1.0, 2 * (tail + 1) / (len(resampled) + 1))
        low, high = _of_some_width(_bootstrap_interval(difference, resampled, groups), groups)
        return cls(difference, (max(-1.0, low), min(1.0, high)), p_value)


def paired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.integer]
) -> PairedDifference:
    """Compare two models by which of the same images [n] each classifies correctly."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    change = second.astype(np.float64) - first
    interval = _of_some_width(group_bootstrap(change, groups), len(np.unique(groups)))
    return PairedDifference(only_first, only_second, float(change.mean()), interval, mcnemar(only_first, only_second))


def _of_some_width(interval: tuple[float, float], groups: int) -> tuple[float, float]:
    """Return an interval, of no width where all groups are alike, as if unseen ones were: then that of none of them."""
    low, high = interval
    if low < high:
        return interval
    unseen = wilson(0, groups)[1]
    return max(-1.0, low - unseen), min(1.0, high + unseen)


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

    It lies within -1..1, or within the reach of larger ``values``. A single group says nothing about others: the
    interval is then -1 to 1. Where ``has_many_groups`` it is that of a normal distribution with ``linear_variance``.
    """
    sums, sizes = sums_by_group(values, groups)
    mean, bound = float(values.mean()), max(1.0, float(np.abs(values).max()))
    if len(sizes) < 2:
        return -1.0, 1.0
    if has_many_groups(sizes):
        half = Z95 * float(np.sqrt(linear_variance(sums, sizes)))
        low, high = mean - half, mean + half
    else:
        low, high = _bootstrap_interval(mean, resampled_means(sums, sizes, resamples, seed), len(sizes))
    return max(-bound, low), min(bound, high)


def _bootstrap_interval(value: float, resampled: NDArray[np.float64], groups: int) -> tuple[float, float]:
    """Return the 95% interval of a ``value`` by the percentiles of it in resamples [m] of ``groups`` > 1.

    Of fewer than ``T_GROUPS`` they spread too little: each end is moved away by the factor by which a quantile of t
    with an unbiased variance exceeds that of a normal distribution (after Hesterberg 2015, "What teachers should know
    about the bootstrap", section 4).
    """
    low, high = np.quantile(resampled, [0.025, 0.975]).tolist()
    if groups >= T_GROUPS:
        return low, high
    factor = errors_to_each_side(groups) / Z95 * math.sqrt(groups / (groups - 1))
    return value - factor * max(0.0, value - low), value + factor * max(0.0, high - value)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947).

    It is the probability that the images which one model alone classifies correctly are divided between the models at
    least this unevenly by chance.
    """
    return min(1.0, 2 * binomial_tail(min(only_first, only_second), only_first + only_second, 0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of several tests adjusted by Holm's method (1979), in the same order."""
    adjusted, largest = list(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
