"""Groups of images that are not independent: duplicates, near duplicates, and images of one scene.

An accuracy is too high if it is measured on an image whose near duplicate was used for training. Two images are linked
if any of these holds, and images that are linked, directly or through others, form one group:

1. their files are identical;
2. their 16 x 16 pixels correlate almost perfectly, mirrored or not;
3. they show one scene: the centred cosine similarity of their deep features is above a threshold. These links are
   followed from the most similar pair on, until a group is full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

DUPLICATE_CORRELATION = 0.98  # of 16 x 16 pixels; re-encoding and resizing keep it above 0.99
MIN_CONTRAST = 30.0  # norm of 768 centred pixel values; below it an image is a plain area with noise
SCENE_COSINE = 0.6  # centred cosine similarity of deep features
MAX_SCENE_SHARE = 0.1  # a group that is linked by features holds at most this share of all images
TILE = 1_100  # images compared with as many others at a time
MAX_EDGES = 1_000_000  # edges held before those outside the spanning forest are dropped


@dataclass(frozen=True)
class Groups:
    """The group [n] of each image, numbered from 0; the number of groups, the largest size, and how they were found."""

    index: NDArray[np.int64]
    count: int
    largest: int
    method: str

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form, without the index."""
        return {"count": self.count, "largest": self.largest, "method": self.method}


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


def ungrouped(count: int) -> Groups:
    """Return groups of one image each."""
    return Groups(np.arange(count), count, 1, "none")


def groups_from_column(names: list[str]) -> Groups:
    """Return groups of the images that have the same name in ``names`` [n]."""
    return _to_groups(np.unique(np.array(names), return_inverse=True)[1], "column")


def find_groups(
    content_hashes: NDArray[np.uint8],
    tiny_images: NDArray[np.uint8],
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    tile: int = TILE,
) -> Groups:
    """Find the groups of n images.

    ``content_hashes`` [n, 32] are SHA-256 of the files, ``tiny_images`` [n, 768] 16 x 16 RGB pixels, ``features``
    [n, d] the vectors of the deepest tap, ``labels`` [n] the classes. A link by features is skipped if it would make a
    group of more than a tenth of the images or of more than half of a class. Groups that are too large cost a little
    data; groups that are too small make the measured accuracy too high. All pairs are compared, ``tile`` x ``tile`` at
    a time.
    """
    sets = DisjointSets(len(content_hashes))
    sets.union_equal_rows(content_hashes)
    for first, second in duplicate_pairs(tiny_images, tile)[:, :2].astype(int).tolist():
        sets.union(first, second)
    _merge_scenes(sets, _scene_edges(features, tile), labels)
    return _to_groups(sets.labels(), f"pixels and features (cosine {SCENE_COSINE:g})")


def duplicate_pairs(tiny_images: NDArray[np.uint8], tile: int = TILE) -> NDArray[np.float64]:
    """Find near duplicates: as many pairs (first, second, correlation) [m, 3] as connect every set of them.

    The 16 x 16 RGB pixels [n, 768] of the two, one of them maybe mirrored, correlate at least DUPLICATE_CORRELATION. Of
    all such pairs, which are n^2 / 2 for frames of a film, those of a maximum spanning forest are returned.
    """
    images = tiny_images.reshape(-1, 16, 16, 3)

    def edges() -> Iterator[NDArray[np.float64]]:
        for first, second in _tiles(len(images), tile):
            pixels = _normalised_pixels(images[second]).T
            plain = _normalised_pixels(images[first]) @ pixels
            mirrored = _normalised_pixels(images[first, :, ::-1]) @ pixels
            yield _edges_above(np.maximum(plain, mirrored), DUPLICATE_CORRELATION, first, second)

    return _spanning_forest(edges(), len(images))


def duplicates_between(first: NDArray[np.uint8], second: NDArray[np.uint8], tile: int = TILE) -> NDArray[np.int64]:
    """Return the indices of images in ``second`` [m, 768] that are near duplicates of an image in ``first`` [n, 768].

    Both are 16 x 16 RGB pixels; a near duplicate may be mirrored.
    """
    references, candidates = first.reshape(-1, 16, 16, 3), second.reshape(-1, 16, 16, 3)
    is_duplicate = np.zeros(len(second), bool)
    for columns in _blocks(len(second), tile):
        pixels = _normalised_pixels(candidates[columns]).T
        for rows in _blocks(len(first), tile):
            for images in (references[rows], references[rows, :, ::-1]):
                correlation = _normalised_pixels(images) @ pixels
                is_duplicate[columns] |= (correlation >= DUPLICATE_CORRELATION).any(axis=0)
    return np.flatnonzero(is_duplicate)


def nearest_neighbours(
    features: NDArray[np.floating],
    groups: NDArray[np.integer],
    count: int,
    *,
    centred: bool = True,
    tile: int = TILE,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the indices [n, count] and cosine similarities [n, count] of the nearest images of other groups.

    The similarity is that of the vectors ``features`` [n, d], less their mean if ``centred``. Nearest first; where
    there are fewer than ``count`` images of other groups, both are -1.
    """
    mean = _mean(features, tile) if centred else np.zeros(features.shape[1])
    indices = np.full((len(features), count), -1)
    cosines = np.full((len(features), count), -1, np.float32)
    for rows in _blocks(len(features), tile):
        vectors = _unit_vectors(features[rows], mean)
        for columns in _blocks(len(features), tile):
            similarity = vectors @ _unit_vectors(features[columns], mean).T
            similarity[groups[rows][:, None] == groups[columns][None, :]] = -2
            nearest = np.argpartition(-similarity, min(count, similarity.shape[1]) - 1, axis=1)[:, :count]
            # The nearest of this block compete with those of the blocks before.
            candidate_cosines = np.hstack([cosines[rows], np.take_along_axis(similarity, nearest, axis=1)])
            candidate_indices = np.hstack([indices[rows], nearest + columns.start])
            order = np.argsort(-candidate_cosines, axis=1, kind="stable")[:, :count]
            cosines[rows] = np.take_along_axis(candidate_cosines, order, axis=1)
            indices[rows] = np.take_along_axis(candidate_indices, order, axis=1)
    indices[cosines < -1] = -1
    return indices, np.maximum(cosines, -1)


def _merge_scenes(sets: DisjointSets, edges: NDArray[np.float64], labels: NDArray[np.integer]) -> None:
    """Merge sets along ``edges`` (first, second, cosine) [m, 3], most similar first, if the result is small enough.

    It may hold MAX_SCENE_SHARE of all images and half of a class, or two images and one of a class if that is more.
    """
    max_size = max(2, int(MAX_SCENE_SHARE * len(labels)))
    max_per_class = np.maximum(1, np.bincount(labels) // 2).tolist()
    classes: list[int] = labels.tolist()
    class_counts: dict[int, Counter[int]] = {}  # by representative, of the sets of several images

    def count_classes(root: int) -> Counter[int]:
        return class_counts.get(root) or Counter([classes[root]])

    for image, label in enumerate(classes):
        root = sets.find(image)
        if root != image:
            class_counts[root] = count_classes(root) + Counter([label])
    order = np.argsort(-edges[:, 2], kind="stable")
    for first, second in edges[order, :2].astype(int).tolist():
        a, b = sets.find(first), sets.find(second)
        if a == b:
            continue
        merged = count_classes(a) + count_classes(b)
        if merged.total() <= max_size and all(n <= max_per_class[label] for label, n in merged.items()):
            sets.union(a, b)
            class_counts[sets.find(a)] = merged


def _scene_edges(features: NDArray[np.floating], tile: int) -> NDArray[np.float64]:
    """Return the edges (first, second, cosine) [m, 3] of a maximum spanning forest of the pairs above SCENE_COSINE.

    Single linkage needs only the forest (Gower & Ross 1969), so no other edges are kept.
    """
    mean = _mean(features, tile)

    def edges() -> Iterator[NDArray[np.float64]]:
        for first, second in _tiles(len(features), tile):
            cosine = _unit_vectors(features[first], mean) @ _unit_vectors(features[second], mean).T
            yield _edges_above(cosine, SCENE_COSINE, first, second)

    return _spanning_forest(edges(), len(features))


def _spanning_forest(blocks: Iterable[NDArray[np.float64]], count: int) -> NDArray[np.float64]:
    """Return a maximum spanning forest of the edges in ``blocks``, of which few are in memory at a time."""
    edges = [np.empty((0, 3))]
    pending = 0
    for block in blocks:
        edges.append(block)
        pending += len(block)
        if pending > MAX_EDGES:
            edges = [_maximum_spanning_forest(np.concatenate(edges), count)]
            pending = 0
    return _maximum_spanning_forest(np.concatenate(edges), count)


def _maximum_spanning_forest(edges: NDArray[np.float64], count: int) -> NDArray[np.float64]:
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


def _blocks(count: int, tile: int) -> list[slice]:
    """Return slices of at most ``tile`` of ``count`` images, one after the other."""
    return [slice(start, min(start + tile, count)) for start in range(0, count, tile)]


def _tiles(count: int, tile: int) -> Iterator[tuple[slice, slice]]:
    """Return pairs of slices that together contain every pair of ``count`` images."""
    blocks = _blocks(count, tile)
    return ((first, second) for i, first in enumerate(blocks) for second in blocks[i:])


def _edges_above(
    similarity: NDArray[np.floating], threshold: float, first: slice, second: slice
) -> NDArray[np.float64]:
    """Return edges (first, second, similarity) [m, 3] of the pairs of images of two slices, each pair only once."""
    rows, columns = np.nonzero(similarity >= threshold)
    is_upper = columns + second.start > rows + first.start
    rows, columns = rows[is_upper], columns[is_upper]
    return np.stack([rows + first.start, columns + second.start, similarity[rows, columns]], axis=1)


def _normalised_pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the pixels [n, d] of images, centred and of length 1, so that products are correlations."""
    pixels = images.reshape(len(images), -1).astype(np.float32)
    pixels -= pixels.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(pixels, axis=1, keepdims=True)
    # A nearly uniform image (a placeholder, a black frame) correlates with nothing: its pattern is noise.
    normalised: NDArray[np.float32] = np.where(norm > MIN_CONTRAST, pixels / np.maximum(norm, 1), 0)
    return normalised


def _mean(features: NDArray[np.floating], tile: int) -> NDArray[np.float64]:
    """Return the mean vector [d], summed a block at a time: features are float16, and a float64 copy costs memory."""
    total = np.zeros(features.shape[1])
    for block in _blocks(len(features), tile):
        total += features[block].sum(axis=0, dtype=np.float64)
    return total / max(1, len(features))


def _unit_vectors(features: NDArray[np.floating], mean: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the vectors [n, d] less ``mean``, of length 1."""
    vectors: NDArray[np.float32] = (features - mean).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


def _to_groups(ids: NDArray[np.integer], method: str) -> Groups:
    _, index, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    return Groups(index.astype(np.int64), len(sizes), int(sizes.max(initial=0)), method)
