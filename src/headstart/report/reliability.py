"""Reliability diagram and risk-coverage curve of a set of predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.report.data import ReliabilityBin
from headstart.stats.accuracy import share_interval

BINS = 10
MAX_POINTS = 120


def reliability_bins(
    confidence: NDArray[np.float64], is_correct: NDArray[np.bool_], groups: NDArray[np.integer]
) -> tuple[ReliabilityBin, ...]:
    """Put n predictions by confidence [n] into ten bins of equal width; empty bins are left out.

    Those of one of ``groups`` [n] are alike, which widens the intervals of the bins.
    """
    bins = []
    bin_index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    for number in range(BINS):
        members = bin_index == number
        if count := int(members.sum()):
            low, high = share_interval(is_correct[members], groups[members])
            mean_confidence, accuracy = float(confidence[members].mean()), float(is_correct[members].mean())
            bins.append(ReliabilityBin(count, mean_confidence, accuracy, low, high))
    return tuple(bins)


def risk_coverage(confidence: NDArray[np.float64], is_correct: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Return points (coverage, error rate): of the most confident share of n predictions, how many are wrong.

    El-Yaniv & Wiener 2010, "On the foundations of noise-free selective classification", section 2. Predictions of equal
    confidence enter together, so that their order does not matter. There are at most 120 points.
    """
    if not len(confidence):
        return ()
    order = np.argsort(-confidence, kind="stable")
    errors = np.cumsum(~is_correct[order])
    last_of_equal = np.flatnonzero(np.append(np.diff(confidence[order]) < 0, True))
    if len(last_of_equal) > MAX_POINTS:
        picked = np.unique(np.linspace(0, len(last_of_equal) - 1, MAX_POINTS).round().astype(int))
        last_of_equal = last_of_equal[picked]
    return tuple((float((i + 1) / len(confidence)), float(errors[i] / (i + 1))) for i in last_of_equal)
