"""Images of one scene, by how far their features are from those of their class.

The features of an image are those of its class, and what is its own: its residual. Frames of one scene have nearly the
same residual. How similar residuals are by chance is measured on images of different classes, which cannot be of one
scene unless the classes were photographed in the same places.

Where an image may have several labels, its features are those of its labels together, by least squares. Images may then
be of one scene where they have a label in common or one has none, as the frame that an animal has left; chance is
measured on images that have labels and none in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.integers import AnyVectors
from headstart.splits.copies import copy_correlations
from headstart.splits.nearest import NearestIndex, linked_beyond
from headstart.splits.pairs import DisjointSets, blocks, edges_above, spanning_forest, spread, tiles, unit_vectors

# How these were chosen, and on what: docs/explanation/honest-accuracy.md.
CHANCE_FACTOR = 2.5  # a scene's cosine is this many times that of chance
MAX_COSINE = 0.8  # from here on two images are of one scene, whatever chance does
NEIGHBOURS = 5  # of each image are compared as copies
LINKED = 16  # nearest neighbours of each image that may be linked, where an index finds them
COPY_CORRELATION = 0.88  # of an augmented copy's 16 x 16 pixels with the image
LABEL_PENALTY = 1.0  # images: so much the features of a label are drawn to those of all images
CHANCE_PAIRS = 500  # of images of different classes, on which the correlation by chance is measured
CHANCE_SHARE = 0.95  # of these pairs correlate less than what counts as chance


Labels = NDArray[np.integer] | NDArray[np.bool_]  # the classes [n], or which of k labels each image has, [n, k]


@dataclass(frozen=True)
class Scenes:
    """What the residuals of n images say.

    ``threshold`` is the cosine from which on two images of a class are of one scene, ``edges`` [m, 3] are a maximum
    spanning forest (first, second, cosine) of those pairs. ``candidates`` [p, 2] are near neighbours that
    are not linked, but may be copies; ``others`` [q, 2] are images with the nearest of another class. ``index_method``
    says how neighbours were found, where an index did that.
    """

    threshold: float
    edges: NDArray[np.float64]
    candidates: NDArray[np.int64]
    others: NDArray[np.int64]
    index_method: str = ""


def compare_scenes(features: AnyVectors, labels: Labels, tile: int) -> Scenes:
    """Compare the residuals of images with ``features`` [n, d], a tile at a time.

    ``labels`` are their classes [n], or which of k labels each has, [n, k] bool.

    An image's residual is its feature vector, of length 1, less the mean of those of its class. Chance is the median
    over images of the largest cosine with an image of another class; images of a class are linked from CHANCE_FACTOR
    times that on, or from MAX_COSINE on if that is less, as it is where there is nothing to measure chance on.
    """
    residuals = _Residuals(features, labels, tile)
    count = len(labels)
    nearest = _Nearest(count)
    # Chance on a part of the images is a bound below that on all, so links below it need not be held.
    sample = spread(count, tile)
    largest = nearest.other_cosines if count <= tile else _largest_of_other_classes(residuals, labels, sample, tile)

    def edges() -> Iterator[NDArray[np.float64]]:
        for first, second in tiles(count, tile):
            left = residuals[first]
            right = left if first == second else residuals[second]
            cosine = left @ right.T
            is_same = may_be_one_scene(labels[first], labels[second])
            nearest.add(cosine, is_same, first, second)
            if first != second:
                nearest.add(cosine.T, is_same.T, second, first)
            bound = min(CHANCE_FACTOR * max(_chance(largest), 0), MAX_COSINE)
            yield edges_above(np.where(is_same, cosine, -2), bound, first, second)

    forest = spanning_forest(edges(), count)
    threshold = _threshold(nearest.other_cosines[nearest.others >= 0])
    candidates = _candidates(nearest.indices, nearest.cosines, labels, threshold)
    others = np.stack([np.arange(count), nearest.others], axis=1)[nearest.others >= 0]
    return Scenes(threshold, forest[forest[:, 2] >= threshold], candidates, others)


def search_scenes(features: AnyVectors, labels: Labels, rows: NDArray[np.int64], tile: int) -> Scenes:
    """Compare the residuals of the images ``rows`` [m] with those of their nearest neighbours alone, found by an index.

    Chance is measured on ``tile`` of them, each compared with all. Else this is ``compare_scenes``. The index is to
    find pairs from half-way, in proportion, between chance and a scene on: most augmented copies are as near as that.
    """
    residuals = _Residuals(features, labels, tile)
    sample = rows[spread(len(rows), tile)]
    others, other_cosines = _nearest_of_other_classes(residuals, labels, sample, rows, tile)
    threshold = _threshold(other_cosines[others >= 0])
    index, count = NearestIndex(residuals, rows, threshold / CHANCE_FACTOR**0.5), len(labels)
    nearest = index.search(residuals, rows, LINKED, sets=np.arange(count))
    edges = linked_beyond(
        *(index, residuals, rows, DisjointSets(count)),
        count=LINKED,
        least=threshold,
        may_link=lambda images, found: _neighbours_may_be_one_scene(labels, found, images),
        nearest=nearest,
    )
    indices, cosines = np.full((count, NEIGHBOURS), -1), np.full((count, NEIGHBOURS), -2, np.float32)
    indices[rows], cosines[rows] = (values[:, :NEIGHBOURS] for values in nearest)
    candidates = _candidates(indices, cosines, labels, threshold)
    pairs = np.stack([sample, others], axis=1)[others >= 0]
    return Scenes(threshold, spanning_forest(edges, count), candidates, pairs, index.method)


def copy_edges(tiny_images: NDArray[np.uint8], scenes: Scenes, sets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the pairs of augmented copies (first, second, correlation) [m, 3].

    ``tiny_images`` [n, 768] are 16 x 16 RGB pixels; of the candidates, images of one of the ``sets`` [n] are not
    compared again. Images that are nearly plain, or show one thing on a plain ground, correlate by chance: hence the
    threshold lies at least half-way between the correlation of images of different classes and 1.
    """
    candidates = scenes.candidates[sets[scenes.candidates[:, 0]] != sets[scenes.candidates[:, 1]]]
    if not len(candidates):
        return np.empty((0, 3))
    threshold = COPY_CORRELATION
    if len(scenes.others):
        by_chance = copy_correlations(tiny_images, scenes.others[spread(len(scenes.others), CHANCE_PAIRS)])
        threshold = max(threshold, (1 + float(np.quantile(by_chance, CHANCE_SHARE))) / 2)
    correlations = copy_correlations(tiny_images, candidates)
    is_copy = correlations >= threshold
    return np.column_stack([candidates[is_copy], correlations[is_copy]])


def may_be_one_scene(first: Labels, second: Labels) -> NDArray[np.bool_]:
    """Return which pairs [m, p] of images with these labels may be of one scene.

    They are of one class, or have a label in common, or one of them has none.
    """
    if first.ndim == 1:
        return np.asarray(first[:, None] == second[None, :])
    common = first.astype(np.float32) @ second.T.astype(np.float32) > 0
    has_none, other_has_none = (np.asarray(~labels.any(axis=1), bool) for labels in (first, second))
    return np.asarray(common | has_none[:, None] | other_has_none[None, :])


class _Residuals:
    """The residuals [n, d] of features, of length 1, computed a block at a time: a float32 copy would cost memory."""

    def __init__(self, features: AnyVectors, labels: Labels, tile: int) -> None:
        self.features, self.labels = features, labels
        if labels.ndim == 2:
            self.means = _label_effects(features, labels, tile)
            return
        counts = np.bincount(labels, minlength=1)
        self.means = np.zeros((len(counts), features.shape[1]))
        for block in blocks(len(labels), tile):
            is_of_class = np.arange(len(counts))[:, None] == labels[block][None, :]
            self.means += is_of_class.astype(np.float32) @ unit_vectors(features[block], np.zeros(1))
        self.means /= np.maximum(counts, 1)[:, None]

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> NDArray[np.float32]:
        vectors, labels = unit_vectors(self.features[rows], np.zeros(1)), self.labels[rows]
        if labels.ndim == 2:
            return unit_vectors(vectors, _with_ones(labels) @ self.means)
        return unit_vectors(vectors, self.means[labels])


def _with_ones(labels: Labels) -> NDArray[np.float64]:
    return np.column_stack([np.ones(len(labels)), labels])


def _label_effects(features: AnyVectors, labels: Labels, tile: int) -> NDArray[np.float64]:
    """Return what all images have in common and what each label adds to it, [1 + k, d], by least squares."""
    width = 1 + labels.shape[1]
    gram, cross = np.diag(np.r_[0.0, np.full(width - 1, LABEL_PENALTY)]), np.zeros((width, features.shape[1]))
    for block in blocks(len(labels), tile):
        design = _with_ones(labels[block])
        gram += design.T @ design
        cross += design.T @ unit_vectors(features[block], np.zeros(1))
    return np.asarray(np.linalg.solve(gram, cross), np.float64)


class _Nearest:
    """Of each image the nearest neighbours, and the nearest of another class, among the images compared so far."""

    def __init__(self, count: int) -> None:
        self.indices = np.full((count, NEIGHBOURS), -1)
        self.cosines = np.full((count, NEIGHBOURS), -2, np.float32)
        self.others = np.full(count, -1)
        self.other_cosines = np.full(count, -2, np.float32)

    def add(self, cosine: NDArray[np.float32], is_same: NDArray[np.bool_], rows: slice, columns: slice) -> None:
        """Take over the cosines of images ``rows`` with images ``columns``; ``is_same`` says which are of one class."""
        other = np.where(is_same, -2, cosine)
        best = other.argmax(axis=1)
        value = np.take_along_axis(other, best[:, None], axis=1)[:, 0]
        is_nearer = value > self.other_cosines[rows]
        self.other_cosines[rows] = np.where(is_nearer, value, self.other_cosines[rows])
        self.others[rows] = np.where(is_nearer, best + columns.start, self.others[rows])
        if rows == columns:
            cosine = cosine.copy()
            np.fill_diagonal(cosine, -2)
        width = min(NEIGHBOURS, cosine.shape[1])
        nearest = np.argpartition(-cosine, width - 1, axis=1)[:, :width]
        cosines = np.hstack([self.cosines[rows], np.take_along_axis(cosine, nearest, axis=1)])
        indices = np.hstack([self.indices[rows], nearest + columns.start])
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
        self.cosines[rows] = np.take_along_axis(cosines, order, axis=1)
        self.indices[rows] = np.take_along_axis(indices, order, axis=1)


def _largest_of_other_classes(
    residuals: _Residuals, labels: Labels, sample: NDArray[np.integer], tile: int
) -> NDArray[np.float32]:
    """Return the largest cosine [n] of each image with those of other classes in ``sample``, -2 if there are none."""
    columns = residuals[sample].T
    largest = np.full(len(labels), -2, np.float32)
    for rows in blocks(len(labels), tile):
        is_same = may_be_one_scene(labels[rows], labels[sample])
        largest[rows] = np.where(is_same, -2, residuals[rows] @ columns).max(axis=1, initial=-2)
    return largest


def _nearest_of_other_classes(
    residuals: _Residuals, labels: Labels, sample: NDArray[np.int64], rows: NDArray[np.int64], tile: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the nearest image of another class among ``rows`` of each in ``sample`` [m], or -1, and its cosine."""
    vectors = residuals[sample]
    nearest, cosines = np.full(len(sample), -1), np.full(len(sample), -2, np.float32)
    for block in blocks(len(rows), tile):
        is_same = may_be_one_scene(labels[sample], labels[rows[block]])
        cosine = np.where(is_same, -2, vectors @ residuals[rows[block]].T)
        best = cosine.argmax(axis=1)
        value = np.take_along_axis(cosine, best[:, None], axis=1)[:, 0]
        is_nearer = value > cosines
        nearest, cosines = np.where(is_nearer, rows[block][best], nearest), np.where(is_nearer, value, cosines)
    return nearest, cosines


def _threshold(largest: NDArray[np.float32]) -> float:
    """Return the cosine from which on images are of one scene, from those with the nearest image of another class."""
    chance = _chance(largest)
    return min(CHANCE_FACTOR * chance, MAX_COSINE) if chance > 0 else MAX_COSINE


def _chance(largest: NDArray[np.float32]) -> float:
    """Return the cosine of chance, from the largest cosine [n] of each image with an image of another class."""
    return float(np.median(largest)) if len(largest) else -2.0


def _candidates(
    indices: NDArray[np.int64], cosines: NDArray[np.float32], labels: Labels, threshold: float
) -> NDArray[np.int64]:
    """Return the pairs [m, 2] of each image and its nearest neighbours ``indices`` [n, NEIGHBOURS] that may be copies.

    They are as similar as images are by chance, and not linked as one scene. In a class of few images residuals point
    away from each other whatever the images show; there all pairs are taken. Pairs are in the order of their second
    image, whose templates are then cut only once.
    """
    is_linked = (cosines >= threshold) & _neighbours_may_be_one_scene(labels, indices)
    is_candidate = (cosines >= threshold / CHANCE_FACTOR) & (indices >= 0) & ~is_linked
    rows, ranks = np.nonzero(is_candidate)
    pairs = [np.stack([rows, indices[rows, ranks]], axis=1)]
    for members in _members(labels):
        if 1 < len(members) <= NEIGHBOURS + 1:
            pairs.append(members[np.stack(np.triu_indices(len(members), 1), axis=1)])
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)[:, ::-1]


def _neighbours_may_be_one_scene(
    labels: Labels, indices: NDArray[np.int64], images: slice | NDArray[np.int64] = slice(None)
) -> NDArray[np.bool_]:
    """Return whether each of the ``images`` [n] and its neighbours ``indices`` [n, m] may be of one scene."""
    own = labels[images]
    if labels.ndim == 1:
        return np.asarray(labels[indices] == own[:, None])
    has_none, none_of_own = (np.asarray(~one.any(axis=1), bool) for one in (labels, own))
    columns = [(own & labels[index]).any(axis=1) | none_of_own | has_none[index] for index in indices.T]
    return np.stack(columns, axis=1)


def _members(labels: Labels) -> Iterator[NDArray[np.int64]]:
    """Yield the images of each class, or with each label, in order."""
    if labels.ndim == 2:
        yield from (np.flatnonzero(column) for column in labels.T)
        return
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=1)
    yield from (order[end - size : end] for end, size in zip(np.cumsum(sizes), sizes, strict=True))
