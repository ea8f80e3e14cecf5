"""Accuracy: Wilson's interval against SciPy, and intervals of grouped images against simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from headstart.stats import accuracy
from headstart.stats.accuracy import (
    disjoint,
    effective_count,
    equal_groups,
    has_many_groups,
    held_out_accuracy,
    independent_images,
    leave_one_group_out_accuracy,
    linear_variance,
    resampled_means,
    t_quantile,
    wilson,
)
from headstart.stats.paired import group_bootstrap


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_agrees_with_scipy(correct_and_count):
    correct, count = correct_and_count
    expected = binomtest(correct, count).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(correct, count), (expected.low, expected.high), atol=1e-9)


def test_held_out_accuracy_counts_and_names_its_method():
    found = held_out_accuracy(np.array([True] * 254 + [False] * 2))
    assert (found.correct, found.count, found.method) == (254, 256, "Wilson")
    assert str(found) == "99.2% (254/256, 95% interval 97.2% to 99.8%, Wilson)"
    assert found.to_dict()["value"] == 254 / 256


def test_with_single_images_as_groups_the_interval_is_wilsons(monkeypatch):
    monkeypatch.setattr(accuracy, "resampled_means", None)  # nothing is drawn
    correct = np.random.default_rng(0).random(400) < 0.9
    measured = leave_one_group_out_accuracy(correct, np.arange(400))
    np.testing.assert_allclose(measured.interval, wilson(int(correct.sum()), 400), rtol=1e-12)


def test_intervals_of_grouped_images_are_wider_and_cover_the_true_accuracy():
    """Simulated scenes, each predicted right or wrong as a whole: coverage is about 95%."""
    rng, covered, widths = np.random.default_rng(0), 0, []
    for _ in range(300):
        correct = np.repeat(rng.random(50) < 0.85, 10)
        low, high = leave_one_group_out_accuracy(correct, np.repeat(np.arange(50), 10), resamples=300).interval
        covered += low <= 0.85 <= high
        widths.append(high - low)
    assert 0.91 <= covered / 300 <= 0.99
    assert np.mean(widths) > 2 * np.diff(wilson(425, 500))[0]


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 4, 9.5, 38])
def test_the_quantile_of_t_is_that_of_scipy(freedom):
    assert t_quantile(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=3e-4)


@pytest.mark.parametrize("right", [0.9, 0.97])
@pytest.mark.parametrize("sizes", [[60] * 5, [30] * 10, [60, 60, *[6] * 8]])
def test_intervals_of_few_groups_hold_the_true_accuracy(sizes, right):
    """Each group has a share of right answers of its own, which correlate by a third: without t 70% to 85% hold it."""
    rng, covered = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(len(sizes)), sizes)
    for _ in range(200):
        correct = rng.random(len(groups)) < rng.beta(2 * right, 2 * (1 - right), len(sizes))[groups]
        low, high = leave_one_group_out_accuracy(correct, groups, resamples=200).interval
        covered += low <= right <= high
    assert covered / 200 >= 0.92


def test_from_twenty_groups_on_the_variance_alone_counts():
    assert independent_images(0.9, 0.09 / 120, np.full(20, 10.0)) == pytest.approx(120)
    unseen = (0.9 * 19 + 0.5) / 20
    freedom = 2 * 19 / (1 / (unseen * (1 - unseen)) - 3 - 16 / 18)
    few = independent_images(0.9, 0.09 / 120, np.full(19, 10.0))
    assert few == pytest.approx(120 * 18 / 19 * (t.ppf(0.975, 1e9) / t.ppf(0.975, freedom)) ** 2, rel=1e-3)
    assert few < 100
    assert independent_images(0.9, 0.09 / 10, np.full(19, 10.0)) == 19  # never fewer than the groups,
    assert independent_images(0.9, 0.0, np.full(20, 10.0)) == 200  # nor more than the images
    assert independent_images(0.9, 0.0, np.full(19, 10.0)) <= 190


def test_few_groups_of_uneven_size_count_as_fewer_equal_ones():
    sizes = np.array([90.0, 5, 5])
    assert equal_groups(sizes) == pytest.approx(1e4 / 8150)
    assert equal_groups(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_count(np.ones(100), np.repeat(np.arange(3), [90, 5, 5])) == pytest.approx(1e4 / 8150)
    assert effective_count(np.r_[np.ones(50), np.zeros(50)], np.zeros(100, int)) == 1


def test_without_errors_the_interval_still_has_a_width():
    low, high = leave_one_group_out_accuracy(np.ones(100, bool), np.repeat(np.arange(10), 10)).interval
    assert high == pytest.approx(1.0)
    assert low < 0.75  # as of ten images, not a hundred: there are ten groups


def test_intervals_that_touch_are_not_disjoint():
    assert disjoint((0.1, 0.2), (0.3, 0.4))
    assert disjoint((0.3, 0.4), (0.1, 0.2))
    assert not disjoint((0.1, 0.3), (0.3, 0.4))
    assert not disjoint((0.1, 0.9), (0.3, 0.4))


def groups_of_any_size(count=12_000, seed=1):  # another than that of the resamples
    """Sums of right answers and sizes of groups, where a few are large and mostly wrong."""
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(0.7, count).astype(float)
    return rng.binomial(sizes.astype(int), np.where(sizes > 2, 0.6, 0.9)).astype(float), sizes


def test_of_many_groups_the_variance_is_linear():
    sums, sizes = groups_of_any_size()
    resampled = resampled_means(sums, sizes, 1000, 0)
    assert abs(resampled.mean() - sums.sum() / sizes.sum()) < 3e-4
    assert linear_variance(sums, sizes) == pytest.approx(resampled.var(), rel=0.12)  # 2.2% standard error
    equal = np.ones(12_000)
    right = (np.arange(12_000) % 10 > 0).astype(float)
    assert linear_variance(right, equal) == pytest.approx(0.9 * 0.1 / 12_000)  # independent images


def test_many_groups_give_the_interval_that_resampling_would(monkeypatch):
    sums, sizes = groups_of_any_size()
    groups = np.repeat(np.arange(len(sizes)), sizes.astype(int))
    first = np.cumsum(sizes) - sizes
    correct = np.arange(len(groups)) - first[groups] < sums[groups]
    linear = leave_one_group_out_accuracy(correct, groups), group_bootstrap(correct.astype(float), groups)
    monkeypatch.setattr(accuracy, "MANY_GROUPS", 10**9)
    resampled = (
        leave_one_group_out_accuracy(correct, groups, resamples=1000),
        group_bootstrap(correct.astype(float), groups, resamples=1000),
    )
    np.testing.assert_allclose(linear[0].interval, resampled[0].interval, atol=4e-4)
    np.testing.assert_allclose(linear[1], resampled[1], atol=4e-4)
    assert linear[0].interval != resampled[0].interval
    assert np.diff(linear[1])[0] > 4e-3


def test_one_large_group_is_resampled_though_there_are_many():
    sizes = np.r_[np.ones(10_001), 10_000]
    assert not has_many_groups(sizes)
    assert has_many_groups(np.ones(10_001))
    assert not has_many_groups(np.ones(10_000))
    groups = np.repeat(np.arange(len(sizes)), sizes.astype(int))
    values = np.where(groups < 10_001, 0.95, 0.5)
    interval = group_bootstrap(values, groups, resamples=300)
    # Drawn three times, and not at all.
    assert interval == pytest.approx(((10_001 * 0.95 + 30_000 * 0.5) / 40_001, 0.95), abs=1e-3)


def test_intervals_of_many_groups_stay_within_their_range():
    nearly = np.r_[np.zeros(1), np.ones(19_999)]
    assert group_bootstrap(nearly, np.arange(20_000))[1] == 1.0
    assert group_bootstrap(-nearly, np.arange(20_000))[0] == -1.0
