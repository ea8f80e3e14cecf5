"""Vectors: those of one or several taps side by side, prepared a block of rows at a time.

Features are kept as int16; the algebra needs scaled float64, which takes eight times as much memory with its temporary
arrays. Reading by blocks keeps the memory of a fit to that of the features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headstart.heads.integers import AnyVectors, IntegerVectors
from headstart.heads.statistics import class_sums

Array = NDArray[np.float64]
BLOCK_SIZE = 500_000  # numbers in a block
# Of whole numbers below 2^16, whose products summed over so many rows and one block more are below 2^53.
EXACT_ROWS = 2**20


@dataclass(frozen=True)
class Vectors:
    """n vectors of d numbers: ``parts`` [n, d_i] side by side, times ``scales`` [d].

    Where all parts are whole numbers of a step, moments, scatter and class sums are functions of exact sums: the same
    for any order of the rows, size of a block and BLAS.
    """

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

    @cached_property
    def is_integer(self) -> bool:
        """Whether all numbers are whole numbers of a step, so that sums of them are exact."""
        return all(isinstance(part, IntegerVectors) for part in self.parts)

    @cached_property
    def factors(self) -> Array:
        """What ``numbers`` are multiplied by [width]: ``scales``, times the steps of whole numbers."""
        steps = [part.steps if isinstance(part, IntegerVectors) else np.ones(part.shape[1]) for part in self.parts]
        factors: Array = self.scales * np.concatenate(steps, dtype=np.float64)
        return factors

    def numbers(self, index: slice | NDArray[np.integer]) -> Array:
        """Return the numbers at ``index`` [..., width], float64, before they are multiplied by ``factors``."""
        arrays = [part.integers if isinstance(part, IntegerVectors) else part for part in self.parts]
        return np.concatenate([np.asarray(array[index], np.float64) for array in arrays], axis=-1)

    def rows(self, index: slice | NDArray[np.integer]) -> Array:
        """Return the vectors at ``index`` [..., width], float64."""
        rows = self.numbers(index)
        rows *= self.factors
        return rows

    def blocks(self) -> Iterator[slice]:
        """Yield slices that cover all rows, each small enough for several arrays of its size."""
        step = max(64, self.block_size // max(1, self.width))
        return (slice(start, min(start + step, len(self))) for start in range(0, len(self), step))

    def moments(self) -> tuple[Array, Array]:
        """Compute the mean of every number and the mean of its square, both [width]."""

        def of_block(block: slice) -> Array:
            numbers = self.numbers(block)
            return np.stack([numbers.sum(axis=0), np.einsum("nd,nd->d", numbers, numbers)])

        total, squares = self._sum(of_block, 2, self.width)
        return total / len(self) * self.factors, squares / len(self) * self.factors**2

    def scatter(self, mean: Array) -> Array:
        """Compute the scatter matrix [width, width]: the sum of the outer products of the vectors less ``mean``.

        Whole numbers are centred by whole numbers, below 2^16, so that their products are exact, and what is left of
        the mean, at most half a step, is subtracted from the sum.
        """
        centre = np.divide(mean, self.factors, out=np.zeros(self.width), where=self.factors != 0)
        shift = np.rint(centre) if self.is_integer else centre

        def of_block(block: slice) -> Array:
            centred = self.numbers(block) - shift
            product: Array = centred.T @ centred
            return product

        scatter = self._sum(of_block, self.width, self.width)
        if self.is_integer:
            scatter -= np.outer(len(self) * (centre - shift), centre - shift)
        scatter *= self.factors
        scatter *= self.factors[:, None]
        return scatter

    def products(self, targets: NDArray[np.floating]) -> Array:
        """Compute ``x.T @ targets`` [width, k] for targets [n, k]."""
        total = np.zeros((self.width, targets.shape[1]))
        for block in self.blocks():
            total += self.rows(block).T @ targets[block]
        return total

    def class_sums(self, labels: NDArray[np.integer], classes: int) -> Array:
        """Sum the vectors of each class, [classes, width]."""

        def of_block(block: slice) -> Array:
            return class_sums(self.numbers(block), labels[block], classes)

        return self._sum(of_block, classes, self.width) * self.factors

    def _sum(self, of_block: Callable[[slice], Array], *shape: int) -> Array:
        """Add up what ``of_block`` gives for all blocks; of whole numbers exactly, in int64 beyond EXACT_ROWS rows."""
        total, part, rows = np.zeros(shape, np.int64), np.zeros(shape), 0
        for block in self.blocks():
            if self.is_integer and rows >= EXACT_ROWS:
                total += part.astype(np.int64)
                part, rows = np.zeros(shape), 0
            part += of_block(block)
            rows += block.stop - block.start
        if not self.is_integer or rows == len(self):  # then ``total`` takes no memory
            return part
        total += part.astype(np.int64)
        return total.astype(np.float64)


def one_hot(labels: NDArray[np.integer], classes: int) -> Array:
    """Return targets [n, classes], 1 at the label and 0 elsewhere."""
    targets = np.zeros((len(labels), classes))
    targets[np.arange(len(labels)), labels] = 1
    return targets
