"""Groups of images: what is linked and what is not; nearest neighbours."""

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from headstart.splits.groups import (
    duplicate_pairs,
    duplicates_between,
    find_groups,
    nearest_neighbours,
    ungrouped,
)
from headstart.splits.pairs import edges_above, maximum_spanning_forest, tiles
from headstart.splits.scenes import compare_scenes


def content_hashes(n, equal=()):
    """Hashes [n, 32], equal for these pairs of images."""
    hashes = np.arange(n)[:, None].repeat(32, axis=1).astype(np.uint8)
    for first, second in equal:
        hashes[second] = hashes[first]
    return hashes


def tiny_images(n, seed=0):
    """Smooth random images of 16 x 16 pixels [n, 768]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 6, 6, 3), np.uint8)
    images = [np.asarray(Image.fromarray(c).resize((16, 16), Image.Resampling.BICUBIC)) for c in coarse]
    return np.stack(images).reshape(n, -1)


def mirrored(pixels):
    """One image of 16 x 16 pixels [768], mirrored."""
    return pixels.reshape(16, 16, 3)[:, ::-1].reshape(-1)


def independent_features(n, d=64):
    """Features [n, d] of which no two are similar."""
    return np.random.default_rng(1).normal(size=(n, d))


def test_identical_files_are_one_group():
    hashes = content_hashes(8, equal=[(0, 5), (5, 7)])
    groups = find_groups(hashes, tiny_images(8), independent_features(8), np.arange(8) % 2)
    assert groups.index[0] == groups.index[5] == groups.index[7]
    assert groups.count == 6
    assert groups.largest == 3


def test_brightened_and_mirrored_copies_are_one_group():
    images = tiny_images(10)
    brighter = np.clip(images[0] * 0.8 + 20, 0, 255).astype(np.uint8)
    images = np.concatenate([images, [brighter, mirrored(images[1])]])
    groups = find_groups(content_hashes(12), images, independent_features(12), np.arange(12) % 2)
    assert groups.index[10] == groups.index[0]
    assert groups.index[11] == groups.index[1]
    assert groups.count == 10


def test_plain_areas_are_not_duplicates():
    grey = np.full((6, 768), 128, np.uint8) + np.random.default_rng(0).integers(0, 2, (6, 768), np.uint8)
    assert find_groups(content_hashes(6), grey, independent_features(6), np.arange(6) % 2).count == 6


def scenes_of(counts, labels_of_scenes, noise, seed=0, d=64):
    """Features [n, d] of scenes with so many images each, of their classes; and the scene and the class of each."""
    rng = np.random.default_rng(seed)
    scene = np.repeat(np.arange(len(counts)), counts)
    classes = 3 * rng.normal(size=(max(labels_of_scenes) + 1, d))
    centres = classes[labels_of_scenes] + rng.normal(size=(len(counts), d))
    return centres[scene] + noise * rng.normal(size=(len(scene), d)), scene, np.array(labels_of_scenes)[scene]


def test_images_of_one_scene_are_found_by_their_features():
    features, scene, labels = scenes_of([3] * 40, [i % 2 for i in range(40)], noise=0.2)
    groups = find_groups(content_hashes(120), tiny_images(120), features, labels)
    assert groups.count == 40
    for s in range(40):
        assert len(np.unique(groups.index[scene == s])) == 1


def test_a_look_that_a_class_shares_is_no_scene():
    """All images of a class are alike, but not more alike in what is their own: none are linked."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 2
    features = 5 * rng.normal(size=(2, 256))[labels] + rng.normal(size=(100, 256))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert (unit @ unit.T)[::2, ::2].min() > 0.9
    groups = find_groups(content_hashes(100), tiny_images(100), features, labels)
    assert groups.count == 100


def test_a_scene_as_large_as_its_class_is_divided():
    """A tenth of all images and half of a class are the largest groups that links by features make."""
    features, _, labels = scenes_of([35, 5, 10, 10, 10, 10, 10, 10], [0, 0, 1, 1, 1, 1, 1, 1], noise=0.1)
    groups = find_groups(content_hashes(100), tiny_images(100), features, labels)
    assert groups.largest == 10
    assert len(np.unique(groups.index[:35])) >= 4


def test_of_a_chain_the_strongest_links_are_followed():
    """Seven scenes of four images, alike among each other, of one class: a group holds at most a tenth, four of 56."""
    rng = np.random.default_rng(1)
    common = rng.normal(size=64)
    scenes = [common + 0.6 * rng.normal(size=64) for _ in range(7)]
    chain = np.stack([scenes[i // 4] + 0.01 * rng.normal(size=64) for i in range(28)])
    features = np.concatenate([chain, independent_features(28)])
    labels = np.repeat([0, 0, 1, 1], 14)
    labels[28:36] = 0
    groups = find_groups(content_hashes(56), tiny_images(56), features, labels)
    for scene in range(7):
        assert len(np.unique(groups.index[4 * scene : 4 * scene + 4])) == 1
    assert groups.largest <= 5


def linked_by_residuals(features, labels):
    """The threshold and the linked pairs [n, n], by the definition, image by image."""
    unit = features.astype(np.float32).astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    residuals = np.stack([u - unit[labels == label].mean(axis=0) for u, label in zip(unit, labels, strict=True)])
    residuals /= np.maximum(np.linalg.norm(residuals, axis=1, keepdims=True), 1e-12)
    cosine = residuals @ residuals.T
    largest = [
        max((cosine[i, j] for j in range(len(labels)) if labels[j] != labels[i]), default=-2)
        for i in range(len(labels))
    ]
    chance = np.median(largest)
    threshold = min(2.5 * chance, 0.8) if chance > 0 else 0.8
    is_close = np.zeros((len(labels), len(labels)), bool)
    for i, j in combinations(range(len(labels)), 2):
        is_close[i, j] = is_close[j, i] = labels[i] == labels[j] and cosine[i, j] >= threshold
    return threshold, is_close


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10_000), st.integers(6, 40), st.integers(1, 4), st.floats(0.05, 1), st.sampled_from([4, 7, 1_100])
)
def test_scenes_are_single_linkage_of_residuals(seed, n, k, noise, tile):
    """Against the definition, pair by pair; and no group of links is ever too large."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(5, 40))
    scene_labels = rng.integers(0, k, n)
    features = (rng.normal(size=(n, d)) + rng.normal(size=(k, d))[scene_labels]).repeat(2, axis=0)
    features += noise * rng.normal(size=(2 * n, d))
    labels = scene_labels.repeat(2)
    scenes = compare_scenes(features, labels, tile)
    threshold, is_close = linked_by_residuals(features, labels)
    np.testing.assert_allclose(scenes.threshold, threshold, atol=1e-5)
    edges = scenes.edges[:, :2].astype(int)
    assert is_close[edges[:, 0], edges[:, 1]].all()
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(2 * n, 2 * n))
    expected = connected_components(is_close, directed=False)[1]
    np.testing.assert_array_equal(connected_components(graph, directed=False)[1], expected)

    groups = find_groups(content_hashes(2 * n), tiny_images(2 * n, seed), features, labels, tile)
    max_size, max_per_class = max(2, int(0.1 * 2 * n)), np.maximum(1, np.bincount(labels) // 2)
    for group in range(groups.count):
        members = np.flatnonzero(groups.index == group)
        counts = np.bincount(labels[members], minlength=len(max_per_class))
        assert len(members) <= max_size
        assert (counts <= max_per_class).all()


def test_classes_of_the_same_places_are_not_linked_across_and_copies_still_are():
    """Every image shows one of eight places, whatever its class: chance is high, and only a frozen camera is linked."""
    rng = np.random.default_rng(2)
    places, labels = np.arange(160) % 8, np.arange(160) // 80
    features = (
        3 * rng.normal(size=(2, 64))[labels] + 1.2 * rng.normal(size=(8, 64))[places] + rng.normal(size=(160, 64))
    )
    features[1::16] = features[0::16] + 0.05 * rng.normal(size=(10, 64))  # twenty images that hardly differ
    hashes = content_hashes(160, equal=[(5, 100)])
    scenes = compare_scenes(features, labels, 1_100)
    assert scenes.threshold == 0.8
    groups = find_groups(hashes, tiny_images(160), features, labels)
    assert groups.index[5] == groups.index[100]
    assert (groups.index[0::16] == groups.index[1::16]).all()
    assert groups.count > 120


def test_a_single_class_has_no_chance_to_compare_with():
    features, _, _ = scenes_of([2] * 15, [0] * 15, noise=0.1)
    groups = find_groups(content_hashes(30), tiny_images(30), features, np.zeros(30, int))
    assert groups.count == 15
    assert (groups.index[::2] == groups.index[1::2]).all()
    assert find_groups(content_hashes(0), tiny_images(1)[:0], features[:0], np.zeros(0, int)).count == 0


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(0, 200), st.sampled_from([3, 50, 10_000]))
def test_the_forest_is_scipys_minimum_spanning_tree(seed, n, m, values):
    """Of the same weight, and with the same trees above every weight; few ``values`` make many edges equal."""
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.sort(rng.integers(0, n, (m, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    weights = rng.integers(1, values + 1, len(pairs)) / values
    forest = maximum_spanning_forest(rng.permutation(np.c_[pairs, weights]), n)

    def graph(edges):
        return coo_array((-edges[:, 2], (edges[:, 0].astype(int), edges[:, 1].astype(int))), shape=(n, n)).tocsr()

    tree = minimum_spanning_tree(graph(np.c_[pairs, weights]))
    assert len(forest) == tree.nnz
    np.testing.assert_allclose(forest[:, 2].sum(), -tree.sum())
    for threshold in np.unique(weights):
        count = connected_components(graph(forest[forest[:, 2] >= threshold]), directed=False)[0]
        assert count == connected_components(graph(np.c_[pairs, weights][weights >= threshold]), directed=False)[0]


def test_ungrouped_images_are_groups_of_one():
    assert ungrouped(3).index.tolist() == [0, 1, 2]


def test_tiles_contain_every_pair_once():
    counts = np.zeros((30, 30), int)
    for first, second in tiles(30, tile=7):
        similarity = np.ones((first.stop - first.start, second.stop - second.start))
        edges = edges_above(similarity, 0.5, first, second)
        assert (edges[:, 2] == 1).all()
        rows, columns = edges[:, :2].astype(int).T
        counts[rows, columns] += 1
    np.testing.assert_array_equal(counts, np.triu(np.ones((30, 30), int), 1))


def test_groups_do_not_depend_on_the_tile():
    rng = np.random.default_rng(3)
    scenes = rng.normal(size=(12, 40))
    features = np.repeat(scenes, 5, axis=0) + 0.4 * rng.normal(size=(60, 40))
    pixels = rng.integers(0, 256, (60, 768), np.uint8)
    pixels[41] = mirrored(pixels[7])
    hashes = rng.integers(0, 256, (60, 32), np.uint8)
    labels = np.arange(60) % 3
    groups = find_groups(hashes, pixels, features, labels)
    assert groups.count < 60
    np.testing.assert_array_equal(find_groups(hashes, pixels, features, labels, tile=7).index, groups.index)


def test_frames_of_a_film_need_no_more_pairs_than_connect_them(monkeypatch):
    monkeypatch.setattr("headstart.splits.pairs.MAX_EDGES", 500)
    rng = np.random.default_rng(0)
    film = tiny_images(1)[0].astype(int)
    frames = np.clip(film + rng.integers(-2, 3, (60, 768)), 0, 255).astype(np.uint8)
    pairs = duplicate_pairs(np.concatenate([frames, tiny_images(5, seed=9)]), tile=20)
    assert pairs.shape == (59, 3)
    assert pairs[:, :2].max() < 60
    assert pairs[:, 2].min() > 0.98


def test_duplicates_between_two_sets():
    first, second = tiny_images(17, seed=1), tiny_images(9, seed=2)
    second[4], second[8] = first[16], mirrored(first[3])
    for tile in (4, 100):
        assert duplicates_between(first, second, tile).tolist() == [4, 8]
    assert duplicates_between(first[:0], second).tolist() == duplicates_between(first, second[:0]).tolist() == []


def test_nearest_neighbours_are_those_of_sorting():
    rng = np.random.default_rng(0)
    x, groups = rng.normal(size=(23, 6)), rng.integers(0, 9, 23)
    for centred in (True, False):
        unit = x - x.mean(axis=0) * centred
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        cosine = np.where(groups[:, None] == groups, -2, unit @ unit.T)
        expected = np.argsort(-cosine, axis=1, kind="stable")[:, :4]
        for tile in (5, 100):
            indices, cosines = nearest_neighbours(x, groups, 4, centred=centred, tile=tile)
            np.testing.assert_array_equal(indices, expected)
            np.testing.assert_allclose(cosines, np.take_along_axis(cosine, expected, axis=1), atol=1e-6)
    indices, cosines = nearest_neighbours(x[:3], np.array([0, 0, 1]), 4)
    assert (indices[0] == [2, -1, -1, -1]).all()
    assert (cosines[2, 2:] == -1).all()
