"""Pairs of images, a block at a time: sets of linked images, edges between them, and spanning forests of edges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from headstart.heads.integers import AnyVectors

TILE = 1_100  # images compared with as many others at a time
MAX_EDGES = 1_000_000  # edges held before those outside the spanning forest are dropped


class DisjointSets:
    """Disjoint sets of the images 0..count-1, each alone at first (union-find; Tarjan 1975)."""

    def __init__(self, count: int) -> None:
        self.parent = np.arange(count)

    def find(self, image: int) -> int:
        """Return the image that represents the set of ``image``: the lowest of the set."""
        parent = self.parent
        while parent[image] != image:
            parent[image] = parent[parent[image]]
            image = int(parent[image])
        return image

    def union(self, first: int, second: int) -> None:
        """Merge the sets of two images."""
        a, b = self.find(first), self.find(second)
        self.parent[max(a, b)] = min(a, b)

    def union_equal_rows(self, rows: NDArray[np.generic]) -> NDArray[np.int64]:
        """Merge the sets of images whose ``rows`` [n, d] are equal. Return a number [n] for each distinct row."""
        ids: NDArray[np.int64] = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        for first, second in pairwise(np.argsort(ids, kind="stable")):
            if ids[first] == ids[second]:
                self.union(int(first), int(second))
        return ids

    def labels(self) -> NDArray[np.int64]:
        """Return the set [n] of each image, numbered from 0."""
        roots = [self.find(i) for i in range(len(self.parent))]
        ids: NDArray[np.int64] = np.unique(roots, return_inverse=True)[1].reshape(-1)
        return ids


def spanning_forest(parts: Iterable[NDArray[np.float64]], count: int) -> NDArray[np.float64]:
    """Return a maximum spanning forest of the edges in ``parts``, of which few are in memory at a time."""
    edges = [np.empty((0, 3))]
    pending = 0
    for block in parts:
        edges.append(block)
        pending += len(block)
        if pending > MAX_EDGES:
            edges = [maximum_spanning_forest(np.concatenate(edges), count)]
            pending = 0
    return maximum_spanning_forest(np.concatenate(edges), count)


def maximum_spanning_forest(edges: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return those of the edges (first, second, weight) [m, 3] that form a maximum spanning forest of ``count`` nodes.

    Borůvka's algorithm (1926): in every round each tree takes its strongest edge to another tree, until there is none.
    SciPy has a faster one, but importing it takes longer than all other work on the groups of a thousand images.
    """
    edges = edges[np.argsort(-edges[:, 2], kind="stable")]
    nodes = edges[:, :2].astype(np.int64)
    in_forest = np.zeros(len(edges), bool)
    remaining = np.arange(len(edges))
    tree = np.arange(count)  # of each node
    while True:
        remaining = remaining[tree[nodes[remaining, 0]] != tree[nodes[remaining, 1]]]
        if not len(remaining):
            return edges[in_forest]
        ends = tree[nodes[remaining]]
        # Edges are sorted, and of several values assigned to one position the last one stays. So in reverse order each
        # tree is left with its strongest edge.
        strongest = np.full(count, -1)
        strongest[ends[::-1].ravel()] = np.repeat(np.arange(len(remaining))[::-1], 2)
        trees = np.flatnonzero(strongest >= 0)
        selected = strongest[trees]
        in_forest[remaining[selected]] = True
        parent = np.arange(count)
        parent[trees] = ends[selected].sum(axis=1) - trees  # the tree at the other end
        is_mutual = parent[parent] == np.arange(count)  # two trees took the same edge: the lower number is the root
        parent[is_mutual] = np.minimum(parent[is_mutual], np.flatnonzero(is_mutual))
        while (parent != parent[parent]).any():
            parent = parent[parent]
        tree = parent[tree]


def blocks(count: int, tile: int) -> list[slice]:
    """Return slices of at most ``tile`` of ``count`` images, one after the other."""
    return [slice(start, min(start + tile, count)) for start in range(0, count, tile)]


def spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Return at most ``wanted`` of the numbers below ``count``, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))


def tiles(count: int, tile: int) -> Iterator[tuple[slice, slice]]:
    """Return pairs of slices that together contain every pair of ``count`` images."""
    slices = blocks(count, tile)
    return ((first, second) for i, first in enumerate(slices) for second in slices[i:])


def edges_above(similarity: NDArray[np.floating], threshold: float, first: slice, second: slice) -> NDArray[np.float64]:
    """Return edges (first, second, similarity) [m, 3] of the pairs of images of two slices, each pair only once."""
    rows, columns = np.nonzero(similarity >= threshold)
    is_upper = columns + second.start > rows + first.start
    rows, columns = rows[is_upper], columns[is_upper]
    return np.stack([rows + first.start, columns + second.start, similarity[rows, columns]], axis=1)


def mean_vector(features: AnyVectors, tile: int) -> NDArray[np.float64]:
    """Return the mean vector [d], summed a block at a time: a copy in float64 would cost memory."""
    total = np.zeros(features.shape[1])
    for block in blocks(len(features), tile):
        total += features[block].sum(axis=0, dtype=np.float64)
    return total / max(1, len(features))


def unit_vectors(features: NDArray[np.floating], mean: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the vectors [n, d] less ``mean``, of length 1."""
    vectors = features.astype(np.float32)
    vectors -= mean.astype(np.float32)
    vectors /= np.maximum(np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None], np.float32(1e-12))
    return vectors
