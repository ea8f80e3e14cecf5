"""Sufficient statistics of a linear head: they add, merge and subtract; of whole numbers exactly.

Ridge, LDA and the nearest centroid depend on the images only through the count, the class sums and the Gram matrix. So
any number of workers may each sum a part, in any order, and images can be added to a head or removed from it without
reading the others again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError
from headstart.heads.integers import AnyVectors, IntegerVectors

Array = NDArray[np.float64]
ROWS = 4096  # of whole numbers below 2^15 in a block: sums of their products stay far below 2^53


@dataclass(frozen=True)
class Statistics:
    """Counts [k] int64, class sums [k, d] and Gram matrix [d, d] of vectors [n, d].

    Sums and Gram matrix are float64; or int64, in steps, of ``IntegerVectors``. Those are the same bits however the
    images are ordered and cut into parts, up to 2^32 images; ``in_units`` turns them into those of real numbers.
    """

    counts: NDArray[np.int64]
    sums: NDArray[Any]
    gram: NDArray[Any]

    @classmethod
    def of(cls, x: AnyVectors, labels: NDArray[np.integer], classes: int) -> Statistics:
        """Compute the statistics of vectors x [n, d] with labels [n] in 0..classes-1."""
        if isinstance(x, IntegerVectors):
            return cls._of_integers(x.integers, labels, classes)
        vectors: Array = np.asarray(x, np.float64)
        counts = np.bincount(labels, minlength=classes)
        return cls(counts, class_sums(vectors, labels, classes), vectors.T @ vectors)

    @classmethod
    def _of_integers(cls, x: NDArray[np.int16], labels: NDArray[np.integer], classes: int) -> Statistics:
        width = x.shape[1]
        sums, gram = np.zeros((classes, width), np.int64), np.zeros((width, width), np.int64)
        for start in range(0, len(x), ROWS):  # in float64, where products and their sums over a block are exact
            block, of_block = x[start : start + ROWS].astype(np.float64), labels[start : start + ROWS]
            sums += class_sums(block, of_block, classes).astype(np.int64)
            gram += (block.T @ block).astype(np.int64)
        return cls(np.bincount(labels, minlength=classes), sums, gram)

    def in_units(self, steps: NDArray[np.floating]) -> Statistics:
        """Return the statistics, in steps, as those of the vectors times ``steps`` [d]."""
        return Statistics(self.counts, self.sums * steps, self.gram * np.outer(steps, steps))

    @classmethod
    def merged(cls, parts: Iterable[Statistics]) -> Statistics:
        """Add up the statistics of one part or more; the parts stay as they are. Raises DataError for none.

        Parts are taken one at a time, so a generator needs the memory of two.
        """
        iterator = iter(parts)
        first = next(iterator, None)
        if first is None:
            raise DataError("There are no statistics to merge.")
        counts, sums, gram = first.counts.copy(), first.sums.copy(), first.gram.copy()
        for part in iterator:
            counts += part.counts
            sums += part.sums
            gram += part.gram
        return cls(counts, sums, gram)

    def __add__(self, other: Statistics) -> Statistics:
        """Return the statistics of both parts together."""
        return Statistics(self.counts + other.counts, self.sums + other.sums, self.gram + other.gram)

    def __sub__(self, other: Statistics) -> Statistics:
        """Return the statistics without a part that was added before; raise DataError if it cannot have been."""
        counts = self.counts - other.counts
        if (counts < 0).any():
            raise DataError(
                f"Cannot take away {int(other.counts.sum())} images: some class has fewer than that; "
                "subtract only what was added."
            )
        return Statistics(counts, self.sums - other.sums, self.gram - other.gram)

    @property
    def count(self) -> int:
        """How many images were summed."""
        return int(self.counts.sum())

    @property
    def mean(self) -> Array:
        """The mean vector [d]."""
        mean: Array = self.sums.sum(axis=0) / self.count
        return mean

    @property
    def scatter(self) -> Array:
        """Total scatter [d, d]: the Gram matrix of the centred vectors, a new array."""
        scatter: Array = np.outer(-self.count * self.mean, self.mean)  # one matrix, and no second one
        scatter += self.gram
        return scatter


def class_sums(x: Array, labels: NDArray[np.integer], classes: int) -> Array:
    """Sum the vectors x [n, d] of each class, [k, d]. A sort and a segmented sum are faster than adding row by row."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums = np.zeros((classes, x.shape[1]))
    if len(present):
        sums[present] = np.add.reduceat(x[order], starts, axis=0)
    return sums


def add_to_diagonal(matrices: Array, value: float | Array) -> Array:
    """Add a number, or one for each row [d], to the diagonals of ``matrices`` [..., d, d], in place.

    In place because a copy of a wide matrix takes many megabytes; only for arrays that the caller has just made.
    """
    np.einsum("...ii->...i", matrices)[...] += value
    return matrices
