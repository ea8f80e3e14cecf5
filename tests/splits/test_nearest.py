"""Nearest neighbours of many images by rounded numbers, beside the comparison of all pairs in full."""

import numpy as np
import pytest
from helpers.scenes import BURSTS, COUNT, WIDTH, Rows, partition, random_images, scenes, shot

from headstart.heads.integers import IntegerVectors
from headstart.splits import nearest
from headstart.splits.groups import duplicate_pairs, duplicates_between, find_groups, nearest_neighbours
from headstart.splits.nearest import NearestIndex
from headstart.splits.pairs import DisjointSets
from headstart.splits.split import _hold_out_share
from headstart.splits.whole_numbers import multiply, to_whole


@pytest.fixture
def indexed(monkeypatch):
    """Take the index from 100 images on."""
    monkeypatch.setattr(nearest, "LIMIT", 100)


def test_what_is_near_is_found_with_its_full_cosine_and_every_time(indexed):
    features = scenes()[0]
    vectors, rows = Rows(features), np.arange(COUNT)[::3]
    indices, cosines = NearestIndex(vectors, rows).search(vectors, rows, 4, sets=np.arange(COUNT))
    exact = vectors[rows] @ vectors[rows].T
    np.fill_diagonal(exact, -2)
    np.testing.assert_allclose(cosines, np.einsum("nd,nkd->nk", vectors[rows], vectors[indices]), atol=1e-6)
    assert (np.diff(cosines, axis=1) <= 0).all()
    assert not (indices == rows[:, None]).any()
    near = exact.max(axis=1) > 0.7
    assert near.sum() > 20
    np.testing.assert_array_equal(indices[near, 0], rows[exact.argmax(axis=1)][near])
    again = NearestIndex(vectors, rows).search(vectors, rows, 4, sets=np.arange(COUNT))
    np.testing.assert_array_equal(again[0], indices)
    np.testing.assert_array_equal(again[1], cosines)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_index_of_few_vectors_finds_what_there_is(indexed, count):
    vectors = Rows(np.eye(8))
    indices, cosines = NearestIndex(vectors, np.arange(count)).search(vectors, np.arange(8), 5)
    assert (np.sort(indices, axis=1)[:, ::-1][:, :count] == np.arange(count)[::-1]).all()
    assert (indices[:, count:] == -1).all()
    assert (cosines[:, count:] == -2).all()


@pytest.mark.parametrize("seed", range(3))
def test_groups_by_an_index_are_those_of_all_pairs(indexed, monkeypatch, seed):
    features, labels, tiny, hashes, scene = scenes(seed)
    by_index = find_groups(hashes, tiny, features, labels)
    assert by_index.method.endswith(", among nearest neighbours")
    monkeypatch.setattr(nearest, "LIMIT", COUNT)
    exact = find_groups(hashes, tiny, features, labels)
    assert "neighbours" not in exact.method
    assert partition(by_index.index) == partition(exact.index)
    assert len([group for group in partition(exact.index) if len(group) > 1]) >= BURSTS
    assert all(len({scene[i] for i in group}) == 1 for group in partition(exact.index))


def test_groups_of_several_labels_and_of_whole_numbers(indexed, monkeypatch):
    features, labels, tiny, hashes, _ = scenes()
    several = np.eye(6, dtype=bool)[labels] | (np.random.default_rng(0).random((COUNT, 6)) < 0.05)
    integers = IntegerVectors(np.rint(features * 1024).astype(np.int16), np.full(WIDTH, -10))
    found = find_groups(hashes, tiny, integers, several)
    monkeypatch.setattr(nearest, "LIMIT", COUNT)
    assert partition(found.index) == partition(find_groups(hashes, tiny, integers, several).index)


def test_duplicates_are_those_of_all_pairs_mirrored_or_not(indexed, monkeypatch):
    _, _, tiny, _, _ = scenes()
    references, candidates = tiny[: COUNT // 2], tiny[COUNT // 2 :]

    def sets():
        found = DisjointSets(COUNT)
        for first, second in duplicate_pairs(tiny)[:, :2].astype(int):
            found.union(first, second)
        return partition(found.labels())

    by_index = sets(), duplicates_between(references, candidates)
    monkeypatch.setattr(nearest, "LIMIT", COUNT)
    exact = sets(), duplicates_between(references, candidates)
    assert by_index[0] == exact[0]
    assert len([group for group in exact[0] if len(group) > 1]) == 60
    np.testing.assert_array_equal(by_index[1], exact[1])
    assert len(exact[1]) > 10


def test_plain_images_are_no_duplicates(indexed):
    plain = np.full((150, 768), 100, np.uint8)
    assert len(duplicate_pairs(plain)) == 0
    assert len(duplicates_between(plain, plain)) == 0


def test_a_thousand_equal_images_are_one_set(indexed):
    tiny = np.concatenate([np.repeat(random_images(1), 1000, axis=0), random_images(200, seed=1)])
    pairs = duplicate_pairs(tiny)
    assert len(pairs) == 999
    assert pairs[:, :2].max() == 999


def test_neighbours_of_other_groups(indexed, monkeypatch):
    features, _, _, _, scene = scenes()
    groups = np.where(scene < 30, 0, np.arange(COUNT))
    indices, cosines = nearest_neighbours(features, groups, 3)
    assert not (groups[indices] == groups[:, None]).any()
    assert (indices >= 0).all()
    monkeypatch.setattr(nearest, "LIMIT", COUNT)
    exact_indices, exact_cosines = nearest_neighbours(features, groups, 3)
    alike = exact_cosines[:, 0] > 0.85  # by chance it is 0.62
    assert alike.sum() > 100
    np.testing.assert_array_equal(indices[alike, 0], exact_indices[alike, 0])
    assert np.abs(cosines - exact_cosines).mean() < 0.02


def test_candidates_are_the_best_by_whole_numbers_whatever_the_blocks(indexed, monkeypatch):
    vectors, rows = Rows(scenes()[0]), np.arange(COUNT)
    index = NearestIndex(vectors, rows)
    queries = to_whole(vectors[rows] @ index._axes)
    products = multiply(queries, np.hstack(index._columns))
    whole = queries.astype(np.int64)
    np.testing.assert_array_equal(products, whole @ whole.T)
    assert np.abs(whole).max() == 63  # some numbers are cut off
    assert np.mean(np.abs(whole) == 63) < 0.01
    expected = np.argsort(-products, axis=1, kind="stable")[:, :20]  # of equal ones the first
    for columns in (10, 50, 333, 5000):
        monkeypatch.setattr(nearest, "COLUMNS", columns)
        found = NearestIndex(vectors, rows)._candidates(queries, 20)
        np.testing.assert_array_equal(found, expected)


def test_more_are_wanted_than_there_are_in_a_block(indexed, monkeypatch):
    monkeypatch.setattr(nearest, "COLUMNS", 7)
    vectors = Rows(scenes()[0])
    indices, cosines = NearestIndex(vectors, np.arange(40)).search(vectors, np.arange(40), 40)
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(40), (40, 1)))
    np.testing.assert_allclose(cosines, -np.sort(-vectors[:40] @ vectors[:40].T, axis=1), atol=1e-6)


def test_what_is_near_enough_is_found_where_the_rest_may_be_left_out(indexed):
    vectors, rows = Rows(scenes()[0]), np.arange(COUNT)
    index = NearestIndex(vectors, rows)
    indices, cosines = index.search(vectors, rows, 4)
    near_indices, near_cosines = index.search(vectors, rows, 4, 0.7)
    is_near = cosines >= 0.7
    assert is_near[:, 1:].any()
    np.testing.assert_array_equal(near_indices[is_near], indices[is_near])
    np.testing.assert_allclose(near_cosines[is_near], cosines[is_near], atol=1e-6)
    assert (near_indices == -1).any()
    assert (near_cosines[near_indices == -1] == -2).all()


def test_those_of_the_same_set_are_left_out(indexed):
    vectors, rows, sets = Rows(scenes()[0]), np.arange(COUNT), np.arange(COUNT) // 3
    indices, _ = NearestIndex(vectors, rows).search(vectors, rows, 4, sets=sets)
    exact = vectors[rows] @ vectors[rows].T
    exact[sets[:, None] == sets] = -2
    assert not (sets[indices] == sets[:, None]).any()
    near = exact.max(axis=1) > 0.7
    assert near.sum() > 20
    np.testing.assert_array_equal(indices[near, 0], exact.argmax(axis=1)[near])
    few = NearestIndex(vectors, rows[:6]).search(vectors, rows[:6], 5, sets=sets)
    assert ((few[0] >= 0).sum(axis=1) == 3).all()


def test_bursts_of_more_frames_than_neighbours_are_linked_to_each_other(indexed):
    rng = np.random.default_rng(0)
    tiny, features = shot(rng)
    labels = np.r_[np.zeros(400, int), rng.integers(0, 4, 4000)]
    hashes = rng.integers(0, 256, (4400, 32), np.uint8)
    unlike = rng.integers(0, 256, tiny.shape, np.uint8)  # pixels that link nothing: scenes alone
    for pixels in (tiny, unlike):
        groups = find_groups(hashes, pixels, features, labels).index
        assert len(set(groups[:400].tolist())) == 1
    pairs = duplicate_pairs(tiny)
    assert len(pairs) >= 399
    assert (pairs[:, :2] < 400).all(axis=1).sum() == 399


def test_up_to_the_limit_all_pairs_are_compared():
    assert not nearest.is_searched(nearest.LIMIT)
    assert nearest.is_searched(nearest.LIMIT + 1)


def test_a_share_is_held_out_of_many_groups_as_of_few():
    groups = np.random.default_rng(0).integers(0, 30_000, 100_000)
    is_held_out = _hold_out_share(groups, groups % 7, 0.2, 0)
    assert 0.19 < is_held_out.mean() <= 0.2
    assert not set(groups[is_held_out]) & set(groups[~is_held_out])
