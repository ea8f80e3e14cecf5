"""Groups of images that are not independent: duplicates, near duplicates, and images of one scene.

An accuracy is too high if it is measured on an image whose near duplicate was used for training. Two images are linked
if any of these holds, and images that are linked, directly or through others, form one group:

1. their files are identical;
2. their 16 x 16 pixels correlate almost perfectly, mirrored or not;
3. one is an augmented copy of the other: laid on it, turned, shifted or mirrored, it correlates (``splits.copies``);
4. they show one scene: they are of one class, and their deep features are far more alike than those of images of
   different classes ever are by chance (``splits.scenes``).

Links of the last two kinds are followed from the most similar pair on, until a group is full.

All pairs are compared, up to ``nearest.LIMIT`` images. Of more, only the nearest neighbours of each, which are found
by fewer and rounded numbers (``splits.nearest``), and from ``clusters.LIMIT`` on among images that are roughly alike.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.integers import AnyVectors
from headstart.splits import clusters
from headstart.splits.nearest import NearestIndex, is_searched, linked_beyond
from headstart.splits.pairs import (
    TILE,
    DisjointSets,
    blocks,
    edges_above,
    mean_vector,
    spanning_forest,
    spread,
    tiles,
    unit_vectors,
)
from headstart.splits.scenes import Labels, compare_scenes, copy_edges, search_scenes

DUPLICATE_CORRELATION = 0.98  # of 16 x 16 pixels; re-encoding and resizing keep it above 0.99
MIN_CONTRAST = 30.0  # norm of 768 centred pixel values; below it an image is a plain area with noise
MAX_SCENE_SHARE = 0.1  # a group that is linked by features holds at most this share of all images
PIXEL_NEIGHBOURS = 8  # of each image that are compared by their pixels, where an index finds them


@dataclass(frozen=True)
class Groups:
    """The group [n] of each image, numbered from 0; the number of groups, the largest size, and how they were found.

    ``notes`` are lines about them that the user must see.
    """

    index: NDArray[np.int64]
    count: int
    largest: int
    method: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form, without the index."""
        return {"count": self.count, "largest": self.largest, "method": self.method}


def ungrouped(count: int) -> Groups:
    """Return groups of one image each."""
    return Groups(np.arange(count), count, 1, "none")


def find_groups(
    content_hashes: NDArray[np.uint8],
    tiny_images: NDArray[np.uint8],
    features: AnyVectors,
    labels: Labels,
    tile: int = TILE,
) -> Groups:
    """Find the groups of n images.

    ``content_hashes`` [n, 32] are SHA-256 of the files, ``tiny_images`` [n, 768] 16 x 16 RGB pixels, ``features``
    [n, d] the vectors of the deepest tap, ``labels`` [n] the classes, from 0 on, or [n, k] which labels each has. A
    link of a copy or a scene is skipped if it would make a group of more than a tenth of the images or of more than
    half of a class. Groups that are too large cost a little data; groups that are too small make the measured accuracy
    too high. All pairs are compared, ``tile`` x ``tile`` at a time, up to ``nearest.LIMIT`` images.
    """
    sets = duplicate_sets(content_hashes, tiny_images, tile)
    is_indexed = is_searched(len(labels))
    if is_indexed:
        distinct = np.sort(np.unique(content_hashes, axis=0, return_index=True)[1])  # of equal files one
        scenes = search_scenes(features, labels, distinct, tile)
    else:
        scenes = compare_scenes(features, labels, tile)
    merge(sets, copy_edges(tiny_images, scenes, sets.labels()), labels)
    merge(sets, scenes.edges, labels)
    method = f"pixels and features (cosine {scenes.threshold:.2f})"
    method += scenes.index_method
    return to_groups(sets.labels(), method)


def duplicate_sets(content_hashes: NDArray[np.uint8], tiny_images: NDArray[np.uint8], tile: int = TILE) -> DisjointSets:
    """Return the sets of images whose files [n, 32] or 16 x 16 RGB pixels [n, 768] are the same."""
    sets = DisjointSets(len(content_hashes))
    sets.union_equal_rows(content_hashes)
    for first, second in duplicate_pairs(tiny_images, tile)[:, :2].astype(int).tolist():
        sets.union(first, second)
    return sets


def duplicate_pairs(tiny_images: NDArray[np.uint8], tile: int = TILE) -> NDArray[np.float64]:
    """Find near duplicates: as many pairs (first, second, correlation) [m, 3] as connect every set of them.

    The 16 x 16 RGB pixels [n, 768] of the two, one of them maybe mirrored, correlate at least DUPLICATE_CORRELATION. Of
    all such pairs, which are n^2 / 2 for frames of a film, those of a maximum spanning forest are returned.
    """
    images = tiny_images.reshape(-1, 16, 16, 3)
    if is_searched(len(images)):
        return spanning_forest(_searched_duplicates(images), len(images))

    def edges() -> Iterator[NDArray[np.float64]]:
        for first, second in tiles(len(images), tile):
            pixels = _normalised_pixels(images[second])
            # A matrix times its own transpose takes half as long: the product is symmetric, which BLAS knows.
            plain = (pixels if first == second else _normalised_pixels(images[first])) @ pixels.T
            mirrored = _normalised_pixels(images[first, :, ::-1]) @ pixels.T
            yield edges_above(np.maximum(plain, mirrored, out=plain), DUPLICATE_CORRELATION, first, second)

    return spanning_forest(edges(), len(images))


def duplicates_between(first: NDArray[np.uint8], second: NDArray[np.uint8], tile: int = TILE) -> NDArray[np.int64]:
    """Return the indices of images in ``second`` [m, 768] that are near duplicates of an image in ``first`` [n, 768].

    Both are 16 x 16 RGB pixels; a near duplicate may be mirrored.
    """
    references, candidates = first.reshape(-1, 16, 16, 3), second.reshape(-1, 16, 16, 3)
    is_duplicate = np.zeros(len(second), bool)
    if is_searched(len(first)) and len(second):
        index = NearestIndex(_Pixels(references), _equal_pixels(references)[1], DUPLICATE_CORRELATION)
        for is_mirrored in (False, True):
            cosines = index.search(_Pixels(candidates, is_mirrored), np.arange(len(second)), 1, DUPLICATE_CORRELATION)[
                1
            ]
            is_duplicate |= cosines[:, 0] >= DUPLICATE_CORRELATION
        return np.flatnonzero(is_duplicate)
    for columns in blocks(len(second), tile):
        pixels = _normalised_pixels(candidates[columns]).T
        for rows in blocks(len(first), tile):
            for images in (references[rows], references[rows, :, ::-1]):
                correlation = _normalised_pixels(images) @ pixels
                is_duplicate[columns] |= (correlation >= DUPLICATE_CORRELATION).any(axis=0)
    return np.flatnonzero(is_duplicate)


def nearest_neighbours(
    features: AnyVectors,
    groups: NDArray[np.integer],
    count: int,
    *,
    near: float | None = None,
    images: NDArray[np.integer] | None = None,
    centred: bool = True,
    tile: int = TILE,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the indices [n, count] and cosine similarities [n, count] of the nearest images of other groups.

    The similarity is that of the vectors ``features`` [n, d], less their mean if ``centred``. Nearest first; where
    there are fewer than ``count`` images of other groups, both are -1. Where an index searches, the first image of each
    group stands for it. Of more than ``clusters.LIMIT`` groups, most pairs of a cosine of ``near`` or more are found by
    one of the two at least, and less near ones may be missing; where ``near`` is None, images are compared with so
    many, spread evenly. ``images`` [m] are those whose neighbours are wanted, [m, count], among all.
    """
    mean = mean_vector(features, tile) if centred else np.zeros(features.shape[1])
    if is_searched(len(features)):
        return _searched_neighbours(_UnitVectors(features, mean), groups, count, near, images)
    indices = np.full((len(features), count), -1)
    cosines = np.full((len(features), count), -1, np.float32)
    for rows in blocks(len(features), tile):
        vectors = unit_vectors(features[rows], mean)
        for columns in blocks(len(features), tile):
            others = vectors if rows == columns else unit_vectors(features[columns], mean)
            similarity = vectors @ others.T
            similarity[groups[rows][:, None] == groups[columns][None, :]] = -2
            nearest = np.argpartition(-similarity, min(count, similarity.shape[1]) - 1, axis=1)[:, :count]
            # The nearest of this block compete with those of the blocks before.
            candidate_cosines = np.hstack([cosines[rows], np.take_along_axis(similarity, nearest, axis=1)])
            candidate_indices = np.hstack([indices[rows], nearest + columns.start])
            order = np.argsort(-candidate_cosines, axis=1, kind="stable")[:, :count]
            cosines[rows] = np.take_along_axis(candidate_cosines, order, axis=1)
            indices[rows] = np.take_along_axis(candidate_indices, order, axis=1)
    indices[cosines < -1] = -1
    wanted = slice(None) if images is None else images
    return indices[wanted], np.maximum(cosines, -1)[wanted]


def _searched_neighbours(
    vectors: _UnitVectors,
    groups: NDArray[np.integer],
    count: int,
    near: float | None,
    images: NDArray[np.integer] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return what ``nearest_neighbours`` does, as an index finds it."""
    rows = np.sort(np.unique(groups, return_index=True)[1])
    if near is None and images is None:
        rows = rows[spread(len(rows), clusters.LIMIT)]
    queries = np.arange(len(groups)) if images is None else images.astype(np.int64)
    indices, cosines = NearestIndex(vectors, rows, near).search(vectors, queries, count, sets=groups.astype(np.int64))
    return indices, np.maximum(cosines, -1)


class _UnitVectors:
    """Features [n, d] less ``mean``, of length 1."""

    def __init__(self, features: AnyVectors, mean: NDArray[np.float64]) -> None:
        self.features, self.mean = features, mean

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        return unit_vectors(self.features[rows], self.mean)


class _Pixels:
    """The pixels of images [n, 16, 16, 3] as vectors whose products are correlations; mirrored if ``is_mirrored``."""

    def __init__(self, images: NDArray[np.uint8], is_mirrored: bool = False) -> None:
        self.images = images[:, :, ::-1] if is_mirrored else images

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        return _normalised_pixels(self.images[rows])


def _equal_pixels(images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a number [n] for each distinct image of [n, 16, 16, 3], mirrored or not, and the first image of each.

    The number of plain images, which correlate with nothing, is -1; they are not among the first.
    """
    hashes = np.empty((len(images), 16), np.uint8)
    is_plain = np.zeros(len(images), bool)
    for block in blocks(len(images), TILE):
        is_plain[block] = ~_normalised_pixels(images[block]).any(axis=1)
        for i, image in zip(range(block.start, block.stop), images[block], strict=True):
            pixels = min(image.tobytes(), image[:, ::-1].tobytes())
            hashes[i] = np.frombuffer(hashlib.blake2b(pixels, digest_size=16).digest(), np.uint8)
    _, first, ids = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    return np.where(is_plain, -1, ids.reshape(-1)), np.sort(first[~is_plain[first]])


def _searched_duplicates(images: NDArray[np.uint8]) -> Iterator[NDArray[np.float64]]:
    """Yield edges (first, second, correlation) [m, 3] between near duplicates: of equal pixels, then by an index."""
    ids, rows = _equal_pixels(images)
    order = np.argsort(ids, kind="stable")
    is_equal = (ids[order[1:]] == ids[order[:-1]]) & (ids[order[1:]] >= 0)
    yield np.stack([order[:-1], order[1:], np.ones(len(order) - 1)], axis=1)[is_equal]
    index, sets = NearestIndex(_Pixels(images), rows, DUPLICATE_CORRELATION), DisjointSets(len(images))
    for is_mirrored in (False, True):
        pixels = _Pixels(images, is_mirrored)
        yield from linked_beyond(index, pixels, rows, sets, count=PIXEL_NEIGHBOURS, least=DUPLICATE_CORRELATION)


def merge(sets: DisjointSets, edges: NDArray[np.float64], labels: Labels) -> None:
    """Merge sets along ``edges`` (first, second, cosine) [m, 3], most similar first, if the result is small enough.

    It may hold MAX_SCENE_SHARE of all images and half of those of a class or label, or two images and one of a class if
    that is more.
    """
    max_size = max(2, int(MAX_SCENE_SHARE * len(labels)))
    images: list[list[int]] = (
        [[label] for label in labels.tolist()] if labels.ndim == 1 else [np.flatnonzero(row).tolist() for row in labels]
    )
    totals = np.bincount(labels) if labels.ndim == 1 else labels.sum(axis=0)
    max_per_class = np.maximum(1, totals // 2).tolist()
    sizes: dict[int, int] = {}  # by representative, of the sets of several images
    class_counts: dict[int, Counter[int]] = {}

    def count_classes(root: int) -> Counter[int]:
        return class_counts.get(root) or Counter(images[root])

    for image, own in enumerate(images):
        root = sets.find(image)
        if root != image:
            class_counts[root] = count_classes(root) + Counter(own)
            sizes[root] = sizes.get(root, 1) + 1
    order = np.argsort(-edges[:, 2], kind="stable")
    for first, second in edges[order, :2].astype(int).tolist():
        a, b = sets.find(first), sets.find(second)
        if a == b:
            continue
        merged, size = count_classes(a) + count_classes(b), sizes.get(a, 1) + sizes.get(b, 1)
        if size <= max_size and all(n <= max_per_class[label] for label, n in merged.items()):
            sets.union(a, b)
            class_counts[sets.find(a)], sizes[sets.find(a)] = merged, size


def _normalised_pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the pixels [n, d] of images, centred and of length 1, so that products are correlations."""
    pixels = images.reshape(len(images), -1).astype(np.float32)
    pixels -= pixels.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(pixels, axis=1, keepdims=True)
    # A nearly uniform image (a placeholder, a black frame) correlates with nothing: its pattern is noise.
    pixels /= np.maximum(norm, 1)
    pixels[norm[:, 0] <= MIN_CONTRAST] = 0
    return pixels


def group_members(groups: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Return the images of each of the ``groups`` [n], in order."""
    order = np.argsort(groups, kind="stable")
    names, starts = np.unique(groups[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))


def to_groups(ids: NDArray[np.integer], method: str) -> Groups:
    """Return the groups of images with equal ``ids`` [n]."""
    _, index, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    return Groups(index.astype(np.int64), len(sizes), int(sizes.max(initial=0)), method)
