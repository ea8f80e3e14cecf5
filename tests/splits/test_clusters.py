"""Clusters of images beside the comparison of all pairs: those in the same ones are compared, near pairs are found."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.scenes import BURSTS, COUNT, Rows, partition, scenes, shot

from headstart.splits import clusters, nearest
from headstart.splits.clusters import Clusters
from headstart.splits.groups import duplicate_pairs, duplicates_between, find_groups, nearest_neighbours
from headstart.splits.nearest import NearestIndex
from headstart.splits.scenes import CHANCE_FACTOR, compare_scenes, search_scenes
from headstart.splits.whole_numbers import factor, to_whole


@pytest.fixture
def in_clusters(monkeypatch):
    """Look into clusters from 200 images on: 69 clusters of 300 images, of COUNT 277."""
    for module, name, value in (
        (nearest, "LIMIT", 100),
        (clusters, "LIMIT", 200),
        (clusters, "IMAGES", 2),
        (clusters, "FEWEST", 4),
        (nearest, "FIRST", 3),
    ):
        monkeypatch.setattr(module, name, value)


def whole_vectors(count=600, width=48, seed=0):
    """Vectors [count, width] as whole numbers, in 40 clusters."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, width))
    return to_whole((centres[np.arange(count) % 40] + rng.normal(size=(count, width))).astype(np.float32))


def products_of(first, second):
    return first.astype(np.int64) @ second.astype(np.int64)


def test_every_image_is_in_the_cluster_of_its_nearest_centre(in_clusters):
    whole = whole_vectors()
    found = Clusters.of(whole, 0.7)
    nearest_centre = products_of(whole, found.centres).argmax(axis=1)
    assert 100 < found.centres.shape[1] <= int(8 * np.sqrt(600))
    assert len(found.members) == found.centres.shape[1]
    assert min(map(len, found.members)) > 0
    np.testing.assert_array_equal(np.sort(np.concatenate(found.members)), np.arange(600))
    for number, members in enumerate(found.members):
        np.testing.assert_array_equal(members, np.flatnonzero(nearest_centre == number))


def test_the_clusters_looked_into_are_the_nearest_in_order(in_clusters):
    whole = whole_vectors()
    found = Clusters.of(whole, 0.7)
    visits = found.visits(whole)
    order = np.argsort(-products_of(whole, found.centres), axis=1, kind="stable")
    np.testing.assert_array_equal(visits, order[:, : found.visited])
    assert visits.dtype == np.uint8


@pytest.mark.parametrize("near", [0.3, 0.5, 0.7])
def test_as_many_clusters_are_looked_into_as_find_near_pairs(in_clusters, monkeypatch, near):
    monkeypatch.setattr(clusters, "BLOCK", 37)
    monkeypatch.setattr(clusters, "COLUMNS", 101)
    monkeypatch.setattr(clusters, "PAIRS", 1000)
    monkeypatch.setattr(clusters, "IMAGES", 2)
    monkeypatch.setattr(clusters, "MOST", 1)
    whole = whole_vectors()
    found = Clusters.of(whole, near)
    # By hand: pairs of images that the centres were not computed from, with any other.
    trained = np.unique(np.linspace(0, 599, 195 * 2).astype(int))
    products, centre = products_of(whole, whole.T), products_of(whole, found.centres)
    cluster = centre.argmax(axis=1)
    rank = np.argsort(np.argsort(-centre, axis=1, kind="stable"), axis=1)
    least, most = near * factor(48) ** 2, (1 + near) / 2 * factor(48) ** 2
    looks = sorted(
        min(rank[i, cluster[j]], rank[j, cluster[i]])
        for i in np.setdiff1d(np.arange(600), trained)
        for j in np.flatnonzero((products[i] >= least) & (products[i] < most))
        if i != j
    )
    assert len(looks) > 20
    expected = max(4, looks[int(np.ceil(0.98 * len(looks))) - 1] + 1)
    assert found.visited == expected
    assert found.found == np.mean(np.array(looks) < expected) >= 0.98
    monkeypatch.setattr(clusters, "MOST", 1000)
    monkeypatch.setattr(clusters, "FEWEST", 0)
    assert Clusters.of(whole, near) is None
    assert NearestIndex(Rows(whole), np.arange(600), near).method == ", among nearest neighbours"  # all are compared


def test_pairs_that_are_nearly_equal_say_nothing_of_others(in_clusters, monkeypatch):
    monkeypatch.setattr(clusters, "MOST", 1)
    rng = np.random.default_rng(0)
    scene = rng.normal(size=(150, 48)) + np.zeros((2, 1, 48))
    scene[1] += 0.9 * rng.normal(size=(150, 48))  # pairs of cosine 0.75
    film = rng.normal(size=(15, 1, 48)) + 0.02 * rng.normal(size=(15, 40, 48))
    alone = to_whole(scene.reshape(-1, 48).astype(np.float32))
    both = to_whole(np.concatenate([scene.reshape(-1, 48), film.reshape(-1, 48)]).astype(np.float32))
    order = rng.permutation(len(both))
    found = Clusters.of(both[order], 0.6)
    is_scene = order < 300
    place = np.argsort(order)
    nearest_centre = products_of(both[order], found.centres).argmax(axis=1)
    visits = found.visits(both[order]).astype(int)
    pairs = [(place[i], place[i + 150]) for i in range(150)]
    looked = [nearest_centre[j] in visits[i] or nearest_centre[i] in visits[j] for i, j in pairs]
    assert is_scene.sum() == len(alone)
    assert np.mean(looked) > 0.9


def test_vectors_without_near_pairs_have_nothing_to_measure(in_clusters):
    whole = to_whole(np.random.default_rng(0).normal(size=(400, 256)).astype(np.float32))
    found = Clusters.of(whole, 0.9)
    assert found.found is None
    assert found.visited == 4


@pytest.mark.parametrize(("searched", "together", "columns"), [(10_000, 4_000, 4_000), (130, 7, 5)])
def test_within_the_clusters_all_are_compared(in_clusters, monkeypatch, searched, together, columns):
    for name, value in (("SEARCHED", searched), ("TOGETHER", together), ("COLUMNS", columns)):
        monkeypatch.setattr(nearest, name, value)
    vectors, rows = Rows(scenes()[0]), np.arange(COUNT)[::2]
    index = NearestIndex(vectors, rows, 0.7)
    queries = to_whole(vectors[np.arange(COUNT)] @ index._axes)
    products, visits = products_of(queries, queries[rows].T), index._clusters.visits(queries)
    is_seen = np.zeros(products.shape, bool)
    for image, looked_into in enumerate(visits):
        is_seen[image, np.concatenate([index._clusters.members[number] for number in looked_into])] = True
    assert 0.01 < is_seen.mean() < 0.6
    best = np.argsort(-np.where(is_seen, products, -(2**40)), axis=1, kind="stable")[:, :12]
    best = np.where(np.take_along_axis(is_seen, best, axis=1), best, -1)
    places = np.full((COUNT, 12), -1)
    for images, whole, looked_into in index._parts(vectors, np.arange(COUNT)):
        np.testing.assert_array_equal(whole, queries[images])
        places[images] = index._candidates(whole, 12, visits=looked_into)
    np.testing.assert_array_equal(places, best)
    indices, cosines = index.search(vectors, np.arange(COUNT), 4)
    is_found = indices >= 0
    assert is_found.mean() > 0.9
    exact = np.einsum("nd,nkd->nk", vectors[np.arange(COUNT)], vectors[indices])
    np.testing.assert_allclose(cosines[is_found], exact[is_found], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_groups_by_clusters_are_those_of_all_pairs(in_clusters, monkeypatch, seed):
    features, labels, tiny, hashes, _ = scenes(seed)
    by_clusters = find_groups(hashes, tiny, features, labels)
    assert "among nearest neighbours in clusters (" in by_clusters.method
    assert by_clusters.method.endswith("% of near pairs found)")
    again = find_groups(hashes, tiny, features, labels)
    np.testing.assert_array_equal(again.index, by_clusters.index)
    monkeypatch.setattr(nearest, "LIMIT", COUNT)
    exact = find_groups(hashes, tiny, features, labels)
    several = {group for group in partition(exact.index) if len(group) > 1}
    assert len(several) >= BURSTS
    found = several & partition(by_clusters.index)
    assert len(found) >= 0.98 * len(several)


def test_long_bursts_are_linked_across_clusters(in_clusters):
    rng = np.random.default_rng(0)
    tiny, features = shot(rng)
    labels = np.r_[np.zeros(400, int), rng.integers(0, 4, 4000)]
    hashes = rng.integers(0, 256, (4400, 32), np.uint8)
    unlike = rng.integers(0, 256, tiny.shape, np.uint8)
    for pixels in (tiny, unlike):
        groups = find_groups(hashes, pixels, features, labels).index
        assert len(set(groups[:400].tolist())) == 1


def test_images_that_all_look_alike_are_one_cluster_and_little_memory(in_clusters, monkeypatch):
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


def test_duplicates_by_clusters_are_those_of_all_pairs(in_clusters, monkeypatch):
    _, _, tiny, _, _ = scenes()
    references, candidates = tiny[: COUNT // 2], tiny[COUNT // 2 :]
    by_clusters = duplicate_pairs(tiny), duplicates_between(references, candidates)
    monkeypatch.setattr(nearest, "LIMIT", COUNT)
    exact = duplicate_pairs(tiny), duplicates_between(references, candidates)
    assert {tuple(sorted(pair)) for pair in by_clusters[0][:, :2]} == {tuple(sorted(pair)) for pair in exact[0][:, :2]}
    np.testing.assert_array_equal(by_clusters[1], exact[1])


def test_neighbours_that_are_near_and_those_of_a_sample(in_clusters, monkeypatch):
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
    monkeypatch.setattr(nearest, "LIMIT", 100)
    some = np.array([7, 3, 900])
    of_all = nearest_neighbours(features, groups, 3, images=some)
    np.testing.assert_array_equal(of_all[0][:, 0], indices[some, 0])
    np.testing.assert_allclose(of_all[1][:, 0], cosines[some, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, "a sample has no near pairs"),
        (1.0, "100% of near pairs found"),
        (0.9996, "99.9% of near pairs found"),
        (0.98, "98% of near pairs found"),
    ],
)
def test_the_share_is_never_said_to_be_more_than_it_is(in_clusters, found, text):
    index = NearestIndex(Rows(scenes()[0]), np.arange(300), 0.7)
    index._clusters = replace(index._clusters, found=found)
    assert index.method == f", among nearest neighbours in clusters ({text})"


def test_pairs_that_may_be_copies_are_found_too(in_clusters):
    """Copies of which the features are less alike than those of a scene, but more than by chance."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(1, 0.05, 320)
    own = rng.normal(size=(1200, 320)) * spread
    own[100:200] = own[:100] + 1.1 * rng.normal(size=(100, 320)) * spread
    labels = np.arange(1200) % 5
    order = rng.permutation(1200)
    features, labels = own[order].astype(np.float32), labels[order]
    exact = compare_scenes(features, labels, 1100)
    found = search_scenes(features, labels, np.arange(1200), 1100)
    place = np.argsort(order)
    planted = {tuple(sorted((place[i], place[i + 100]))) for i in range(100)}
    candidates = [planted & {tuple(sorted(pair)) for pair in scenes.candidates.tolist()} for scenes in (exact, found)]
    assert exact.threshold / CHANCE_FACTOR**0.5 < 0.68 < exact.threshold  # the planted pairs are at 0.67
    assert len(candidates[0]) > 90
    assert len(candidates[1] & candidates[0]) >= 0.95 * len(candidates[0])


def test_nothing_is_found_for_no_queries(in_clusters):
    vectors = Rows(scenes()[0])
    for near in (0.7, None):
        indices, cosines = NearestIndex(vectors, np.arange(300), near).search(vectors, np.arange(0), 4)
        assert indices.shape == cosines.shape == (0, 4)


def test_up_to_the_limit_all_pairs_are_compared(in_clusters):
    vectors = Rows(np.random.default_rng(0).normal(size=(201, 16)))
    assert NearestIndex(vectors, np.arange(200), 0.5)._clusters is None
    assert NearestIndex(vectors, np.arange(201), 0.5)._clusters is not None
    assert NearestIndex(vectors, np.arange(201))._clusters is None


def test_from_the_limit_on_some_images_are_left_to_measure_on():
    assert clusters.CLUSTERS * np.sqrt(clusters.LIMIT) * clusters.IMAGES + clusters.MEASURED < clusters.LIMIT
