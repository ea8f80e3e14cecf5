"""Thresholds of labels: what they promise is found on new groups."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from headstart.errors import OptionError
from headstart.stats import accuracy, label_thresholds
from headstart.stats.label_thresholds import (
    LabelThresholds,
    check_target,
    fit_label_thresholds,
    groups_needed_for_recall,
    precision_threshold,
    recall_threshold,
    set_thresholds,
)


def population(groups, rng, sizes=(1, 6), positives=0.5):
    """Return probabilities, truth and groups: images of a group are alike, and groups differ in size."""
    size = rng.integers(*sizes, groups, endpoint=True)
    index = np.repeat(np.arange(groups), size)
    truth = (rng.random(groups) < positives)[index]
    score = 1.6 * truth - 0.8 + rng.normal(size=groups)[index] + 0.3 * rng.normal(size=len(index))
    return 1 / (1 + np.exp(-score)), truth, index


def missed_share(probabilities, groups, threshold):
    """The mean over groups of the share of images below the threshold."""
    return (np.bincount(groups, probabilities < threshold) / np.bincount(groups)).mean()


@pytest.mark.parametrize("recall", [0.8, 0.9])
@pytest.mark.parametrize("groups", [15, 60])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 12)], ids=["single images", "groups of 1 to 12"])
def test_the_mean_risk_over_200_splits_is_at_most_the_target_plus_one_point(recall, groups, sizes):
    rng = np.random.default_rng(0)
    risks = []
    for _ in range(200):
        probabilities, _, index = population(groups, rng, sizes, positives=1.0)
        threshold = recall_threshold(probabilities, index, recall)
        new, _, new_index = population(400, rng, sizes, positives=1.0)
        risks.append(missed_share(new, new_index, threshold))
    assert np.mean(risks) <= 1 - recall + 0.01
    assert np.mean(risks) >= 1 - recall - 2 / groups - 0.05  # nor is it far below: the slack is one group


def test_slack_is_counted_from_the_groups_that_have_the_label():
    assert groups_needed_for_recall(0.9) == 9
    assert groups_needed_for_recall(0.95) == 19
    p = np.linspace(0.1, 0.9, 90)
    assert recall_threshold(p, np.repeat(np.arange(9), 10), 0.9) == 0.1  # not one group may be missed
    assert recall_threshold(p, np.repeat(np.arange(8), [12, 12, 11, 11, 11, 11, 11, 11]), 0.9) is None
    assert recall_threshold(np.zeros(0), np.zeros(0, int), 0.9) is None


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.floats(0.3, 0.95))
def test_the_threshold_is_the_highest_that_the_formula_of_the_paper_allows(seed, groups, recall):
    """Brute force over all thresholds: G / (G + 1) R + 1 / (G + 1) <= 1 - recall, for both weights of groups."""
    rng = np.random.default_rng(seed)
    probabilities, _, index = population(groups, rng, positives=1.0)
    probabilities = np.round(probabilities, 2)

    def is_allowed(threshold):
        by_group = missed_share(probabilities, index, threshold)
        by_image = (probabilities < threshold).mean()
        return groups / (groups + 1) * max(by_group, by_image) + 1 / (groups + 1) <= 1 - recall + 1e-9

    allowed = [float(p) for p in probabilities if is_allowed(p)]
    assert recall_threshold(probabilities, index, recall) == max(allowed, default=None)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 5)], ids=["single images", "groups of 1 to 5"])
def test_the_precision_is_too_low_in_at_most_a_tenth_of_200_splits(sizes):
    rng = np.random.default_rng(1)
    failures, found = 0, 0
    big, big_truth, big_index = population(5_000, rng, sizes)
    for _ in range(200):
        probabilities, truth, index = population(150, rng, sizes)
        threshold = precision_threshold(probabilities, truth, index, 0.75)
        if threshold is None:
            continue
        found += 1
        chosen = big >= threshold
        totals = np.bincount(big_index[chosen], minlength=5_000)
        hits = np.bincount(big_index[chosen], big_truth[chosen], minlength=5_000)
        shares = hits[totals > 0] / totals[totals > 0]
        failures += shares.mean() < 0.75
    assert failures <= 20
    assert found >= 100  # it does not keep its promise by promising nothing


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.floats(0.01, 0.9), st.integers(0, 300))
def test_the_binomial_tail_is_that_of_scipy(count, rate, errors):
    expected = binom.cdf(errors, count, rate)
    assert accuracy.binomial_tail(errors, count, rate) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_p_value_of_shares_is_that_of_hoeffding_and_bentkus():
    shares = np.array([1.0] * 18 + [0.5, 0.75])
    mean, rate = 0.75 / 20, 0.2
    h = mean * math.log(mean / rate) + (1 - mean) * math.log((1 - mean) / (1 - rate))
    expected = min(math.exp(-20 * h), math.e * binom.cdf(1, 20, rate))
    assert label_thresholds._too_low(shares, 0.8) == pytest.approx(expected)
    assert label_thresholds._too_low(np.ones(20), 0.8) == pytest.approx(0.8**20)  # exact for shares of 0 and 1
    assert label_thresholds._too_low(np.ones(0), 0.8) == 1


def test_labels_of_too_few_groups_are_promised_nothing():
    rng = np.random.default_rng(2)
    probabilities, truth, index = population(80, rng)
    rare = np.zeros_like(truth)
    rare[np.flatnonzero(truth)[:1]] = True
    p, values = np.stack([probabilities, probabilities], axis=1), np.stack([truth, rare], axis=1)
    known = np.ones_like(values)
    found = fit_label_thresholds(p, values, known, index, "recall", 0.9)
    assert found.is_promised == (True, False)
    assert found.thresholds[1] == 0.5
    assert found.thresholds[0] == min(recall_threshold(probabilities[truth], index[truth], 0.9), 0.5)
    assert fit_label_thresholds(p, values, known, index, "precision", 0.7).is_promised == (True, False)
    assert fit_label_thresholds(p, values, known, index, "", 0.0) == LabelThresholds((0.5, 0.5), (False, False))
    assert set_thresholds(p, values, known, index, 0.9, found) == (found.thresholds[0], 0.0)


def test_unknown_cells_take_no_part():
    rng = np.random.default_rng(3)
    probabilities, truth, index = population(80, rng)
    known = rng.random(len(truth)) < 0.6
    for target in ("recall", "precision"):
        found = fit_label_thresholds(probabilities[:, None], truth[:, None], known[:, None], index, target, 0.75)
        only = [array[known][:, None] for array in (probabilities, truth)]
        assert found == fit_label_thresholds(*only, np.ones_like(only[1]), index[known], target, 0.75)


def test_decisions_and_the_json_form():
    thresholds = LabelThresholds((0.25, 0.5), (True, False), "recall", 0.9)
    assert thresholds.decide(np.array([[0.25, 0.49], [0.2, 0.5]])).tolist() == [[True, False], [False, True]]
    assert LabelThresholds.from_dict(thresholds.to_dict(), 2) == thresholds
    for key, value in (
        ("thresholds", [0.5]),
        ("thresholds", [0.5, "1"]),
        ("thresholds", [0.5, float("nan")]),
        ("is_promised", [1, 0]),
        ("target", "luck"),
        ("share", 2),
    ):
        with pytest.raises(ValueError):
            LabelThresholds.from_dict({**thresholds.to_dict(), key: value}, 2)


@pytest.mark.parametrize(("target", "share"), [("luck", 0.5), ("recall", 1.0), ("recall", 0.0), ("precision", 2.0)])
def test_targets_that_cannot_be_met(target, share):
    with pytest.raises(OptionError):
        check_target(target, share)


def test_a_target_that_a_half_keeps_is_kept_by_a_half():
    """With a higher threshold the recall, and with a lower one the precision, would be worse for nothing."""
    truth = np.arange(400) % 2 == 0
    probabilities = np.where(truth, np.linspace(0.8, 0.9, 400), np.linspace(0.05, 0.1, 400))[:, None]
    for target in ("recall", "precision"):
        arrays = (probabilities, truth[:, None], np.ones((400, 1), bool), np.arange(400))
        found = fit_label_thresholds(*arrays, target, 0.9)
        assert found == LabelThresholds((0.5,), (True,), target, 0.9)
        assert set_thresholds(*arrays, 0.9, found) == (0.5,)
