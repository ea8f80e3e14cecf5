"""Cells of images beside the comparison of all pairs: what is looked into is compared exactly, near pairs are found."""

import numpy as np
import pytest
from helpers.scenes import BURSTS, COUNT, Rows, partition, scenes, shot

from headstart.splits import cells, nearest
from headstart.splits.cells import Cells
from headstart.splits.groups import duplicate_pairs, duplicates_between, find_groups, nearest_neighbours
from headstart.splits.nearest import NearestIndex, among_neighbours
from headstart.splits.whole_numbers import factor, to_whole


@pytest.fixture
def in_cells(monkeypatch):
    """Look into cells from 200 images on: 69 cells of 300 images, of COUNT 277."""
    for module, name, value in (
        (nearest, "LIMIT", 100),
        (cells, "LIMIT", 200),
        (cells, "IMAGES", 2),
        (cells, "FEWEST", 4),
        (nearest, "FIRST", 3),
    ):
        monkeypatch.setattr(module, name, value)


def whole_vectors(count=600, width=48, seed=0):
    """Vectors [count, width] as whole numbers, in 40 clusters."""
    rng = np.random.default_rng(seed)
    return to_whole(
        (rng.normal(size=(40, width))[np.arange(count) % 40] + rng.normal(size=(count, width))).astype("f4")
    )


def products_of(first, second):
    return first.astype(np.int64) @ second.astype(np.int64)


def test_every_image_is_in_the_cell_of_its_nearest_centre(in_cells):
    whole = whole_vectors()
    found = Cells.of(whole, 0.7)
    nearest_centre = products_of(whole, found.centres).argmax(axis=1)
    assert found.centres.shape == (48, int(8 * np.sqrt(600)))
    assert len(found.members) == found.centres.shape[1]
    np.testing.assert_array_equal(np.sort(np.concatenate(found.members)), np.arange(600))
    for number, members in enumerate(found.members):
        np.testing.assert_array_equal(members, np.flatnonzero(nearest_centre == number))


def test_the_cells_looked_into_are_the_nearest_in_order(in_cells):
    whole = whole_vectors()
    found = Cells.of(whole, 0.7)
    visits = found.visits(whole)
    order = np.argsort(-products_of(whole, found.centres), axis=1, kind="stable")
    np.testing.assert_array_equal(visits, order[:, : found.visited])
    assert visits.dtype == np.uint8


@pytest.mark.parametrize("near", [0.3, 0.5, 0.7])
def test_as_many_cells_are_looked_into_as_find_near_pairs(in_cells, monkeypatch, near):
    monkeypatch.setattr(cells, "BLOCK", 37)
    monkeypatch.setattr(cells, "COLUMNS", 101)
    monkeypatch.setattr(cells, "PAIRS", 1000)
    monkeypatch.setattr(cells, "IMAGES", 2)
    monkeypatch.setattr(cells, "MOST", 1)
    whole = whole_vectors()
    found = Cells.of(whole, near)
    # By hand: pairs of images that the centres were not computed from, with any other.
    trained = np.unique(np.linspace(0, 599, 195 * 2).astype(int))
    products, centre = products_of(whole, whole.T), products_of(whole, found.centres)
    cell = centre.argmax(axis=1)
    rank = np.argsort(np.argsort(-centre, axis=1, kind="stable"), axis=1)
    looks = [
        min(rank[i, cell[j]], rank[j, cell[i]])
        for i in np.setdiff1d(np.arange(600), trained)
        for j in np.flatnonzero(products[i] >= near * factor(48) ** 2)
        if i != j
    ]
    assert len(looks) > 20
    shares = {visited: np.mean(np.array(looks) < visited) for visited in (4, 8, 16, 32, 64, 128, 256)}
    expected = min(visited for visited, share in shares.items() if share >= 0.99)
    assert expected < 195
    assert found.visited == expected
    assert found.found == shares[expected] >= 0.99
    monkeypatch.setattr(cells, "MOST", 195 // expected + 1)
    assert Cells.of(whole, near) is None
    assert NearestIndex(Rows(whole), np.arange(600), near).found is None  # all are compared


def test_vectors_without_near_pairs_have_nothing_to_measure(in_cells):
    whole = to_whole(np.random.default_rng(0).normal(size=(400, 256)).astype(np.float32))
    found = Cells.of(whole, 0.9)
    assert found.found is None
    assert found.visited == 4


@pytest.mark.parametrize(("searched", "together", "columns"), [(10_000, 4_000, 4_000), (130, 7, 5)])
def test_within_the_cells_all_are_compared(in_cells, monkeypatch, searched, together, columns):
    for name, value in (("SEARCHED", searched), ("TOGETHER", together), ("COLUMNS", columns)):
        monkeypatch.setattr(nearest, name, value)
    vectors, rows = Rows(scenes()[0]), np.arange(COUNT)[::2]
    index = NearestIndex(vectors, rows, 0.7)
    queries = to_whole(vectors[np.arange(COUNT)] @ index._axes)
    products, visits = products_of(queries, queries[rows].T), index._cells.visits(queries)
    is_seen = np.zeros(products.shape, bool)
    for image, looked_into in enumerate(visits):
        is_seen[image, np.concatenate([index._cells.members[number] for number in looked_into])] = True
    assert 0.01 < is_seen.mean() < 0.6
    best = np.argsort(-np.where(is_seen, products, -(2**40)), axis=1, kind="stable")[:, :12]
    best = np.where(np.take_along_axis(is_seen, best, axis=1), best, -1)
    places = np.full((COUNT, 12), -1)
    for images, looked_into in index._parts(vectors, np.arange(COUNT)):
        places[images] = index._candidates(queries[images], 12, visits=looked_into)
    np.testing.assert_array_equal(places, best)
    indices, cosines = index.search(vectors, np.arange(COUNT), 4)
    is_found = indices >= 0
    assert is_found.mean() > 0.9
    exact = np.einsum("nd,nkd->nk", vectors[np.arange(COUNT)], vectors[indices])
    np.testing.assert_allclose(cosines[is_found], exact[is_found], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_groups_by_cells_are_those_of_all_pairs(in_cells, monkeypatch, seed):
    features, labels, tiny, hashes, _ = scenes(seed)
    by_cells = find_groups(hashes, tiny, features, labels)
    assert "among nearest neighbours (" in by_cells.method
    assert by_cells.method.endswith("% of the near pairs of a sample found)")
    again = find_groups(hashes, tiny, features, labels)
    np.testing.assert_array_equal(again.index, by_cells.index)
    monkeypatch.setattr(nearest, "LIMIT", COUNT)
    exact = find_groups(hashes, tiny, features, labels)
    several = {group for group in partition(exact.index) if len(group) > 1}
    assert len(several) >= BURSTS
    found = several & partition(by_cells.index)
    assert len(found) >= 0.98 * len(several)


def test_long_bursts_are_linked_across_cells(in_cells):
    rng = np.random.default_rng(0)
    tiny, features = shot(rng)
    labels = np.r_[np.zeros(400, int), rng.integers(0, 4, 4000)]
    hashes = rng.integers(0, 256, (4400, 32), np.uint8)
    unlike = rng.integers(0, 256, tiny.shape, np.uint8)
    for pixels in (tiny, unlike):
        groups = find_groups(hashes, pixels, features, labels).index
        assert len(set(groups[:400].tolist())) == 1


def test_images_that_all_look_alike_are_one_cell_and_little_memory(in_cells, monkeypatch):
    monkeypatch.setattr(nearest, "COLUMNS", 64)
    monkeypatch.setattr(nearest, "TOGETHER", 32)
    rng = np.random.default_rng(0)
    vectors = Rows(np.ones((900, 32)) + 1e-4 * rng.normal(size=(900, 32)))  # all the same as whole numbers
    seen = []
    multiply = nearest.multiply
    monkeypatch.setattr(nearest, "multiply", lambda a, b: seen.append((len(a), b.shape[1])) or multiply(a, b))
    indices, cosines = NearestIndex(vectors, np.arange(900), 0.9).search(
        vectors, np.arange(900), 3, sets=np.arange(900)
    )
    assert np.max(seen, axis=0).tolist() == [32, 64]
    assert (indices >= 0).all()
    assert (cosines > 0.999).all()


def test_duplicates_by_cells_are_those_of_all_pairs(in_cells, monkeypatch):
    _, _, tiny, _, _ = scenes()
    references, candidates = tiny[: COUNT // 2], tiny[COUNT // 2 :]
    by_cells = duplicate_pairs(tiny), duplicates_between(references, candidates)
    monkeypatch.setattr(nearest, "LIMIT", COUNT)
    exact = duplicate_pairs(tiny), duplicates_between(references, candidates)
    assert {tuple(sorted(pair)) for pair in by_cells[0][:, :2]} == {tuple(sorted(pair)) for pair in exact[0][:, :2]}
    np.testing.assert_array_equal(by_cells[1], exact[1])


def test_neighbours_that_are_near_and_those_of_a_sample(in_cells, monkeypatch):
    features, groups = scenes()[0], np.arange(COUNT)
    near = nearest_neighbours(features, groups, 3, near=0.8)
    sampled = nearest_neighbours(features, groups, 3)
    monkeypatch.setattr(nearest, "LIMIT", COUNT)
    indices, cosines = nearest_neighbours(features, groups, 3)
    is_near = cosines >= 0.8
    assert is_near.sum() > 100
    assert np.mean(near[0][is_near] == indices[is_near]) > 0.98
    sample = np.unique(np.linspace(0, COUNT - 1, 200).astype(int))
    assert np.isin(sampled[0], sample).all()
    vectors = features - features.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = vectors @ vectors[sample].T
    exact[sample, np.arange(200)] = -2
    np.testing.assert_allclose(sampled[1][:, 0], exact.max(axis=1), atol=0.02)
    assert np.mean(sampled[0][:, 0] == sample[exact.argmax(axis=1)]) > 0.95


@pytest.mark.parametrize(("found", "text"), [(None, ""), (1.0, " (100% "), (0.9996, " (99.9% "), (0.99, " (99% ")])
def test_the_share_is_never_said_to_be_more_than_it_is(found, text):
    assert text in among_neighbours(found)
    assert ("sample" in among_neighbours(found)) == bool(text)


def test_up_to_the_limit_all_pairs_are_compared(in_cells):
    vectors = Rows(np.random.default_rng(0).normal(size=(201, 16)))
    assert NearestIndex(vectors, np.arange(200), 0.5)._cells is None
    assert NearestIndex(vectors, np.arange(201), 0.5)._cells is not None
    assert NearestIndex(vectors, np.arange(201)).found is None


def test_from_the_limit_on_some_images_are_left_to_measure_on():
    assert cells.CELLS * np.sqrt(cells.LIMIT) * cells.IMAGES + cells.MEASURED < cells.LIMIT
