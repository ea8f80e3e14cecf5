"""Vectors in blocks are the same as all at once; sums of whole numbers are exact, whatever the order and the blocks."""

from fractions import Fraction

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.integers import LIMIT, IntegerVectors, take_rows
from headstart.heads.kinds import LinearProblem, Targets
from headstart.heads.ridge import held_out_ridge
from headstart.heads.vectors import Vectors, one_hot


def test_vectors_in_blocks_are_the_vectors_at_once():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(300, 4)).astype(np.float16), rng.normal(size=(300, 3)).astype(np.float32)
    scales = rng.uniform(1, 2, 7)
    expected = np.concatenate([part.astype(float) for part in parts], axis=1) * scales
    vectors = Vectors(parts, scales, block_size=700)
    assert (len(vectors), vectors.width) == expected.shape
    assert len(list(vectors.blocks())) > 2
    np.testing.assert_allclose(np.concatenate([vectors.rows(block) for block in vectors.blocks()]), expected)
    np.testing.assert_allclose(vectors.rows(np.array([[3, 1], [2, 299]])), expected[[[3, 1], [2, 299]]])
    np.testing.assert_allclose(vectors.moments()[0], expected.mean(axis=0))
    np.testing.assert_allclose(vectors.moments()[1], (expected**2).mean(axis=0))
    np.testing.assert_allclose(vectors.products(expected), expected.T @ expected)
    mean = expected.mean(axis=0)
    np.testing.assert_allclose(vectors.scatter(mean), (expected - mean).T @ (expected - mean))
    labels = np.arange(300) % 3
    sums = [expected[labels == c].sum(axis=0) for c in range(3)]
    np.testing.assert_allclose(vectors.class_sums(labels, 4), [*sums, np.zeros(7)], atol=1e-9)
    targets = Targets(labels, 3, labels * 50 + np.arange(300) // 6)
    np.testing.assert_allclose(
        held_out_ridge(LinearProblem.of(Eigenbasis.of(vectors), targets), [0.4]),
        held_out_ridge(LinearProblem.of(Eigenbasis.of(expected), targets), [0.4]),
        atol=1e-8,
    )


def test_one_hot_targets():
    assert one_hot(np.array([2, 0]), 4).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]


def integer_vectors(rng, n, width, reach=LIMIT):
    integers = rng.integers(-reach, reach + 1, (n, width)).astype(np.int16)
    return IntegerVectors(integers, rng.integers(-14, 3, width).astype(np.int8))


def bits(arrays):
    return [array.tobytes() for array in arrays]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 400), width=st.integers(1, 6), is_scaled=st.booleans())
def test_sums_of_integers_are_the_same_bits_in_any_order_and_block_size(monkeypatch, seed, n, width, is_scaled):
    rng = np.random.default_rng(seed)
    parts = integer_vectors(rng, n, width), integer_vectors(rng, n, 2)
    scales = rng.uniform(0.1, 3, width + 2) if is_scaled else np.ones(width + 2)
    labels = rng.integers(0, 3, n)

    def sums(order, block_size, exact_rows):
        monkeypatch.setattr("headstart.heads.vectors.EXACT_ROWS", exact_rows)
        vectors = Vectors(tuple(take_rows(part, order) for part in parts), scales, block_size)
        mean, squares = vectors.moments()
        return bits([mean, squares, vectors.scatter(mean), vectors.class_sums(labels[order], 3)])

    expected = sums(np.arange(n), 500_000, 2**20)
    for block_size, exact_rows in ((1, 64), (700, 100), (10**9, 1), (1, 2**20)):
        assert sums(rng.permutation(n), block_size, exact_rows) == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([3, 500, LIMIT]))
def test_sums_of_integers_are_those_of_whole_numbers_of_any_size(seed, n, reach):
    rng = np.random.default_rng(seed)
    part = integer_vectors(rng, n, 3, reach)
    part = IntegerVectors(part.integers, np.zeros(3, np.int8))
    vectors, labels = Vectors.of(part), rng.integers(0, 2, n)
    x = [[int(value) for value in row] for row in part.integers]  # Python's integers have no largest one
    sums = [sum(row[j] for row in x) for j in range(3)]
    mean, squares = vectors.moments()
    assert mean.tolist() == [float(Fraction(total, n)) for total in sums]
    assert squares.tolist() == [float(Fraction(sum(row[j] ** 2 for row in x), n)) for j in range(3)]
    of_classes = vectors.class_sums(labels, 2)
    of_second = [row for row, label in zip(x, labels, strict=True) if label]
    assert of_classes[1].tolist() == [sum(row[j] for row in of_second) for j in range(3)]
    scatter = [
        [float(sum((row[i] - Fraction(sums[i], n)) * (row[j] - Fraction(sums[j], n)) for row in x)) for j in range(3)]
        for i in range(3)
    ]
    np.testing.assert_allclose(vectors.scatter(mean), scatter, rtol=1e-12, atol=1e-6 * n)


def test_integers_and_real_numbers_side_by_side_are_summed_as_real_numbers():
    rng = np.random.default_rng(0)
    part, other = integer_vectors(rng, 90, 2), rng.normal(size=(90, 3)).astype(np.float32)
    vectors = Vectors((part, other), rng.uniform(0, 2, 5), 64)
    expected = np.hstack([part[:], other]).astype(float) * vectors.scales
    np.testing.assert_allclose(vectors.rows(slice(None)), expected)
    mean = expected.mean(axis=0)
    np.testing.assert_allclose(vectors.moments()[0], mean)
    np.testing.assert_allclose(vectors.scatter(mean), (expected - mean).T @ (expected - mean), rtol=1e-6, atol=1e-6)


def test_a_scale_of_0_leaves_a_channel_out():
    part = integer_vectors(np.random.default_rng(0), 50, 3)
    for parts in ((part,), (part[:],)):
        vectors = Vectors(parts, np.array([1.0, 0.0, 2.0]))
        mean, squares = vectors.moments()
        assert (mean[1], squares[1]) == (0, 0)
        scatter = vectors.scatter(mean)
        assert not scatter[1].any()
        assert not scatter[:, 1].any()
        assert scatter[0, 0] > 0
