"""Vectors as whole numbers: rounded once, to the nearest; read as exactly what they stand for; counted at the ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headstart.backbones import steps
from headstart.heads.integers import (
    LIMIT,
    IntegerVectors,
    beyond_range,
    deviations_in_steps,
    round_to_steps,
    stack_rows,
    take_rows,
)

EXPONENTS = st.integers(*steps.EXPONENTS)


def some(n=12, d=5, seed=0):
    rng = np.random.default_rng(seed)
    integers = rng.integers(-LIMIT, LIMIT + 1, (n, d)).astype(np.int16)
    return IntegerVectors(integers, rng.integers(-20, 5, d).astype(np.int8))


@given(st.lists(st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False), EXPONENTS), min_size=1))
def test_rounding_is_to_the_nearest_or_to_the_end_of_the_range(pairs):
    values, exponents = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], np.int8)
    rounded = round_to_steps(values[None].astype(np.float32), exponents)[0]
    for value, exponent, integer in zip(values, exponents, rounded, strict=True):
        exact = value / 2.0 ** int(exponent)
        assert abs(int(integer)) == LIMIT if abs(exact) >= LIMIT else abs(exact - int(integer)) <= 0.5


def test_of_two_as_near_the_even_one_is_taken():
    values = np.array([[0.5, 1.5, -0.5, -1.5, 2.5, 1.0]], np.float32)
    assert round_to_steps(values, np.zeros(6, np.int8)).tolist() == [[0, 2, 0, -2, 2, 1]]


@given(EXPONENTS, st.integers(-LIMIT, LIMIT))
def test_numbers_are_exact_in_fp32(exponent, integer):
    vectors = IntegerVectors(np.array([[integer]], np.int16), np.array([exponent], np.int8))
    value = vectors[:]
    assert value.dtype == np.float32
    assert float(value[0, 0]) == integer * 2.0**exponent
    assert round_to_steps(value, vectors.exponents).tolist() == [[integer]]


def test_rows_are_read_by_slices_numbers_and_masks():
    vectors = some()
    expected = vectors.integers * np.exp2(vectors.exponents.astype(float))
    mask = np.arange(12) % 3 == 0
    for rows in (slice(2, 7), np.array([5, 1, 1]), mask, np.array([[0, 1], [2, 3]])):
        np.testing.assert_array_equal(vectors[rows], expected[rows])
    np.testing.assert_array_equal(np.asarray(vectors, np.float64), expected)
    assert np.asarray(vectors).dtype == np.float32
    assert (len(vectors), vectors.shape) == (12, (12, 5))


def test_rows_that_are_taken_or_stacked_stay_integers():
    vectors, other = some(), IntegerVectors(some(3, seed=1).integers, some().exponents)
    taken = take_rows(vectors, slice(3, 6))
    assert np.shares_memory(taken.integers, vectors.integers)
    stacked = stack_rows([taken, other])
    np.testing.assert_array_equal(stacked.integers, np.concatenate([vectors.integers[3:6], other.integers]))
    np.testing.assert_array_equal(take_rows(vectors[:], slice(3, 6)), vectors[3:6])


def test_vectors_of_other_steps_or_of_real_numbers_are_stacked_as_real_numbers():
    vectors, other = some(), some(3, seed=1)
    for second in (other, other[:]):
        np.testing.assert_array_equal(stack_rows([vectors, second]), np.concatenate([vectors[:], other[:]]))


@pytest.mark.parametrize("count", [0, 10, 9000])
def test_numbers_at_the_ends_of_the_range_are_counted(count):
    rng = np.random.default_rng(0)
    integers = rng.integers(-LIMIT + 1, LIMIT, (count, 3)).astype(np.int16)
    ends = rng.random((count, 3)) < 0.01
    integers[ends] = np.where(rng.random((count, 3)) < 0.5, LIMIT, -LIMIT)[ends]
    assert beyond_range(IntegerVectors(integers, np.zeros(3, np.int8))) == ends.sum()


@given(arrays.arrays(np.int16, st.tuples(st.integers(1, 40), st.integers(1, 4)), elements=st.integers(-LIMIT, LIMIT)))
def test_deviations_are_those_of_the_integers(integers):
    found = deviations_in_steps(IntegerVectors(integers, np.full(integers.shape[1], 7, np.int8)))
    np.testing.assert_allclose(found, integers.astype(float).std(axis=0), atol=1e-3)


def test_no_vectors_have_no_deviation():
    assert deviations_in_steps(IntegerVectors(np.zeros((0, 3), np.int16), np.zeros(3, np.int8))).tolist() == [0, 0, 0]


def test_backbones_measure_steps_for_this_range():
    assert steps.LIMIT == LIMIT
