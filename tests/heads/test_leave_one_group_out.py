"""What the closed forms of leave-one-group-out share, against brute force; heads with large groups against refits."""

from functools import partial

import numpy as np
import pytest
from helpers.heads import centred, gaussian_classes, ridge_by_hand, scores_of_refits
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.heads import leave_one_group_out
from headstart.heads.centroid import held_out_centroid, solve_centroid
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import LinearProblem, Targets
from headstart.heads.lda import held_out_lda, solve_lda
from headstart.heads.leave_one_group_out import (
    MeansWithoutGroup,
    batched_matmul,
    chunks,
    chunks_of_groups,
    fill_large_groups,
    gram_by_group,
    group_batches,
    identity_minus,
    large_groups,
    with_lowest_score,
)
from headstart.heads.ood import held_out_ood_scores
from headstart.heads.ridge import held_out_ridge
from headstart.heads.statistics import Statistics

LOW_LIMITS = {"LARGE_GROUP": 4, "CHUNK_SIZE": 20}


@pytest.fixture(params=[{}, LOW_LIMITS], ids=["default limits", "low limits"])
def limits(request, monkeypatch):
    """The limits as they are, and so low that small groups count as large and come in several blocks."""
    for name, value in request.param.items():
        monkeypatch.setattr(leave_one_group_out, name, value)


def groups_of_sizes(*sizes):
    """Group numbers [n] in random order; group i has ``sizes[i]`` images."""
    return np.random.default_rng(2).permutation(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize("sizes", [(300, 257, 120, 3, 1), (90, 20, 7, 3, 1), (9, 9, 9)])
def test_held_out_scores_of_large_groups_are_those_of_refits(limits, sizes):
    """Some groups have more images than a vector has numbers. The images of one class are all in the first group."""
    groups = groups_of_sizes(*sizes)
    x, labels, _ = gaussian_classes(n=len(groups), d=5)
    labels = np.where(groups == 0, 2, labels % 2)
    basis, targets = Eigenbasis.of(x), Targets(labels, 3, groups)
    refit = partial(scores_of_refits, x, labels, groups)

    for penalty, scores in zip((0.1, 5.0), held_out_ridge(LinearProblem.of(basis, targets), [0.1, 5.0]), strict=True):
        expected = refit(lambda x, labels, p=penalty: ridge_by_hand(x, labels, 3, p))
        np.testing.assert_allclose(scores, expected, atol=1e-7)
    for shrinkage, scores in zip((0.5, 10.0), held_out_lda(LinearProblem.of(basis, targets), [0.5, 10.0]), strict=True):
        expected = refit(lambda x, labels, s=shrinkage: solve_lda(Statistics.of(x, labels, 3), s))
        np.testing.assert_allclose(centred(scores), centred(expected), atol=1e-7)
    expected = refit(lambda x, labels: solve_centroid(Statistics.of(x, labels, 3)))
    np.testing.assert_allclose(
        centred(held_out_centroid(LinearProblem.of(basis, targets))), centred(expected), atol=1e-7
    )


@pytest.mark.parametrize("kind", ["lda", "centroid"])
def test_a_class_that_is_only_in_the_group_gets_the_lowest_score(kind):
    x, labels, groups = gaussian_classes()
    groups = np.where(labels == 2, 99, groups)
    basis, targets = Eigenbasis.of(x), Targets(labels, 3, groups)
    problem = LinearProblem.of(basis, targets)
    scores = held_out_lda(problem, [1.0])[0] if kind == "lda" else held_out_centroid(problem)
    assert np.isfinite(scores).all()
    scores_of_class = scores[labels == 2]
    assert (scores_of_class[:, 2] <= scores_of_class[:, :2].min(axis=1)).all()


def test_held_out_scores_of_equal_vectors_are_finite():
    basis, labels = Eigenbasis.of(np.ones((4, 3))), np.array([0, 1, 0, 1])
    assert np.isfinite(held_out_ridge(LinearProblem.of(basis, Targets(labels, 2, np.arange(4))), [1.0])).all()
    basis, labels, groups = Eigenbasis.of(np.ones((600, 3))), np.arange(600) % 2, np.arange(600) // 300
    targets = Targets(labels, 2, groups)
    for scores in (
        held_out_ridge(LinearProblem.of(basis, targets), [1.0]),
        held_out_lda(LinearProblem.of(basis, targets), [1.0]),
        held_out_centroid(LinearProblem.of(basis, targets)),
        held_out_ood_scores(basis, groups),
    ):
        assert np.isfinite(scores).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 12), st.booleans())
def test_batches_and_large_groups_hold_every_image_once_and_groups_whole(seed, n, group_count, has_low_limits):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, group_count, n)
    problem = LinearProblem.of(Eigenbasis.of(rng.normal(size=(n, 3))), Targets(np.arange(n) % 2, 2, groups))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (LOW_LIMITS if has_low_limits else {}).items():
            patch.setattr(leave_one_group_out, name, value)
        batches = list(group_batches(problem))
        large = [np.concatenate(blocks) for blocks, _ in large_groups(problem)]
    groups_of_rows = [rows for batch in batches for rows in batch] + large
    np.testing.assert_array_equal(np.sort(np.concatenate(groups_of_rows)), np.arange(n))
    for rows in groups_of_rows:
        np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(groups == groups[rows[0]]))
    if has_low_limits:
        assert all(4 < len(rows) < n for rows in large)
        assert all(batch.shape[1] <= 4 or batch.shape[1] == n for batch in batches)
        assert all(len(batch) == 1 or batch.size * max(batch.shape[1], 2) <= 20 for batch in batches)
    else:
        assert large == []


def test_large_groups_come_with_the_statistics_of_all_other_images(monkeypatch):
    for name, value in LOW_LIMITS.items():
        monkeypatch.setattr(leave_one_group_out, name, value)
    groups = groups_of_sizes(20, 9, 3, 1)
    x, labels, _ = gaussian_classes(n=len(groups), d=5)
    basis = Eigenbasis.of(x)
    coordinates = basis.project(slice(None))
    sizes = []
    for blocks, others in large_groups(LinearProblem.of(basis, Targets(labels, 3, groups))):
        rows = np.concatenate(blocks)
        assert len(blocks) > 1
        sizes.append(len(rows))
        is_other = groups != groups[rows[0]]
        expected = Statistics.of(coordinates[is_other], labels[is_other], 3)
        np.testing.assert_array_equal(others.counts, expected.counts)
        np.testing.assert_allclose(others.sums, expected.sums, atol=1e-9)
        np.testing.assert_allclose(others.gram, expected.gram, atol=1e-9)
    assert sizes == [9, 20]


def test_only_scores_of_large_groups_are_filled_in(monkeypatch):
    monkeypatch.setattr(leave_one_group_out, "LARGE_GROUP", 4)
    groups = groups_of_sizes(20, 9, 3, 1)
    x, labels, _ = gaussian_classes(n=len(groups), d=5)
    scores = np.full((1, len(groups), 3), 7.0)
    problem = LinearProblem.of(Eigenbasis.of(x), Targets(labels, 3, groups))
    filled = fill_large_groups(scores, problem, [solve_centroid])
    assert filled is scores
    expected = scores_of_refits(x, labels, groups, lambda x, labels: solve_centroid(Statistics.of(x, labels, 3)))
    is_large = groups <= 1
    np.testing.assert_allclose(centred(scores[0, is_large]), centred(expected[is_large]), atol=1e-9)
    np.testing.assert_array_equal(scores[0, ~is_large], 7)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(3, 40), st.integers(2, 9), st.integers(1, 50))
def test_chunks_of_groups_hold_every_row_once_and_groups_whole(seed, n, group_count, size):
    groups = np.random.default_rng(seed).integers(0, group_count, n)
    chunks = list(chunks_of_groups(groups, size))
    np.testing.assert_array_equal(np.sort(np.concatenate(chunks)), np.arange(n))
    for rows in chunks:
        assert (np.diff(rows) > 0).all()
        assert len(rows) == np.isin(groups, groups[rows]).sum()
    for rows in chunks[:-1]:  # a chunk ends with the group that fills it
        assert len(rows) >= size
        assert len(rows) - np.unique(groups[rows], return_counts=True)[1].max() < size


@pytest.mark.parametrize("low_limits", [False, True])
def test_held_out_scores_of_some_rows_are_those_of_all(low_limits, monkeypatch):
    """Only scores are fewer: heads are still fitted to all images of other groups."""
    if low_limits:
        monkeypatch.setattr(leave_one_group_out, "LARGE_GROUP", 4)
    groups = groups_of_sizes(20, 9, 9, 3, 1, 1)
    x, labels, _ = gaussian_classes(n=len(groups), d=5)
    problem = LinearProblem.of(Eigenbasis.of(x), Targets(labels, 3, groups))
    rows = np.flatnonzero(np.isin(groups, [0, 2, 3, 5]))
    some = problem.at(rows)
    np.testing.assert_array_equal(some.labels, labels[rows])
    np.testing.assert_allclose(held_out_ridge(some, [0.1, 2]), held_out_ridge(problem, [0.1, 2])[:, rows], atol=1e-9)
    np.testing.assert_allclose(held_out_lda(some, [0.1, 2]), held_out_lda(problem, [0.1, 2])[:, rows], atol=1e-9)
    np.testing.assert_allclose(held_out_centroid(some), held_out_centroid(problem)[rows], atol=1e-9)


def test_class_means_without_a_group_are_those_of_the_other_images():
    """Every inner product, in the metric of a random positive definite matrix, from means computed anew."""
    rng = np.random.default_rng(0)
    group_count, size, classes, d = 6, 4, 3, 5
    rows = np.arange(group_count * size).reshape(group_count, size)
    x, labels = rng.normal(size=(rows.size, d)), rng.integers(0, classes, rows.size)
    labels[rows[0]], labels[rows[1:]] = 2, labels[rows[1:]] % 2  # the last class vanishes with the first group
    root = rng.normal(size=(d, d))
    metric = root @ root.T
    counts = np.bincount(labels, minlength=classes)
    means = np.array([x[labels == c].mean(axis=0) for c in range(classes)])
    points, group_labels = x[rows], labels[rows]
    offsets = points - means[group_labels]
    without = MeansWithoutGroup.of(
        group_labels,
        counts,
        offsets @ metric @ offsets.transpose(0, 2, 1),
        offsets @ metric @ means.T,
        points @ metric @ means.T,
        np.diag(means @ metric @ means.T),
    )
    np.testing.assert_array_equal(without.is_absent, [[[False, False, g == 0]] for g in range(group_count)])
    for g in range(group_count):
        others = np.setdiff1d(rows, rows[g])
        present = [c for c in range(classes) if (labels[others] == c).any()]
        new_means = np.array([x[others][labels[others] == c].mean(axis=0) for c in present])
        np.testing.assert_array_equal(without.remaining_counts[g], np.bincount(labels[others], minlength=classes))
        np.testing.assert_allclose(without.point_offsets[g], points[g] @ metric @ offsets[g].T, atol=1e-9)
        np.testing.assert_allclose(without.point_means[g][:, present], points[g] @ metric @ new_means.T, atol=1e-9)
        np.testing.assert_allclose(without.offset_means[g][:, present], offsets[g] @ metric @ new_means.T, atol=1e-9)
        norms = np.diag(new_means @ metric @ new_means.T)
        np.testing.assert_allclose(without.mean_norms[g][present], norms, atol=1e-9)


def test_classes_without_images_get_the_lowest_score_of_the_others():
    scores = np.array([[1.0, 2.0, 9.0], [4.0, 3.0, -np.inf]])
    is_absent = np.array([False, False, True])
    np.testing.assert_array_equal(with_lowest_score(scores, is_absent), [[1, 2, 1], [4, 3, 3]])
    np.testing.assert_array_equal(with_lowest_score(scores, np.ones(3, bool)), np.zeros((2, 3)))
    assert with_lowest_score(scores, np.zeros(3, bool)) is scores


@pytest.mark.parametrize(("count", "shape"), [(8, (1, 1)), (8, (40, 4)), (3, (2000, 300)), (1, (1, 256))])
def test_chunks_cover_all_penalties_and_stay_small(count, shape):
    rows, classes = np.zeros(shape, np.int64), 10
    slices = list(chunks(count, rows, classes))
    np.testing.assert_array_equal(np.concatenate([np.arange(count)[part] for part in slices]), np.arange(count))
    lengths = [len(np.arange(count)[part]) for part in slices]
    limit = leave_one_group_out.CHUNK_SIZE
    assert all(length == 1 or length * rows.size * max(shape[1], classes) <= limit for length in lengths)


@pytest.mark.parametrize("size", [1, 4])
def test_products_of_groups_are_those_of_loops(size):
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(3, size, 5)), rng.uniform(size=(2, 5))
    matrices = rng.normal(size=(2, 5, 6))
    gram, products = gram_by_group(points, weights), batched_matmul(points, matrices)
    assert gram.shape == (2, 3, size, size)
    assert products.shape == (2, 3, size, 6)
    for p in range(2):
        for g in range(3):
            np.testing.assert_allclose(gram[p, g], points[g] * weights[p] @ points[g].T, atol=1e-12)
            np.testing.assert_allclose(products[p, g], points[g] @ matrices[p], atol=1e-12)


def test_identity_minus_reuses_the_memory_of_its_argument():
    matrices = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    expected = np.eye(4) - matrices
    assert identity_minus(matrices) is matrices
    np.testing.assert_array_equal(matrices, expected)
