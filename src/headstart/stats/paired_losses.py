"""Difference in log-loss between two models on the same images, where images of one group are not independent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.stats.paired import Difference, group_bootstrap

Array = NDArray[np.float64]
MAX_EXACT = 12  # groups of which all exchanges are tried
EXCHANGES = 10_000  # that are drawn of more groups
SIGNS_AT_ONCE = 2_000_000  # in memory


def loss_difference(first: Array, second: Array, known: NDArray[np.bool_], groups: NDArray[np.integer]) -> Difference:
    """Compare two models by their log-losses [n, k] of the same cells, of which only the ``known`` [n, k] count.

    ``groups`` [n] are two or more. The difference of the mean losses is in nats; below 0 the second model is better.
    Its interval is of resampled groups, its p-value that of ``exchange_test``.
    """
    rows, labels = np.nonzero(known)
    change = second[rows, labels] - first[rows, labels]
    index = np.unique(groups, return_inverse=True)[1][rows]
    sums = np.bincount(index, weights=change).astype(np.float64)
    return Difference(float(change.mean()), group_bootstrap(change, index), exchange_test(sums))


def exchange_test(sums: Array, seed: int = 0) -> float:
    """Return the two-sided p-value of the hypothesis that two models could be exchanged in any group.

    ``sums`` [g] are the differences summed over each group, whose signs an exchange turns round (the permutation test
    of pairs: Fisher 1935, section 21). All exchanges are tried for up to 12 groups, else 10,000 are drawn, and the
    p-value is never below one in as many (Phipson & Smyth 2010).
    """
    count = len(sums)
    least = abs(float(sums.sum())) * (1 - 1e-9)
    if count <= MAX_EXACT:
        signs = 1.0 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float((np.abs(signs @ sums) >= least).mean())
    generator, reached = np.random.default_rng(seed), 0
    at_once = max(1, SIGNS_AT_ONCE // count)
    for first in range(0, EXCHANGES, at_once):
        signs = 1.0 - 2 * generator.integers(0, 2, (min(at_once, EXCHANGES - first), count))
        reached += int((np.abs(signs @ sums) >= least).sum())
    return (1 + reached) / (1 + EXCHANGES)
