"""Does the model mean what it says: reliability, and the risk of answering more or fewer pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.report.data import Bin
from headstart.stats.accuracy import wilson

BINS = 10
POINTS = 120


def reliability(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Bins of answers by what they claim, ``sure`` [n] in tenths, with the share of ``right`` [n] ones."""
    found = []
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    for number in range(BINS):
        own = place == number
        if count := int(own.sum()):
            low, high = wilson(int(right[own].sum()), count)
            found.append(Bin(count, float(sure[own].mean()), float(right[own].mean()), low, high))
    return tuple(found)


def risk(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Points (coverage, risk): of the surest share of n answers, how many are wrong.

    El-Yaniv & Wiener 2010, "On the foundations of noise-free selective classification". Equally sure answers are taken
    together, so that no order among them is made up.
    """
    if not len(sure):
        return ()
    order = np.argsort(-sure, kind="stable")
    wrong = np.cumsum(~right[order])
    last = np.flatnonzero(np.append(np.diff(sure[order]) < 0, True))  # of equally sure ones
    if len(last) > POINTS:
        last = last[np.unique(np.linspace(0, len(last) - 1, POINTS).round().astype(int))]
    return tuple((float((i + 1) / len(sure)), float(wrong[i] / (i + 1))) for i in last)
