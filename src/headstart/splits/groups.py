"""Groups of pictures that are not independent: copies, near duplicates, frames of one scene.

Leaving out one picture while its twin stays in tests memory. Groups are found from three signs, each a link
between two pictures; linked pictures form one group:

1. the same bytes;
2. the same picture seen small: 16 x 16 pixels that correlate almost perfectly, mirrored or not;
3. the same scene: deep features whose centred cosine is above a threshold, the strongest first, until a group is full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SAME_PIXELS = 0.98  # correlation of 16 x 16 pixels; re-encoding and resizing keep it above 0.99
ALIKE = 0.6  # centred cosine of deep features
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

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form, without the index."""
        return {"count": self.count, "largest": self.largest, "method": self.method}


class DisjointSets:
    """Pictures 0..count-1 and the links between them; linked ones form a family (union-find, Tarjan 1975)."""

    def __init__(self, count: int) -> None:
        self.parent = np.arange(count)

    def union(self, first: int, second: int) -> None:
        """Link two pictures."""
        a, b = self.find(first), self.find(second)
        self.parent[max(a, b)] = min(a, b)

    def union_equal_rows(self, rows: NDArray[np.generic]) -> NDArray[np.int64]:
        """Link pictures whose rows [n, d] are equal; a number [n] for each distinct row."""
        same: NDArray[np.int64] = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        for first, second in pairwise(np.argsort(same, kind="stable")):
            if same[first] == same[second]:
                self.union(int(first), int(second))
        return same

    def labels(self) -> NDArray[np.int64]:
        """The family [n] of each picture, numbered from 0."""
        roots = [self.find(i) for i in range(len(self.parent))]
        families: NDArray[np.int64] = np.unique(roots, return_inverse=True)[1].reshape(-1)
        return families

    def find(self, node: int) -> int:
        """The picture that stands for the family of ``node``."""
        parent = self.parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = int(parent[node])
        return node


def ungrouped(count: int) -> Groups:
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
    vectors of the deepest tap, ``labels`` [n] the classes. The strongest links on features come first, and one
    that would make a group of more than a tenth of the pictures, or of more than half of a class, is passed
    over: too large a group costs a little data, too small a one costs the truth. All pairs are compared, a tile
    at a time.
    """
    linked = DisjointSets(len(content))
    linked.union_equal_rows(content)
    for first, second, _ in duplicate_pairs(pixels):
        linked.union(first, second)
    _join_scenes(linked, _feature_links(features), labels)
    return _groups(linked.labels(), f"pixels and features (cosine {ALIKE:g})")


def _join_scenes(linked: DisjointSets, links: NDArray[np.float64], labels: NDArray[np.integer]) -> None:
    """Join the ends of links (first, second, cosine), the strongest first, where the group stays small enough."""
    at_most = max(2, int(LARGEST * len(labels)))
    half = np.maximum(1, np.bincount(labels) // 2).tolist()
    classes: list[int] = labels.tolist()
    held: dict[int, Counter[int]] = {}  # of each family of several pictures, how many of each class

    def members(root: int) -> Counter[int]:
        return held.get(root) or Counter([classes[root]])

    for picture, label in enumerate(classes):
        if (root := linked.find(picture)) != picture:
            held[root] = members(root) + Counter([label])
    for first, second in links[np.argsort(-links[:, 2], kind="stable"), :2].astype(int).tolist():
        a, b = linked.find(first), linked.find(second)
        if a == b:
            continue
        both = members(a) + members(b)
        if both.total() <= at_most and all(count <= half[label] for label, count in both.items()):
            linked.union(a, b)
            held[linked.find(a)] = both


def _tiles(count: int) -> Iterator[tuple[slice, slice]]:
    """Pairs of slices that bring every two of ``count`` pictures together once."""
    slices = [slice(start, min(start + TILE, count)) for start in range(0, count, TILE)]
    return ((first, second) for i, first in enumerate(slices) for second in slices[i:])


def _pairs(first: slice, second: slice, alike: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where ``alike`` [m, n] holds for pictures of the two slices, each pair once."""
    rows, columns = np.nonzero(alike)
    ahead = columns + second.start > rows + first.start
    return rows[ahead], columns[ahead]


def duplicate_pairs(pixels: NDArray[np.uint8]) -> list[tuple[int, int, float]]:
    """Pairs whose small pictures [n, 768], as they are or mirrored, correlate at least SAME_PIXELS, and how much."""
    small = pixels.reshape(len(pixels), 16, 16, 3)
    found = []
    for first, second in _tiles(len(small)):
        others = _unit(small[second]).T
        alike = np.maximum(_unit(small[first]) @ others, _unit(small[first, :, ::-1]) @ others)
        rows, columns = _pairs(first, second, alike >= SAME_PIXELS)
        places = ((rows + first.start).tolist(), (columns + second.start).tolist(), alike[rows, columns].tolist())
        found += list(zip(*places, strict=True))
    return found


def duplicates_between(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Which small pictures of ``second`` [m, 768] are copies, mirrored or not, of one of ``first`` [n, 768]: places."""
    small, found = first.reshape(len(first), 16, 16, 3), np.zeros(len(second), bool)
    for ours in (slice(start, start + TILE) for start in range(0, len(second), TILE)):
        others = _unit(second[ours].reshape(-1, 16, 16, 3)).T
        for theirs in (slice(start, start + TILE) for start in range(0, len(first), TILE)):
            for seen in (small[theirs], small[theirs, :, ::-1]):
                found[ours] |= (_unit(seen) @ others >= SAME_PIXELS).any(axis=0)
    return np.flatnonzero(found)


def _unit(small: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = small.reshape(len(small), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # An almost even picture (a placeholder, a black frame) correlates with nothing: its pattern is noise.
    unit: NDArray[np.float32] = np.where(length > 30, flat / np.maximum(length, 1), 0)
    return unit


def _feature_links(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Edges (first, second, cosine) [m, 3] of a maximum spanning forest above the threshold.

    Single linkage needs only the forest (Gower & Ross 1969), so no more is kept.
    """
    directions = _directions(features)
    found, waiting = [np.empty((0, 3))], 0
    for first, second in _tiles(len(features)):
        cosine = directions(first) @ directions(second).T
        rows, columns = _pairs(first, second, cosine >= ALIKE)
        edges = (rows + first.start, columns + second.start, cosine[rows, columns])
        found.append(np.stack(edges, axis=1).astype(np.float64))
        waiting += len(rows)
        if waiting > EDGES:
            found, waiting = [_forest(np.concatenate(found), len(features))], 0
    return _forest(np.concatenate(found), len(features))


def _directions(features: NDArray[np.floating], centred: bool = True) -> Callable[[slice], NDArray[np.float32]]:
    """Gives the vectors of a slice less the mean of all, of length 1, as they are asked for: a copy costs memory."""
    slices = [first for first, second in _tiles(len(features)) if first == second]
    mean = sum(features[block].sum(axis=0, dtype=np.float64) for block in slices) / max(1, len(features)) * centred

    def directions(block: slice) -> NDArray[np.float32]:
        x: NDArray[np.float32] = (features[block] - mean).astype(np.float32)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return x

    return directions


def nearest_neighbours(
    features: NDArray[np.floating], families: NDArray[np.integer], count: int, *, centred: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``count`` nearest pictures of other families, by cosine of vectors [n, d], less their mean or not.

    Nearest first: their places [n, count] and cosines [n, count]; -1 and -1 where there are not so many.
    """
    directions, total = _directions(features, centred), len(features)
    places, cosines = np.full((total, count), -1), np.full((total, count), -1, np.float32)
    slices = [first for first, second in _tiles(total) if first == second]
    for own in slices:
        for other in slices:
            alike = directions(own) @ directions(other).T
            alike[families[own][:, None] == families[other][None, :]] = -2
            best = np.argpartition(-alike, min(count, alike.shape[1]) - 1, axis=1)[:, :count]
            both = np.hstack([cosines[own], np.take_along_axis(alike, best, axis=1)])
            which = np.hstack([places[own], best + other.start])
            best = np.argsort(-both, axis=1, kind="stable")[:, :count]
            cosines[own], places[own] = (np.take_along_axis(each, best, axis=1) for each in (both, which))
    places[cosines < -1] = -1
    return places, np.maximum(cosines, -1)


def _forest(edges: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Those of the edges (first, second, cosine) [m, 3] that make a maximum spanning forest of ``count`` nodes.

    Borůvka's algorithm (1926): in every round each tree takes its strongest edge to another, until none is left. SciPy
    has one, but importing that takes longer than all else that is done with the groups of a thousand pictures.
    """
    edges = edges[np.argsort(-edges[:, 2], kind="stable")]
    nodes, tree, kept = edges[:, :2].astype(np.int64), np.arange(count), np.zeros(len(edges), bool)
    places = np.arange(len(edges))
    while True:
        places = places[tree[nodes[places, 0]] != tree[nodes[places, 1]]]
        if not len(places):
            return edges[kept]
        ends, strongest = tree[nodes[places]], np.full(count, -1)
        # Edges are in order, and of several values written to one place the last stays: a tree's first edge.
        strongest[ends[::-1].ravel()] = np.repeat(np.arange(len(places))[::-1], 2)
        trees = np.flatnonzero(strongest >= 0)
        best = strongest[trees]
        kept[places[best]] = True
        parent = np.arange(count)
        parent[trees] = ends[best].sum(axis=1) - trees  # the tree at the other end
        both = parent[parent] == np.arange(count)  # two that chose the same edge: the lower number leads
        parent[both] = np.minimum(parent[both], np.flatnonzero(both))
        while (parent != parent[parent]).any():
            parent = parent[parent]
        tree = parent[tree]


def _groups(names: NDArray[np.integer], method: str) -> Groups:
    _, index, sizes = np.unique(names, return_inverse=True, return_counts=True)
    return Groups(index.astype(np.int64), len(sizes), int(sizes.max(initial=0)), method)
