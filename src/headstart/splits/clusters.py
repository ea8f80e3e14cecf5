"""Clusters of images that are alike: where there are too many pairs to compare, an image looks into the nearest ones.

The clusters are those of k-means (Lloyd 1982; searched as an "inverted file", Sivic & Zisserman 2003). Into how many of
them an image has to look depends on the images: it is measured on a sample, of which all pairs are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from headstart.splits.pairs import blocks, spread
from headstart.splits.whole_numbers import LAST, Rows, factor, keys, largest, multiply, to_whole

LIMIT = 100_000  # images; up to here all pairs are compared
CLUSTERS = 8  # times the square root of the number of images: one then costs about what finding it does
IMAGES = 32  # of each cluster, on the average, from which its centre is computed; not all images, from LIMIT on
ROUNDS = 5  # of k-means
FEWEST = 32  # clusters that an image looks into
SHARE = 0.98  # of the near pairs are to be found
MOST = 3  # all are compared where an image would have to look into one of so many clusters
MEASURED = 1_000  # images, whose near pairs are counted
PAIRS = 16  # of each of them, the nearest
BLOCK, COLUMNS = 1_024, 4_096  # images at a time: of those that are compared, and of those they are compared with


@dataclass(frozen=True)
class Clusters:
    """Centres [d, k] of clusters, the places of the ``members`` of each; an image looks into the ``visited`` nearest.

    ``found`` is the share of near pairs that are then compared, measured on a sample; None where it has none.
    """

    centres: NDArray[np.int8]
    members: tuple[Rows, ...]
    visited: int
    found: float | None

    @classmethod
    def of(cls, whole: NDArray[np.int8], near: float) -> Clusters | None:
        """Return the clusters of vectors [n, d] whose pairs of cosine ``near`` or more are to be found.

        None where so many clusters have to be looked into that comparing all takes no longer.
        """
        count = int(CLUSTERS * np.sqrt(len(whole)))
        sample = spread(len(whole), count * IMAGES)
        centres = _centres(whole[sample], count)
        used, cluster = np.unique(_nearest(whole, centres), return_inverse=True)
        centres = np.ascontiguousarray(centres[:, used])  # of images that are all alike most centres have none
        members = np.split(np.argsort(cluster, kind="stable"), np.cumsum(np.bincount(cluster))[:-1])
        # On images that no centre was computed from: of those that it was, more is found.
        measured = np.setdiff1d(np.arange(len(whole)), sample)
        measured = measured[spread(len(measured), MEASURED)]
        # What is nearer to equal than to ``near`` is found anyway. In films it would outvote the rest.
        pairs = _near_pairs(whole, measured, near, (1 + near) / 2)
        pairs = pairs if len(pairs[0]) else _near_pairs(whole, measured, near, np.inf)
        # A pair is found if one of the two looks into the cluster of the other.
        between = np.minimum(*(_clusters_between(whole, both, cluster, centres) for both in (pairs, pairs[::-1])))
        enough = int(np.sort(between)[ceil(SHARE * len(between)) - 1]) + 1 if len(between) else 0
        visited = max(FEWEST, enough)
        if visited > max(FEWEST, len(used) // MOST):
            return None
        found = float(np.mean(between < visited)) if len(between) else None
        return cls(centres, tuple(members), visited, found)

    def own(self, vectors: NDArray[np.int8]) -> Rows:
        """Return the cluster [m] nearest to each of the vectors [m, d]."""
        return _nearest(vectors, self.centres)

    def visits(self, vectors: NDArray[np.int8]) -> NDArray[np.unsignedinteger]:
        """Return the clusters [m, visited] that vectors [m, d] look into, the nearest first."""
        count = self.centres.shape[1]
        visits = np.empty((len(vectors), min(self.visited, count)), np.min_scalar_type(count))
        for block in blocks(len(vectors), BLOCK):
            found = largest(keys(multiply(vectors[block], self.centres), np.arange(count)), self.visited)
            visits[block] = LAST - (found & LAST)
        return visits


def _centres(sample: NDArray[np.int8], count: int) -> NDArray[np.int8]:
    """Return the centres [d, count] of vectors [n, d], by k-means."""
    centres = np.ascontiguousarray(sample[spread(len(sample), count)].T)
    for _ in range(ROUNDS):
        cluster = _nearest(sample, centres)
        used, starts = np.unique(np.sort(cluster), return_index=True)
        members = np.split(np.argsort(cluster, kind="stable"), starts[1:])
        sums = [sample[places].sum(axis=0, dtype=np.float32) for places in members]
        centres[:, used] = to_whole(np.stack(sums)).T
    return centres


def _nearest(whole: NDArray[np.int8], centres: NDArray[np.int8]) -> Rows:
    """Return the nearest of ``centres`` [d, k] of each of the vectors [n, d]."""
    nearest = [multiply(whole[block], centres).argmax(axis=1) for block in blocks(len(whole), BLOCK)]
    return np.concatenate([np.empty(0, np.int64), *nearest])


def _near_pairs(whole: NDArray[np.int8], sample: Rows, least: float, below: float) -> tuple[Rows, Rows]:
    """Return the places of the two images of pairs [m] of a cosine from ``least`` to ``below``.

    They are those of the images of a sample with the PAIRS nearest of all.
    """
    low, high = (cosine * factor(whole.shape[1]) ** 2 for cosine in (least, below))
    best = np.zeros((len(sample), 0), np.int64)
    for block in blocks(len(whole), COLUMNS):
        products = multiply(whole[sample], np.ascontiguousarray(whole[block].T))
        places = np.arange(block.start, block.stop)
        products[(products >= high) | (sample[:, None] == places)] = 0
        best = largest(np.hstack([best, keys(products, places)]), PAIRS)
    is_near = (best >> 32) >= max(low, 1)
    return np.broadcast_to(sample[:, None], best.shape)[is_near], (LAST - (best & LAST))[is_near]


def _clusters_between(
    whole: NDArray[np.int8], pairs: tuple[Rows, Rows], cluster: Rows, centres: NDArray[np.int8]
) -> Rows:
    """Return how many clusters are nearer to the first of each of the ``pairs`` [m] than that of the second one."""
    counts = [np.empty(0, np.int64)]
    for block in blocks(len(pairs[0]), BLOCK):
        first, second = (places[block] for places in pairs)
        products = multiply(whole[first], centres)
        counts.append((products > np.take_along_axis(products, cluster[second][:, None], axis=1)).sum(axis=1))
    return np.concatenate(counts)
