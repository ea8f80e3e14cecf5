"""Paired comparisons of two models, against SciPy, loops and simulation."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t

from headstart.stats.accuracy import resampled_means, wilson
from headstart.stats.paired import (
    PairedDifference,
    group_bootstrap,
    grouped_difference,
    holm,
    mcnemar,
    paired_difference,
)


def test_the_paired_difference_counts_images_that_one_model_alone_classifies_correctly():
    first = np.array([True, True, True, False, False, False, True, False])
    second = np.array([True, True, False, True, True, True, True, False])
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    difference = paired_difference(first, second, groups)
    assert (difference.only_first, difference.only_second) == (1, 3)
    assert difference.difference == 2 / 8
    assert difference.p_value == mcnemar(1, 3) == pytest.approx(binomtest(1, 4).pvalue)
    assert difference.interval == group_bootstrap(second.astype(float) - first, groups)
    reverse = paired_difference(second, first, groups)
    assert (reverse.only_first, reverse.only_second, reverse.difference) == (3, 1, -2 / 8)


@pytest.mark.parametrize(
    ("p_value", "interval", "expected"),
    [
        (0.04, (0.01, 0.2), True),
        (0.04, (-0.2, -0.01), True),
        (0.05, (0.01, 0.2), False),
        (0.5, (0.01, 0.2), False),
        (0.04, (-0.01, 0.2), False),
        (0.04, (0.0, 0.2), False),
        (0.04, (-0.2, 0.0), False),
    ],
)
def test_a_difference_is_significant_where_test_and_interval_agree(p_value, interval, expected):
    difference = PairedDifference(10, 20, 0.1, interval, p_value)
    assert difference.significant is expected
    assert difference.to_dict()["real"] is expected


def test_the_json_form_of_a_difference():
    json_form = json.loads(json.dumps(PairedDifference(3, 14, 0.11, (0.02, 0.2), 0.013).to_dict()))
    assert json_form == {
        "difference": 0.11,
        "interval": [0.02, 0.2],
        "only_first": 3,
        "only_second": 14,
        "p_value": 0.013,
        "real": True,
    }


def test_the_error_of_a_grouped_difference_is_that_of_group_sums():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 5)
    first, second = rng.normal(size=150), rng.normal(size=150)
    mean, error = grouped_difference(first, second, groups)
    deviations = first - second - (first - second).mean()
    group_sums = np.array([deviations[groups == group].sum() for group in range(30)])
    assert mean == pytest.approx((first - second).mean())
    assert error == pytest.approx(np.sqrt(30 / 29 * (group_sums**2).sum()) / 150)
    assert grouped_difference(first, second, np.zeros(150, int))[1] == float("inf")


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_agrees_with_the_binomial_test_of_scipy(only_first, only_second):
    expected = binomtest(only_first, only_first + only_second).pvalue if only_first + only_second else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first)


def test_mcnemar_is_exact_beyond_the_range_of_floats():
    assert mcnemar(0, 2000) == 0.0  # 2^-1999
    assert mcnemar(5000, 5000) == 1.0


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_bootstrap_of_groups_is_wider_than_that_of_images_and_covers_the_true_mean():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        values = np.repeat(rng.normal(0.1, 1, 60), 8)
        low, high = group_bootstrap(values, np.repeat(np.arange(60), 8), resamples=400)
        covered += low <= 0.1 <= high
    assert 0.88 <= covered / 200 <= 0.99
    image_low, image_high = group_bootstrap(values, np.arange(480), resamples=400)
    assert high - low > 2 * (image_high - image_low)
    assert group_bootstrap(values, np.zeros(480, int)) == (-1.0, 1.0)


def test_mcnemars_test_of_many_images_is_that_of_scipy():
    assert mcnemar(49_500, 50_500) == pytest.approx(binomtest(49_500, 100_000).pvalue, rel=1e-7)


def test_few_groups_make_equal_models_differ_no_more_often_than_a_test_at_5_percent_may():
    """Each group prefers one of two models that are equally good; of 5 groups one in seven was called a difference."""
    rng, significant, tests = np.random.default_rng(0), 0, 400
    groups = np.repeat(np.arange(5), 60)
    for _ in range(tests):
        preferred = rng.normal(0, 0.9, 5)
        only_first, only_second = (np.minimum(0.15 * np.exp(side * preferred), 0.5)[groups] for side in (1, -1))
        drawn = rng.random(300)
        first = drawn >= only_second
        second = (drawn < only_second) | (drawn >= only_second + only_first)
        difference = paired_difference(first, second, groups)
        assert difference.interval[0] <= difference.difference <= difference.interval[1]
        significant += difference.significant
    assert 0 < significant / tests < 0.08


def test_the_interval_of_forty_groups_is_that_of_the_percentiles():
    values, groups = np.random.default_rng(0).choice([-1.0, 0, 1], 400), np.repeat(np.arange(40), 10)
    sums = values.reshape(40, 10).sum(axis=1)
    expected = np.quantile(resampled_means(sums, np.full(40, 10.0), 2000, 0), [0.025, 0.975])
    assert group_bootstrap(values, groups) == pytest.approx(tuple(expected))
    few = group_bootstrap(values[:390], groups[:390])
    plain = np.quantile(resampled_means(sums[:39], np.full(39, 10.0), 2000, 0), [0.025, 0.975])
    stretch = t.ppf(0.975, 38) / norm.ppf(0.975) * np.sqrt(39 / 38)
    assert few == pytest.approx(tuple(values[:390].mean() + stretch * (plain - values[:390].mean())), abs=1e-6)


def test_models_that_agree_on_few_images_may_differ_on_others():
    right = np.array([True] * 9 + [False])
    found = paired_difference(right, right, np.arange(10))
    assert found.interval == pytest.approx((-wilson(0, 10)[1], wilson(0, 10)[1]))
    assert found.interval[1] > 0.25
    assert not found.significant
    assert paired_difference(right, right, np.zeros(10, int)).interval == (-1, 1)


def test_the_interval_of_a_difference_in_losses_holds_it_where_it_is_above_1():
    low, high = group_bootstrap(np.array([2.0, 3, 4, 5]), np.arange(4))
    assert low < 3.5 < high


def test_a_difference_that_all_groups_share_has_an_interval_of_some_width():
    groups, unseen = np.repeat(np.arange(10), 4), wilson(0, 10)[1]
    better = paired_difference(np.zeros(40, bool), np.ones(40, bool), groups)
    assert better.interval == (1 - unseen, 1.0)
    half = paired_difference(np.zeros(40, bool), np.tile([True, False], 20), groups)
    assert half.interval == pytest.approx((0.5 - unseen, 0.5 + unseen))
