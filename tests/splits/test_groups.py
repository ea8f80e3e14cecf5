"""Groups: what is linked and what is not."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from headstart.splits.groups import (
    ALIKE,
    _forest,
    _pairs,
    _tiles,
    duplicates_between,
    find_groups,
    groups_from_column,
    ungrouped,
)


def content(n, copies=()):
    hashes = np.arange(n)[:, None].repeat(32, axis=1).astype(np.uint8)
    for a, b in copies:
        hashes[b] = hashes[a]
    return hashes


def pictures(n, seed=0):
    """Smooth random pictures, 16 x 16, as rows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 6, 6, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((16, 16), Image.Resampling.BICUBIC)) for c in coarse])


def apart(n, d=64):
    """Features in which no two pictures are alike."""
    return np.random.default_rng(1).normal(size=(n, d))


def test_the_same_bytes_are_one_group():
    found = find_groups(content(8, [(0, 5), (5, 7)]), pictures(8).reshape(8, -1), apart(8), np.arange(8) % 2)
    assert found.index[0] == found.index[5] == found.index[7]
    assert found.count == 6
    assert found.largest == 3


def test_resized_brightened_and_mirrored_copies_are_one_group():
    small = pictures(10)
    brighter = np.clip(small[0] * 0.8 + 20, 0, 255).astype(np.uint8)
    mirrored = small[1][:, ::-1]
    both = np.concatenate([small, [brighter, mirrored]])
    found = find_groups(content(12), both.reshape(12, -1), apart(12), np.arange(12) % 2)
    assert found.index[10] == found.index[0]
    assert found.index[11] == found.index[1]
    assert found.count == 10


def test_even_pictures_are_not_taken_for_copies():
    grey = np.full((6, 768), 128, np.uint8) + np.random.default_rng(0).integers(0, 2, (6, 768), np.uint8)
    assert find_groups(content(6), grey, apart(6), np.arange(6) % 2).count == 6


def test_pictures_of_one_scene_are_found_by_their_features():
    rng = np.random.default_rng(0)
    scene = np.repeat(np.arange(40), 3)
    features = rng.normal(size=(40, 64))[scene] + 0.2 * rng.normal(size=(120, 64))
    found = find_groups(content(120), pictures(120).reshape(120, -1), features, np.arange(40)[scene] % 2)
    assert found.count == 40
    for s in range(40):
        assert len(np.unique(found.index[scene == s])) == 1


def test_a_class_that_looks_all_alike_is_not_made_one_group():
    """All features of a class close together: it falls into as many groups as their largest size asks for."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 2
    features = rng.normal(size=(2, 64))[labels] * 5 + 0.5 * rng.normal(size=(100, 64))
    found = find_groups(content(100), pictures(100).reshape(100, -1), features, labels)
    assert found.largest == 10
    assert found.count < 40


def test_of_a_chain_the_strongest_links_hold():
    """Seven scenes of four, all linked to one chain: at most a tenth, or four of forty, may be together."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=64)
    scenes = [base + 0.9 * rng.normal(size=64) for _ in range(7)]
    features = np.stack([scenes[i // 4] + 0.01 * rng.normal(size=64) for i in range(28)] + list(apart(12)[:, :64]))
    found = find_groups(content(40), pictures(40).reshape(40, -1), features, np.arange(40) % 4)
    for scene in range(7):
        assert len(np.unique(found.index[4 * scene : 4 * scene + 4])) == 1
    assert found.largest == 4


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 40))
def test_groups_are_those_of_single_linkage_where_none_is_too_large(seed, n):
    """Against connected components written out; and in any case no group of links is too large."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 5)).repeat(2, axis=0) + 0.3 * rng.normal(size=(2 * n, 5))
    labels = np.arange(2 * n) % 2
    found = find_groups(content(2 * n), pictures(2 * n, seed).reshape(2 * n, -1), features, labels)
    x = features.astype(np.float32) - features.astype(np.float32).mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    reach = np.linalg.matrix_power((x @ x.T >= ALIKE).astype(float) + np.eye(2 * n), 2 * n) > 0
    at_most, half = max(2, int(0.1 * 2 * n)), max(1, n // 2)
    groups = [np.flatnonzero(found.index == g) for g in range(found.count)]
    assert all(len(g) <= at_most and np.bincount(labels[g]).max() <= half for g in groups)
    assert all(reach[g][:, g].all() for g in groups)
    expected = [np.flatnonzero(row) for row in np.unique(reach, axis=0)]
    if all(len(g) <= at_most and np.bincount(labels[g]).max() <= half for g in expected):
        assert sorted(map(tuple, groups)) == sorted(map(tuple, expected))


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(0, 200), st.sampled_from([3, 50, 10_000]))
def test_the_forest_is_scipys_minimum_spanning_tree(seed, n, m, values):
    """As heavy, and with the same trees above every weight; few ``values`` make many edges equal."""
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.sort(rng.integers(0, n, (m, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    weights = rng.integers(1, values + 1, len(pairs)) / values
    found = _forest(rng.permutation(np.c_[pairs, weights]), n)

    def graph(edges):
        return coo_array((-edges[:, 2], (edges[:, 0].astype(int), edges[:, 1].astype(int))), shape=(n, n)).tocsr()

    tree = minimum_spanning_tree(graph(np.c_[pairs, weights]))
    assert len(found) == tree.nnz
    np.testing.assert_allclose(found[:, 2].sum(), -tree.sum())
    for least in np.unique(weights):
        ours = connected_components(graph(found[found[:, 2] >= least]), directed=False)[0]
        assert ours == connected_components(graph(np.c_[pairs, weights][weights >= least]), directed=False)[0]


def test_a_column_groups_by_name():
    found = groups_from_column(["b", "a", "b", "c"])
    assert found.index.tolist() == [1, 0, 1, 2]
    assert (found.count, found.largest, found.method) == (3, 2, "column")


def test_no_groups():
    assert ungrouped(3).index.tolist() == [0, 1, 2]


def test_tiles_bring_every_two_pictures_together_once(monkeypatch):
    monkeypatch.setattr("headstart.splits.groups.TILE", 7)
    seen = np.zeros((30, 30), int)
    for first, second in _tiles(30):
        rows, columns = _pairs(first, second, np.ones((first.stop - first.start, second.stop - second.start), bool))
        seen[rows + first.start, columns + second.start] += 1
    np.testing.assert_array_equal(seen, np.triu(np.ones((30, 30), int), 1))


def test_tiles_change_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    scenes = rng.normal(size=(12, 40))
    features = np.repeat(scenes, 5, axis=0) + 0.4 * rng.normal(size=(60, 40))
    pixels = rng.integers(0, 256, (60, 768), np.uint8)
    pixels[41] = pixels[7].reshape(16, 16, 3)[:, ::-1].reshape(-1)
    content = rng.integers(0, 256, (60, 32), np.uint8)
    labels = np.arange(60) % 3
    whole = find_groups(content, pixels, features, labels)
    assert whole.count < 60
    monkeypatch.setattr("headstart.splits.groups.TILE", 7)
    np.testing.assert_array_equal(find_groups(content, pixels, features, labels).index, whole.index)


def test_copies_between_two_sets(monkeypatch):
    first, second = pictures(17, seed=1).reshape(17, -1), pictures(9, seed=2).reshape(9, -1)
    second[4], second[8] = first[16], first[3].reshape(16, 16, 3)[:, ::-1].reshape(-1)
    for tile in (4, 100):
        monkeypatch.setattr("headstart.splits.groups.TILE", tile)
        assert duplicates_between(first, second).tolist() == [4, 8]
    assert duplicates_between(first[:0], second).tolist() == duplicates_between(first, second[:0]).tolist() == []
