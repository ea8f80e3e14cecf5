"""Cells of images that are alike: where there are too many pairs to compare, each image looks into the nearest cells.

The cells are those of k-means (Lloyd 1982; as "inverted file" in Sivic & Zisserman 2003). Into how many of them an
image has to look depends on the images: it is measured on a sample, of which all pairs are compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.splits.pairs import blocks, spread
from headstart.splits.whole_numbers import LAST, Rows, factor, keys, largest, multiply, to_whole

LIMIT = 100_000  # images; up to here all pairs are compared
CELLS = 8  # times the square root of the number of images: a cell then costs about what finding it does
IMAGES = 32  # of each cell, on the average, from which its centre is computed; not all images, from LIMIT on
ROUNDS = 5  # of k-means
FEWEST = 32  # cells that an image looks into
SHARE = 0.99  # of the near pairs must be found
MOST = 3  # all are compared where an image would have to look into one of so many cells
MEASURED = 1_000  # images, whose near pairs are counted
PAIRS = 16  # of each of them, the nearest
BLOCK, COLUMNS = 1_024, 4_096  # images at a time: of those that are compared, and of those they are compared with


@dataclass(frozen=True)
class Cells:
    """Centres [d, k] of cells, and the places of the ``members`` of each; an image looks into the ``visited`` nearest.

    ``found`` is the share of near pairs that are then compared, measured on a sample; None where it has none.
    """

    centres: NDArray[np.int8]
    members: tuple[Rows, ...]
    visited: int
    found: float | None

    @classmethod
    def of(cls, whole: NDArray[np.int8], near: float) -> Cells | None:
        """Return the cells of vectors [n, d] whose pairs of cosine ``near`` or more are to be found.

        None where so many cells have to be looked into that comparing all takes no longer.
        """
        count = int(CELLS * np.sqrt(len(whole)))
        sample = spread(len(whole), count * IMAGES)
        centres = _centres(whole[sample], count)
        cell = _nearest(whole, centres)
        members = np.split(np.argsort(cell, kind="stable"), np.cumsum(np.bincount(cell, minlength=centres.shape[1])))
        # On images that no centre was computed from: of those that it was, more is found.
        measured = np.setdiff1d(np.arange(len(whole)), sample)
        pairs = _near_pairs(whole, measured[spread(len(measured), MEASURED)], near)
        # A pair is found if one of the two looks into the cell of the other.
        between = np.minimum(*(_cells_between(whole, both, cell, centres) for both in (pairs, pairs[::-1])))
        visited = FEWEST
        while len(between) and np.mean(between < visited) < SHARE:
            visited *= 2
        if visited > count // MOST:
            return None
        found = float(np.mean(between < visited)) if len(between) else None
        return cls(centres, tuple(members[:-1]), visited, found)

    def visits(self, vectors: NDArray[np.int8]) -> NDArray[np.unsignedinteger]:
        """Return the cells [m, visited] that vectors [m, d] look into, the nearest first."""
        count = self.centres.shape[1]
        found = largest(keys(multiply(vectors, self.centres), np.arange(count)), self.visited)
        visits: NDArray[np.unsignedinteger] = (LAST - (found & LAST)).astype(np.min_scalar_type(count))
        return visits


def _centres(sample: NDArray[np.int8], count: int) -> NDArray[np.int8]:
    """Return the centres [d, count] of vectors [n, d], by k-means."""
    centres = np.ascontiguousarray(sample[spread(len(sample), count)].T)
    for _ in range(ROUNDS):
        cell = _nearest(sample, centres)
        used, starts = np.unique(np.sort(cell), return_index=True)
        members = np.split(np.argsort(cell, kind="stable"), starts[1:])
        sums = [sample[places].sum(axis=0, dtype=np.float32) for places in members]
        centres[:, used] = to_whole(np.stack(sums)).T
    return centres


def _nearest(whole: NDArray[np.int8], centres: NDArray[np.int8]) -> Rows:
    """Return the nearest of ``centres`` [d, k] of each of the vectors [n, d]."""
    return np.concatenate([multiply(whole[block], centres).argmax(axis=1) for block in blocks(len(whole), BLOCK)])


def _near_pairs(whole: NDArray[np.int8], sample: Rows, near: float) -> tuple[Rows, Rows]:
    """Return the places of the two images of near pairs [m]: of the images of a sample, with the nearest of all."""
    best = np.zeros((len(sample), 0), np.int64)
    for block in blocks(len(whole), COLUMNS):
        products = multiply(whole[sample], np.ascontiguousarray(whole[block].T))
        best = largest(np.hstack([best, keys(products, np.arange(block.start, block.stop))]), PAIRS + 1)
    first, second = np.repeat(sample, best.shape[1]), (LAST - (best & LAST)).ravel()
    is_near = (first != second) & ((best >> 32).ravel() >= near * factor(whole.shape[1]) ** 2)
    return first[is_near], second[is_near]


def _cells_between(whole: NDArray[np.int8], pairs: tuple[Rows, Rows], cell: Rows, centres: NDArray[np.int8]) -> Rows:
    """Return how many cells are nearer to the first image of each of the ``pairs`` [m] than that of the second one."""
    counts = [np.empty(0, np.int64)]
    for block in blocks(len(pairs[0]), BLOCK):
        first, second = (places[block] for places in pairs)
        products = multiply(whole[first], centres)
        counts.append((products > np.take_along_axis(products, cell[second][:, None], axis=1)).sum(axis=1))
    return np.concatenate(counts)
