"""Sufficient statistics: they add, merge and subtract exactly, and never change what they are computed from."""

import copy
from functools import partial

import numpy as np
import pytest
from helpers.heads import gaussian_classes
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.heads.centroid import solve_centroid
from headstart.heads.integers import LIMIT, IntegerVectors, take_rows
from headstart.heads.lda import solve_lda
from headstart.heads.ridge import solve_ridge
from headstart.heads.statistics import Statistics, add_to_diagonal, class_sums

SOLVERS = [partial(solve_ridge, penalty=0.3), partial(solve_lda, shrinkage=0.3), solve_centroid]
solvers = pytest.mark.parametrize("solve", SOLVERS, ids=["ridge", "lda", "centroid"])
sizes = given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 6), st.integers(1, 5))


def random_images(seed, n, d, classes):
    rng = np.random.default_rng(seed)
    return rng, rng.normal(size=(n, d)), rng.integers(0, classes, n)


def assert_close(statistics, expected):
    np.testing.assert_array_equal(statistics.counts, expected.counts)
    np.testing.assert_allclose(statistics.sums, expected.sums, atol=1e-9)
    np.testing.assert_allclose(statistics.gram, expected.gram, atol=1e-9)


def assert_unchanged(statistics, before):
    np.testing.assert_array_equal(statistics.counts, before.counts)
    np.testing.assert_array_equal(statistics.sums, before.sums)
    np.testing.assert_array_equal(statistics.gram, before.gram)


@solvers
def test_the_sum_of_seven_shuffled_parts_gives_the_same_head(solve):
    x, labels, _ = gaussian_classes(n=91)
    rng = np.random.default_rng(5)
    parts = np.array_split(rng.permutation(91), 7)
    total = Statistics.of(x[parts[0]], labels[parts[0]], 3)
    for part in [parts[i] for i in rng.permutation(range(1, 7))]:
        total = Statistics.of(x[part], labels[part], 3) + total
    expected = Statistics.of(x, labels, 3)
    assert total.count == 91
    np.testing.assert_array_equal(total.counts, expected.counts)
    for actual_array, expected_array in zip(solve(total), solve(expected), strict=True):
        np.testing.assert_allclose(actual_array, expected_array, rtol=1e-9, atol=1e-11)


@solvers
def test_subtracting_images_is_fitting_without_them(solve):
    x, labels, _ = gaussian_classes(n=50)
    removed = np.arange(0, 50, 6)
    remaining_counts = np.setdiff1d(np.arange(50), removed)
    difference = Statistics.of(x, labels, 3) - Statistics.of(x[removed], labels[removed], 3)
    expected = Statistics.of(x[remaining_counts], labels[remaining_counts], 3)
    for actual_array, expected_array in zip(solve(difference), solve(expected), strict=True):
        np.testing.assert_allclose(actual_array, expected_array, rtol=1e-8, atol=1e-10)


def test_subtracting_images_that_were_never_added_is_an_error():
    x, labels, _ = gaussian_classes(n=20)
    with pytest.raises(DataError, match="subtract only what was added"):
        _ = Statistics.of(x[:5], labels[:5], 3) - Statistics.of(x, labels, 3)


@settings(deadline=None, max_examples=40)
@sizes
def test_statistics_add_and_subtract_for_any_division_of_the_images(seed, n, d, classes):
    rng, x, labels = random_images(seed, n, d, classes)
    cut = int(rng.integers(0, n + 1))
    first, second = Statistics.of(x[:cut], labels[:cut], classes), Statistics.of(x[cut:], labels[cut:], classes)
    total = Statistics.of(x, labels, classes)
    assert_close(first + second, total)
    assert_close(total - second, first)


@settings(deadline=None, max_examples=40)
@sizes
def test_statistics_are_counts_sums_and_products_written_out(seed, n, d, classes):
    _, x, labels = random_images(seed, n, d, classes)
    statistics = Statistics.of(x, labels, classes)
    centred = x - x.mean(axis=0)
    assert statistics.counts.tolist() == [int((labels == c).sum()) for c in range(classes)]
    np.testing.assert_allclose(statistics.sums, [x[labels == c].sum(axis=0) for c in range(classes)], atol=1e-9)
    np.testing.assert_allclose(statistics.gram, sum(np.outer(row, row) for row in x), atol=1e-9)
    np.testing.assert_allclose(statistics.mean, x.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(statistics.scatter, centred.T @ centred, atol=1e-9)


@settings(deadline=None, max_examples=40)
@sizes
def test_merging_is_adding_up_and_changes_no_part(seed, n, d, classes):
    rng, x, labels = random_images(seed, n, d, classes)
    parts = [
        Statistics.of(x[rows], labels[rows], classes) for rows in np.array_split(np.arange(n), int(rng.integers(1, 5)))
    ]
    before = copy.deepcopy(parts)
    merged = Statistics.merged(parts)
    assert_close(merged, Statistics.of(x, labels, classes))
    assert_unchanged(Statistics.merged(part for part in parts), merged)  # again, from a generator
    merged.counts[:], merged.sums[:], merged.gram[:] = 0, 0, 0
    for part, copied in zip(parts, before, strict=True):  # nor do they share memory with the result
        assert_unchanged(part, copied)


def test_merging_nothing_is_an_error():
    with pytest.raises(DataError, match="no statistics to merge"):
        Statistics.merged([])


@settings(deadline=None, max_examples=40)
@sizes
def test_statistics_never_change_their_arguments(seed, n, d, classes):
    _, x, labels = random_images(seed, n, d, classes)
    x_before, labels_before = x.copy(), labels.copy()
    total, part = Statistics.of(x, labels, classes), Statistics.of(x[: n // 2], labels[: n // 2], classes)
    class_sums(x, labels, classes)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(labels, labels_before)
    before = copy.deepcopy((total, part))
    results = [total + part, total - part]
    assert total.mean.shape == (d,)
    total.scatter[:] = 0  # a new array: the statistics do not see this
    for result in results:
        result.counts[:], result.sums[:], result.gram[:] = 0, 0, 0
    assert_unchanged(total, before[0])
    assert_unchanged(part, before[1])


def test_adding_to_diagonals_is_done_in_place_and_leaves_the_rest():
    matrices = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    before, value = matrices.copy(), np.array([1.0, 2.0, 3.0, 4.0])
    assert add_to_diagonal(matrices, value) is matrices
    np.testing.assert_array_equal(matrices, before + np.diag(value))
    np.testing.assert_array_equal(value, [1, 2, 3, 4])
    np.testing.assert_array_equal(add_to_diagonal(before.copy(), 0.5), before + 0.5 * np.eye(4))


@pytest.mark.parametrize("count", [1, 7, 100])
def test_statistics_of_integers_are_the_same_bits_in_any_order_and_number_of_parts(count):
    rng = np.random.default_rng(count)
    integers = rng.integers(-LIMIT, LIMIT + 1, (9000, 6)).astype(np.int16)
    x, labels = IntegerVectors(integers, rng.integers(-12, 0, 6).astype(np.int8)), rng.integers(0, 4, 9000)
    expected = Statistics.of(x, labels, 4)
    order = rng.permutation(9000)
    parts = [Statistics.of(take_rows(x, rows), labels[rows], 4) for rows in np.array_split(order, count)]
    merged = Statistics.merged(parts)
    for name in ("counts", "sums", "gram"):
        assert getattr(merged, name).dtype == np.int64
        assert getattr(merged, name).tobytes() == getattr(expected, name).tobytes()
        assert getattr(merged - parts[0] + parts[0], name).tobytes() == getattr(expected, name).tobytes()
    assert expected.gram.tolist() == (integers.astype(object).T @ integers.astype(object)).tolist()


def test_statistics_in_units_are_those_of_the_real_numbers():
    rng = np.random.default_rng(0)
    integers = rng.integers(-LIMIT, LIMIT + 1, (500, 6)).astype(np.int16)
    x, labels = IntegerVectors(integers, rng.integers(-12, 0, 6).astype(np.int8)), rng.integers(0, 4, 500)
    assert_close(Statistics.of(x, labels, 4).in_units(x.steps.astype(float)), Statistics.of(x[:], labels, 4))
    np.testing.assert_allclose(
        Statistics.of(x, labels, 4).in_units(x.steps.astype(float)).scatter, Statistics.of(x[:], labels, 4).scatter
    )
