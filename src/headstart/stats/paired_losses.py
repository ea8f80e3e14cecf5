"""Difference in log-loss between two models on the same images, where images of one group are not independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.stats.paired import SIGNIFICANCE, group_bootstrap

Array = NDArray[np.float64]
MAX_EXACT = 12  # groups of which all exchanges are tried
EXCHANGES = 10_000  # that are drawn of more groups
SIGNS_AT_ONCE = 2_000_000  # in memory


@dataclass(frozen=True)
class LossDifference:
    """Difference in mean log-loss, in nats, between two models on the same cells; below 0 the second is better.

    ``difference`` is the loss of the second model minus that of the first, with a 95% interval from resampled groups.
    ``p_value`` is that of ``exchange_test``.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the test is below 0.05 and the interval excludes 0."""
        return self.p_value < SIGNIFICANCE and not self.interval[0] <= 0 <= self.interval[1]

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "difference": self.difference,
            "interval": list(self.interval),
            "p_value": self.p_value,
            "real": self.significant,
        }


def loss_difference(
    first: Array, second: Array, known: NDArray[np.bool_], groups: NDArray[np.integer]
) -> LossDifference:
    """Compare two models by their log-losses [n, k] of the same cells, of which only the ``known`` [n, k] count.

    ``groups`` [n] are two or more.
    """
    rows, labels = np.nonzero(known)
    change = second[rows, labels] - first[rows, labels]
    index = np.unique(groups, return_inverse=True)[1][rows]
    sums = np.bincount(index, weights=change).astype(np.float64)
    return LossDifference(float(change.mean()), group_bootstrap(change, index), exchange_test(sums))


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
