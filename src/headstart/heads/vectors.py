"""What a head learns from: the vectors of one or several taps, made ready a block of rows at a time.

Features are kept as fp16; the algebra wants scaled float64, eight times as large with its temporaries. Blocks
keep the memory of a fit to that of the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BLOCK = 500_000  # numbers in a block


@dataclass(frozen=True)
class Vectors:
    """n vectors of d numbers: ``parts`` [n, d_i] side by side, times ``scales`` [d].

    With ``bend`` (matrix [d, h], offset [h]) they are ``relu(x @ matrix + offset)`` of that instead, h numbers.
    """

    parts: tuple[NDArray[np.floating], ...]
    scales: Array
    bend: tuple[Array, Array] | None = None

    @classmethod
    def of(cls, *parts: NDArray[np.floating]) -> Vectors:
        """The arrays [n, d_i] side by side as they are."""
        return cls(parts, np.ones(sum(part.shape[1] for part in parts)))

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        return len(self.scales) if self.bend is None else len(self.bend[1])

    def rows(self, index: slice | NDArray[np.integer]) -> Array:
        """The vectors at ``index`` [..., width], float64."""
        rows: Array = np.concatenate([np.asarray(part[index], np.float64) for part in self.parts], axis=-1)
        rows *= self.scales
        if self.bend is None:
            return rows
        bent: Array = rows.reshape(-1, rows.shape[-1]) @ self.bend[0]
        return np.maximum(bent + self.bend[1], 0).reshape(*rows.shape[:-1], -1)

    def blocks(self) -> Iterator[slice]:
        """Slices that cover all rows, each small enough to be held several times."""
        step = max(64, BLOCK // max(1, self.width, len(self.scales)))
        return (slice(start, min(start + step, len(self))) for start in range(0, len(self), step))

    def moments(self) -> tuple[Array, Array]:
        """The mean [width] of every number, and the mean of its square."""
        total, squares = np.zeros(self.width), np.zeros(self.width)
        for block in self.blocks():
            rows = self.rows(block)
            total += rows.sum(axis=0)
            squares += np.einsum("nd,nd->d", rows, rows)
        return total / len(self), squares / len(self)

    def products(self, targets: NDArray[np.floating]) -> Array:
        """``x.T @ targets`` [width, k] for targets [n, k]."""
        total = np.zeros((self.width, targets.shape[1]))
        for block in self.blocks():
            total += self.rows(block).T @ targets[block]
        return total


def one_hot(labels: NDArray[np.integer], classes: int) -> Array:
    """Targets [n, classes], 1 at the label and 0 elsewhere."""
    targets = np.zeros((len(labels), classes))
    targets[np.arange(len(labels)), labels] = 1
    return targets


__all__: Sequence[str] = ["Vectors", "one_hot"]
