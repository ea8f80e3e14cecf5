"""Prediction sets and refusal: the quantiles against counting, the promises against fresh pictures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import OptionError
from headstart.stats.conformal import ConformalThresholds, fit_thresholds, group_quantile, groups_needed


@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]))
def test_the_quantile_of_single_pictures_is_that_of_split_conformal_prediction(seed, count, share):
    """The ceil(share * (n + 1))-th smallest value; infinity where there is no such one."""
    values = np.random.default_rng(seed).normal(size=count)
    place = int(np.ceil(share * (count + 1) - 1e-9))
    expected = np.sort(values)[place - 1] if place <= count else np.inf
    assert group_quantile(values, np.arange(count), share) == expected
    assert np.isfinite(expected) == (count >= groups_needed(share))


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 6))
def test_copies_of_pictures_do_not_move_the_quantile(seed, count, copies):
    values = np.random.default_rng(seed).normal(size=count)
    groups = np.arange(count)
    once = group_quantile(values, groups, 0.8)
    assert group_quantile(np.repeat(values, copies), np.repeat(groups, copies), 0.8) == once


def test_groups_needed_are_the_least_that_can_promise():
    assert [groups_needed(share) for share in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]


def scenes(rng, count, each, classes=3, noise=1.2):
    """Scores of ``count`` scenes of up to ``each`` pictures: a scene has an error of its own, and so has a picture."""
    sizes = rng.integers(1, each + 1, count)
    groups = np.repeat(np.arange(count), sizes)
    labels = rng.integers(0, classes, count)[groups]
    scores = 2 * np.eye(classes)[labels] + noise * rng.normal(size=(count, classes))[groups]
    scores += 0.3 * rng.normal(size=scores.shape)
    p = np.exp(scores)
    return p / p.sum(axis=1, keepdims=True), labels, groups, scores[:, 0] ** 2


def test_promises_hold_for_pictures_of_new_scenes():
    """Mean over 200 draws of scenes: coverage and false alarms as promised, in each class too."""
    rng, covered, own, alarms = np.random.default_rng(0), [], [[], [], []], []
    for _ in range(200):
        p, labels, groups, distances = scenes(rng, 200, 6)
        promises = fit_thresholds(p, labels, groups, distances, coverage=0.9, false_alarms=0.1)
        new, truth, _, far = scenes(rng, 400, 6)
        above = new >= np.array(promises.set_thresholds)
        inside = above[np.arange(len(truth)), truth]
        assert (promises.sets(new) >= above).all()  # the most probable class is added, none is taken away
        covered.append(inside.mean())
        for c in range(3):
            own[c].append(inside[truth == c].mean())
        alarms.append(promises.rejects(far).mean())
    assert 0.9 <= np.mean(covered) <= 0.915
    assert all(0.895 <= np.mean(one) <= 0.92 for one in own)
    assert 0.085 <= np.mean(alarms) <= 0.104


def test_scenes_taken_for_single_pictures_promise_too_much():
    """Forgetting the groups gives a threshold as if there were more to go by, and coverage falls short."""
    rng, honest, fooled = np.random.default_rng(1), [], []
    for _ in range(200):
        p, labels, groups, distances = scenes(rng, 25, 12, noise=2.0)
        new, truth, _, _ = scenes(rng, 300, 12, noise=2.0)
        for index, found in ((groups, honest), (np.arange(len(groups)), fooled)):
            promises = fit_thresholds(p, labels, index, distances, coverage=0.9, false_alarms=0.1)
            inside = new >= np.array(promises.set_thresholds)
            found.append(inside[np.arange(len(truth)), truth].mean())
    assert np.mean(honest) >= 0.89
    assert np.mean(fooled) < np.mean(honest) - 0.02


def test_a_class_with_few_groups_shares_a_threshold():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 100 + [1] * 100 + [2] * 5 + [3] * 5)
    p = rng.dirichlet(np.ones(4), 210)
    found = fit_thresholds(p, labels, np.arange(210), np.zeros(210), coverage=0.9, false_alarms=0.1).set_thresholds
    own = p[np.arange(210), labels]
    assert found[0] == -group_quantile(-own[labels == 0], np.arange(100), 0.9)
    assert found[1] == -group_quantile(-own[labels == 1], np.arange(100), 0.9)
    assert found[2] == found[3] == -group_quantile(-own, np.arange(210), 0.9)  # ten pictures together are too few
    assert len({*found}) == 3


def test_too_few_groups_promise_nothing():
    p = np.full((8, 2), 0.5)
    found = fit_thresholds(p, np.arange(8) % 2, np.arange(8), np.arange(8.0), coverage=0.95, false_alarms=0.05)
    assert found.set_thresholds == (0.0, 0.0)
    assert found.reject_threshold == float("inf")
    assert found.sets(np.array([[1.0, 0.0]])).all()
    assert not found.rejects(np.array([1e9])).any()


def test_no_false_alarms_refuses_nothing():
    p = np.full((100, 2), 0.5)
    found = fit_thresholds(p, np.arange(100) % 2, np.arange(100), np.arange(100.0), coverage=0.5, false_alarms=0.0)
    assert found.reject_threshold == float("inf")


@pytest.mark.parametrize(("coverage", "false_alarms"), [(0, 0.05), (1, 0.05), (2, 0.05), (0.9, 1), (0.9, -0.1)])
def test_promises_that_nobody_can_keep_are_refused(coverage, false_alarms):
    p = np.full((4, 2), 0.5)
    with pytest.raises(OptionError):
        fit_thresholds(p, np.arange(4) % 2, np.arange(4), np.ones(4), coverage=coverage, false_alarms=false_alarms)
    with pytest.raises(OptionError):
        fit_thresholds(p, np.arange(4) % 2, np.arange(4), np.ones(4), coverage=float("nan"), false_alarms=float("nan"))


def test_the_most_probable_class_is_always_in_the_set():
    promises = ConformalThresholds(0.9, (0.99, 0.5, 0.3), 0.1, 0.5)
    sets = promises.sets(np.array([[0.6, 0.1, 0.3], [0.4, 0.55, 0.05]]))
    assert sets.tolist() == [[True, False, True], [False, True, False]]
