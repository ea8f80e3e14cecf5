"""Differences in log-loss between two models."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.stats.paired_losses import exchange_test, loss_difference


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=8))
def test_the_exchange_test_of_few_groups_is_the_share_of_all_exchanges(sums):
    sums = np.array(sums, float)
    reached = [abs(np.dot(signs, sums)) >= abs(sums.sum()) for signs in product((-1, 1), repeat=len(sums))]
    assert exchange_test(sums) == np.mean(reached)


def test_the_exchange_test_of_many_groups_agrees_with_all_exchanges_and_is_never_zero():
    sums = np.random.default_rng(0).normal(0.4, 1, 15)
    signs = np.array(list(product((-1, 1), repeat=15)))
    exact = (np.abs(signs @ sums) >= abs(sums.sum())).mean()
    assert exchange_test(sums) == pytest.approx(exact, abs=0.01)
    assert exchange_test(np.ones(60)) == 1 / 10_001


def test_models_that_do_not_differ_are_said_to_differ_as_often_as_promised():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 3)
    found = 0
    for _ in range(300):
        of_group = rng.normal(0, 1, (30, 1))[groups]  # images of a group change alike
        first = rng.exponential(1, (90, 2))
        second = first + of_group + rng.normal(0, 0.3, first.shape)
        found += loss_difference(first, second, np.ones(first.shape, bool), groups).significant
    assert found / 300 < 0.08


def test_the_difference_is_the_mean_over_known_cells():
    rng = np.random.default_rng(1)
    first, second = rng.exponential(1, (2, 40, 3))
    known, groups = rng.random((40, 3)) < 0.7, np.arange(40) // 2
    found = loss_difference(first, second, known, groups)
    assert found.difference == pytest.approx((second - first)[known].mean())
    assert found.interval[0] < found.difference < found.interval[1]
    opposite = loss_difference(second, first, known, groups)
    assert (opposite.difference, opposite.p_value) == (pytest.approx(-found.difference), found.p_value)
    assert found.to_dict() == {
        "difference": found.difference,
        "interval": list(found.interval),
        "p_value": found.p_value,
        "real": found.significant,
    }
