"""Sufficient statistics of a linear head: they add, merge and subtract, exactly.

Ridge, LDA and the nearest centroid see the pictures only through the count, the class sums and the Gram
matrix. So any number of workers may each sum a part, in any order, and pictures can be added to or taken
from a finished head without reading the others again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError


def class_sums(x: NDArray[np.float64], labels: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    """Sums [k, d] of the vectors x [n, d] of each class; a sort and a segmented sum, faster than adding one by one."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums = np.zeros((classes, x.shape[1]))
    if len(present):
        sums[present] = np.add.reduceat(x[order], starts, axis=0)
    return sums


@dataclass(frozen=True)
class Statistics:
    """Counts [k] int64, class sums [k, d] float64 and Gram matrix [d, d] float64 of vectors [n, d]."""

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    gram: NDArray[np.float64]

    @classmethod
    def of(cls, x: NDArray[np.floating], labels: NDArray[np.integer], classes: int) -> Statistics:
        """Statistics of vectors x [n, d] with labels [n] in 0..classes-1."""
        vectors: NDArray[np.float64] = np.asarray(x, np.float64)
        counts = np.bincount(labels, minlength=classes)
        return cls(counts, class_sums(vectors, labels, classes), vectors.T @ vectors)

    @classmethod
    def merged(cls, parts: Iterable[Statistics]) -> Statistics:
        """The statistics of all parts, one or more, in the memory of the first. Raises DataError for none."""
        rest = iter(parts)
        total = next(rest, None)
        if total is None:
            raise DataError("There are no statistics to merge.")
        for part in rest:
            total.counts[...] += part.counts
            total.sums[...] += part.sums
            total.gram[...] += part.gram
        return total

    def __add__(self, other: Statistics) -> Statistics:
        """The statistics of both parts together."""
        return Statistics(self.counts + other.counts, self.sums + other.sums, self.gram + other.gram)

    def __sub__(self, other: Statistics) -> Statistics:
        """The statistics without a part that was added before; DataError if it cannot have been."""
        counts = self.counts - other.counts
        if (counts < 0).any():
            raise DataError(
                f"Cannot take away {int(other.counts.sum())} pictures: some class has fewer than that; "
                "subtract only what was added."
            )
        return Statistics(counts, self.sums - other.sums, self.gram - other.gram)

    @property
    def count(self) -> int:
        """How many pictures were summed."""
        return int(self.counts.sum())

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean vector [d]."""
        mean: NDArray[np.float64] = self.sums.sum(axis=0) / self.count
        return mean

    @property
    def scatter(self) -> NDArray[np.float64]:
        """Total scatter [d, d]: the Gram matrix of the vectors less their mean."""
        scatter: NDArray[np.float64] = np.outer(-self.count * self.mean, self.mean)  # one matrix, and no other
        scatter += self.gram
        return scatter
