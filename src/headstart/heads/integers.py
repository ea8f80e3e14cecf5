"""Vectors as whole numbers: each number is rounded once, to int16 on the step of its channel, a power of two.

So that sums over images are exact. A product of two of the numbers is below 2^30, and a sum of up to 2^23 of them below
2^53, where float64 holds every whole number: whatever the order of the rows, the size of a block and the BLAS, the sums
are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LIMIT = 32_767  # in absolute value; stands for everything from there on
BLOCK = 4096  # rows that are looked at at a time


@dataclass(frozen=True)
class IntegerVectors:
    """n vectors: ``integers`` [n, d] int16 times the steps ``2.0**exponents`` [d]; ``exponents`` int8 or wider.

    Read by rows, ``vectors[rows]``, it gives the numbers as float32, which holds all of them exactly; so do NumPy's
    functions, which take it as an array of those.
    """

    integers: NDArray[np.int16]
    exponents: NDArray[np.integer]

    @property
    def steps(self) -> NDArray[np.float32]:
        """The step [d] of each channel."""
        steps: NDArray[np.float32] = np.ldexp(np.float32(1), self.exponents.astype(np.int32))
        return steps

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        return self.integers.shape

    def __len__(self) -> int:
        return len(self.integers)

    def __getitem__(self, rows: slice | NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self.integers[rows] * self.steps
        return values

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> NDArray[np.floating]:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)


AnyVectors = NDArray[np.floating] | IntegerVectors


def round_to_steps(values: NDArray[np.floating], exponents: NDArray[np.integer]) -> NDArray[np.int16]:
    """Return finite values [..., d] as whole numbers int16 of the steps ``2.0**exponents`` [d].

    To the nearest, the even one of two as near. What is beyond the range becomes LIMIT or -LIMIT.
    """
    scaled = np.rint(np.ldexp(np.asarray(values, np.float64), -exponents.astype(np.int32)))
    return np.clip(scaled, -LIMIT, LIMIT).astype(np.int16)


def take_rows(vectors: AnyVectors, rows: slice | NDArray[np.integer] | NDArray[np.bool_]) -> AnyVectors:
    """Return the vectors at ``rows``, of the same kind; no copy for a slice."""
    if isinstance(vectors, IntegerVectors):
        return IntegerVectors(vectors.integers[rows], vectors.exponents)
    return vectors[rows]


def stack_rows(parts: Sequence[AnyVectors]) -> AnyVectors:
    """Put vectors below one another; whole numbers stay so where the steps of all are the same."""
    whole = [part for part in parts if isinstance(part, IntegerVectors)]
    if len(whole) == len(parts) and all(np.array_equal(part.exponents, whole[0].exponents) for part in whole):
        return IntegerVectors(np.concatenate([part.integers for part in whole]), whole[0].exponents)
    return np.concatenate([part[:] for part in parts])


def beyond_range(vectors: IntegerVectors) -> int:
    """Return how many numbers are at the end of the range: those that were cut off."""
    count = 0
    for start in range(0, len(vectors), BLOCK):
        block = vectors.integers[start : start + BLOCK]
        if int(block.max(initial=0)) >= LIMIT or int(block.min(initial=0)) <= -LIMIT:
            count += int(np.count_nonzero((block >= LIMIT) | (block <= -LIMIT)))
    return count


def deviations_in_steps(vectors: IntegerVectors) -> NDArray[np.float64]:
    """Return the standard deviation [d] of each channel in steps; 0 for no vectors."""
    count, width = vectors.shape
    total, squares = np.zeros(width), np.zeros(width)
    for start in range(0, count, BLOCK):
        block = vectors.integers[start : start + BLOCK].astype(np.float64)
        total += block.sum(axis=0)
        squares += np.einsum("nd,nd->d", block, block)
    mean = total / max(1, count)
    return np.sqrt(np.maximum(squares / max(1, count) - mean**2, 0))
