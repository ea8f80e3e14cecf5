"""Groups of images: what is linked and what is not; nearest neighbours."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from headstart.splits.groups import (
    SCENE_COSINE,
    _edges_above,
    _maximum_spanning_forest,
    _tiles,
    duplicate_pairs,
    duplicates_between,
    find_groups,
    groups_from_column,
    nearest_neighbours,
    ungrouped,
)


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


def test_images_of_one_scene_are_found_by_their_features():
    rng = np.random.default_rng(0)
    scene = np.repeat(np.arange(40), 3)
    features = rng.normal(size=(40, 64))[scene] + 0.2 * rng.normal(size=(120, 64))
    groups = find_groups(content_hashes(120), tiny_images(120), features, np.arange(40)[scene] % 2)
    assert groups.count == 40
    for s in range(40):
        assert len(np.unique(groups.index[scene == s])) == 1


def test_a_class_of_similar_images_is_not_one_group():
    """All features of a class are close to each other: it is divided into groups of the largest size allowed."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 2
    features = rng.normal(size=(2, 64))[labels] * 5 + 0.5 * rng.normal(size=(100, 64))
    groups = find_groups(content_hashes(100), tiny_images(100), features, labels)
    assert groups.largest == 10
    assert groups.count < 40


def test_of_a_chain_the_strongest_links_are_followed():
    """Seven scenes of four images, all linked to one chain: a group may hold a tenth, or four of forty."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=64)
    scenes = [base + 0.9 * rng.normal(size=64) for _ in range(7)]
    chain = np.stack([scenes[i // 4] + 0.01 * rng.normal(size=64) for i in range(28)])
    features = np.concatenate([chain, independent_features(12)])
    groups = find_groups(content_hashes(40), tiny_images(40), features, np.arange(40) % 4)
    for scene in range(7):
        assert len(np.unique(groups.index[4 * scene : 4 * scene + 4])) == 1
    assert groups.largest == 4


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 40))
def test_groups_are_those_of_single_linkage_if_none_is_too_large(seed, n):
    """Against connected components by matrix powers; and no group of links is ever too large."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 5)).repeat(2, axis=0) + 0.3 * rng.normal(size=(2 * n, 5))
    labels = np.arange(2 * n) % 2
    groups = find_groups(content_hashes(2 * n), tiny_images(2 * n, seed), features, labels)
    x = features.astype(np.float32) - features.astype(np.float32).mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    is_connected = np.linalg.matrix_power((x @ x.T >= SCENE_COSINE).astype(float) + np.eye(2 * n), 2 * n) > 0
    max_size, max_per_class = max(2, int(0.1 * 2 * n)), max(1, n // 2)
    members = [np.flatnonzero(groups.index == g) for g in range(groups.count)]
    assert all(len(g) <= max_size and np.bincount(labels[g]).max() <= max_per_class for g in members)
    assert all(is_connected[g][:, g].all() for g in members)
    expected = [np.flatnonzero(row) for row in np.unique(is_connected, axis=0)]
    if all(len(g) <= max_size and np.bincount(labels[g]).max() <= max_per_class for g in expected):
        assert sorted(map(tuple, members)) == sorted(map(tuple, expected))


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(0, 200), st.sampled_from([3, 50, 10_000]))
def test_the_forest_is_scipys_minimum_spanning_tree(seed, n, m, values):
    """Of the same weight, and with the same trees above every weight; few ``values`` make many edges equal."""
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.sort(rng.integers(0, n, (m, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    weights = rng.integers(1, values + 1, len(pairs)) / values
    forest = _maximum_spanning_forest(rng.permutation(np.c_[pairs, weights]), n)

    def graph(edges):
        return coo_array((-edges[:, 2], (edges[:, 0].astype(int), edges[:, 1].astype(int))), shape=(n, n)).tocsr()

    tree = minimum_spanning_tree(graph(np.c_[pairs, weights]))
    assert len(forest) == tree.nnz
    np.testing.assert_allclose(forest[:, 2].sum(), -tree.sum())
    for threshold in np.unique(weights):
        count = connected_components(graph(forest[forest[:, 2] >= threshold]), directed=False)[0]
        assert count == connected_components(graph(np.c_[pairs, weights][weights >= threshold]), directed=False)[0]


def test_a_column_groups_by_name():
    groups = groups_from_column(["b", "a", "b", "c"])
    assert groups.index.tolist() == [1, 0, 1, 2]
    assert (groups.count, groups.largest, groups.method) == (3, 2, "column")


def test_ungrouped_images_are_groups_of_one():
    assert ungrouped(3).index.tolist() == [0, 1, 2]


def test_tiles_contain_every_pair_once():
    counts = np.zeros((30, 30), int)
    for first, second in _tiles(30, tile=7):
        similarity = np.ones((first.stop - first.start, second.stop - second.start))
        edges = _edges_above(similarity, 0.5, first, second)
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
    monkeypatch.setattr("headstart.splits.groups.MAX_EDGES", 500)
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
