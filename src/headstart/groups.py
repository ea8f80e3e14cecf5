"""Groups of pictures that are not independent: copies, near duplicates, frames of one scene.

Leaving out one picture while its twin stays in tests memory. Groups are found from three signs, each a link
between two pictures; linked pictures form one group:

1. the same bytes;
2. the same picture seen small: 16 x 16 pixels that correlate almost perfectly, mirrored or not;
3. the same scene: deep features whose centred cosine is above a threshold that the data choose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SAME_PIXELS = 0.98  # correlation of 16 x 16 pixels; re-encoding and resizing keep it above 0.99
THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
LARGEST = 0.1  # a group from features alone holds at most this share of all pictures
TILE = 1_100  # pictures compared with as many others at a time
EDGES = 1_000_000  # links held before those that the forest does not need are dropped


@dataclass(frozen=True)
class Groups:
    """``index`` [n] numbers each picture's group from 0; how many there are, how large, and how they were found."""

    index: NDArray[np.int64]
    count: int
    largest: int
    method: str


def no_groups(count: int) -> Groups:
    """Every picture by itself."""
    return Groups(np.arange(count), count, 1, "none")


def groups_from_column(names: list[str]) -> Groups:
    """Pictures with the same name [n] together."""
    return _groups(np.unique(np.array(names), return_inverse=True)[1], "column")


def find_groups(
    content: NDArray[np.uint8],
    pixels: NDArray[np.uint8],
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
) -> Groups:
    """Groups of n pictures.

    ``content`` [n, 32] are hashes of the files, ``pixels`` [n, 768] 16 x 16 RGB, ``features`` [n, d] the
    vectors of the deepest tap, ``labels`` [n] the classes. The lowest threshold on features is taken at which
    no group swallows a tenth of the pictures or more than half of a class: too large a group costs a little
    data, too small a one costs the truth. All pairs are compared, a tile at a time.
    """
    parent = np.arange(len(content))
    _, same = np.unique(content, axis=0, return_inverse=True)
    order = np.argsort(same, kind="stable")
    for first, second in pairwise(order):
        if same[first] == same[second]:
            _union(parent, int(first), int(second))
    for first, second in _pixel_links(pixels):
        _union(parent, first, second)
    links = _feature_links(features)
    at_most = max(2.0, LARGEST * len(content))
    half = np.maximum(1, np.bincount(labels) // 2)
    for threshold in THRESHOLDS:
        trial = parent.copy()
        for first, second, _ in links[links[:, 2] >= threshold]:
            _union(trial, int(first), int(second))
        found = _groups(_roots(trial), f"pixels and features (cosine {threshold:g})")
        if found.largest <= at_most and _keeps_classes(found.index, labels, half):
            return found
    return _groups(_roots(parent), "pixels")


def _keeps_classes(index: NDArray[np.int64], labels: NDArray[np.integer], half: NDArray[np.integer]) -> bool:
    pairs, counts = np.unique(np.stack([index, labels]), axis=1, return_counts=True)
    return bool((counts <= half[pairs[1]]).all())


def _tiles(count: int) -> Iterator[tuple[slice, slice]]:
    """Pairs of slices that bring every two of ``count`` pictures together once."""
    slices = [slice(start, min(start + TILE, count)) for start in range(0, count, TILE)]
    return ((first, second) for i, first in enumerate(slices) for second in slices[i:])


def _pairs(first: slice, second: slice, alike: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where ``alike`` [m, n] holds for pictures of the two slices, each pair once."""
    rows, columns = np.nonzero(alike)
    ahead = columns + second.start > rows + first.start
    return rows[ahead], columns[ahead]


def _pixel_links(pixels: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Pairs whose small pictures, as they are or mirrored, correlate at least SAME_PIXELS."""
    small = pixels.reshape(len(pixels), 16, 16, 3)
    found = []
    for first, second in _tiles(len(small)):
        others = _unit(small[second]).T
        alike = np.maximum(_unit(small[first]) @ others, _unit(small[first, :, ::-1]) @ others)
        rows, columns = _pairs(first, second, alike >= SAME_PIXELS)
        found += list(zip((rows + first.start).tolist(), (columns + second.start).tolist(), strict=True))
    return found


def _unit(small: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = small.reshape(len(small), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # An almost even picture (a placeholder, a black frame) correlates with nothing: its pattern is noise.
    unit: NDArray[np.float32] = np.where(length > 30, flat / np.maximum(length, 1), 0)
    return unit


def _feature_links(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Edges (first, second, cosine) [m, 3] of a maximum spanning forest above the lowest threshold.

    Single linkage at any threshold needs only the forest (Gower & Ross 1969), so no more is kept.
    """
    slices = [first for first, second in _tiles(len(features)) if first == second]
    mean = sum(features[block].sum(axis=0, dtype=np.float64) for block in slices) / max(1, len(features))

    def directions(block: slice) -> NDArray[np.float32]:
        x: NDArray[np.float32] = (features[block] - mean).astype(np.float32)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return x

    found, waiting = [np.empty((0, 3))], 0
    for first, second in _tiles(len(features)):
        cosine = directions(first) @ directions(second).T
        rows, columns = _pairs(first, second, cosine >= THRESHOLDS[0])
        edges = (rows + first.start, columns + second.start, cosine[rows, columns])
        found.append(np.stack(edges, axis=1).astype(np.float64))
        waiting += len(rows)
        if waiting > EDGES:
            found, waiting = [_forest(np.concatenate(found), len(features))], 0
    return _forest(np.concatenate(found), len(features))


def _forest(edges: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    shape = (count, count)
    first, second = edges[:, 0].astype(np.int64), edges[:, 1].astype(np.int64)
    tree = minimum_spanning_tree(coo_array((-edges[:, 2], (first, second)), shape=shape).tocsr()).tocoo()
    return np.stack([tree.row, tree.col, -tree.data], axis=1)


def _union(parent: NDArray[np.int64], first: int, second: int) -> None:
    a, b = _root(parent, first), _root(parent, second)
    parent[max(a, b)] = min(a, b)


def _root(parent: NDArray[np.int64], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = int(parent[node])
    return node


def _roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array([_root(parent, i) for i in range(len(parent))])


def _groups(names: NDArray[np.integer], method: str) -> Groups:
    _, index, sizes = np.unique(names, return_inverse=True, return_counts=True)
    return Groups(index.astype(np.int64), len(sizes), int(sizes.max(initial=0)), method)
