"""Vectors: those of one or several taps side by side, prepared a block of rows at a time.

Features are kept as int16; the algebra needs scaled float64, which takes eight times as much memory with its temporary
arrays. Reading by blocks keeps the memory of a fit to that of the features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.integers import AnyVectors
from headstart.heads.statistics import class_sums

Array = NDArray[np.float64]
BLOCK_SIZE = 500_000  # numbers in a block


@dataclass(frozen=True)
class Vectors:
    """n vectors of d numbers: ``parts`` [n, d_i] side by side, times ``scales`` [d]."""

    parts: tuple[AnyVectors, ...]
    scales: Array
    block_size: int = BLOCK_SIZE

    @classmethod
    def of(cls, *parts: AnyVectors) -> Vectors:
        """Put arrays [n, d_i] side by side as they are."""
        return cls(parts, np.ones(sum(part.shape[1] for part in parts)))

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        return len(self.scales)

    def rows(self, index: slice | NDArray[np.integer]) -> Array:
        """Return the vectors at ``index`` [..., width], float64."""
        rows: Array = np.concatenate([np.asarray(part[index], np.float64) for part in self.parts], axis=-1)
        rows *= self.scales
        return rows

    def blocks(self) -> Iterator[slice]:
        """Yield slices that cover all rows, each small enough for several arrays of its size."""
        step = max(64, self.block_size // max(1, self.width))
        return (slice(start, min(start + step, len(self))) for start in range(0, len(self), step))

    def moments(self) -> tuple[Array, Array]:
        """Compute the mean of every number and the mean of its square, both [width]."""
        total, squares = np.zeros(self.width), np.zeros(self.width)
        for block in self.blocks():
            rows = self.rows(block)
            total += rows.sum(axis=0)
            squares += np.einsum("nd,nd->d", rows, rows)
        return total / len(self), squares / len(self)

    def scatter(self, mean: Array) -> Array:
        """Compute the scatter matrix [width, width]: the sum of the outer products of the vectors less ``mean``."""
        scatter = np.zeros((self.width, self.width))
        for block in self.blocks():
            centred = self.rows(block) - mean
            scatter += centred.T @ centred
        return scatter

    def products(self, targets: NDArray[np.floating]) -> Array:
        """Compute ``x.T @ targets`` [width, k] for targets [n, k]."""
        total = np.zeros((self.width, targets.shape[1]))
        for block in self.blocks():
            total += self.rows(block).T @ targets[block]
        return total

    def class_sums(self, labels: NDArray[np.integer], classes: int) -> Array:
        """Sum the vectors of each class, [classes, width]."""
        total = np.zeros((classes, self.width))
        for block in self.blocks():
            total += class_sums(self.rows(block), labels[block], classes)
        return total


def one_hot(labels: NDArray[np.integer], classes: int) -> Array:
    """Return targets [n, classes], 1 at the label and 0 elsewhere."""
    targets = np.zeros((len(labels), classes))
    targets[np.arange(len(labels)), labels] = 1
    return targets
