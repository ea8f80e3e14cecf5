"""Prediction sets and rejection: quantiles against counting, and targets against new images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import OptionError
from headstart.stats.conformal import (
    ConformalThresholds,
    effective_groups,
    fit_thresholds,
    group_quantile,
    groups_needed,
)


@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]))
def test_the_quantile_of_single_images_is_that_of_split_conformal_prediction(seed, count, share):
    """The value of rank ceil(share * (n + 1)), and infinity where n is smaller than that."""
    values = np.random.default_rng(seed).normal(size=count)
    rank = int(np.ceil(share * (count + 1) - 1e-9))
    expected = np.sort(values)[rank - 1] if rank <= count else np.inf
    assert group_quantile(values, np.arange(count), share) == expected
    assert np.isfinite(expected) == (count >= groups_needed(share))


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 6))
def test_copies_of_images_do_not_move_the_quantile(seed, count, copies):
    values = np.random.default_rng(seed).normal(size=count)
    groups = np.arange(count)
    expected = group_quantile(values, groups, 0.8)
    assert group_quantile(np.repeat(values, copies), np.repeat(groups, copies), 0.8) == expected


def test_groups_needed_is_the_least_number_that_meets_the_target():
    assert [groups_needed(share) for share in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_effective_groups_are_the_groups_where_all_are_of_one_size_and_fewer_else(sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    expected = 1 / sum((size / sum(sizes)) ** 2 for size in sizes)
    assert effective_groups(groups) == pytest.approx(expected)
    assert 1 <= effective_groups(groups) <= len(sizes) + 1e-9
    assert effective_groups(np.repeat(np.arange(len(sizes)), 3)) == pytest.approx(len(sizes))


@pytest.mark.parametrize(("count", "low"), [(60, 0.94), (150, 0.94)])
def test_targets_hold_on_average_for_groups_of_one_or_of_sixty_images(count, low):
    """Mean over images of new groups, whether or not the images of large groups are harder."""
    rng = np.random.default_rng(0)

    def draw(shift):
        sizes = np.where(rng.random(count) < 0.5, 1, 60)
        groups = np.repeat(np.arange(count), sizes)
        common = 0.8 * rng.normal(size=count) + shift * (sizes > 1)
        return common[groups] + 0.6 * rng.normal(size=len(groups)), groups

    for shift in (0.0, 1.5, -1.5):
        shares = []
        for _ in range(60):
            threshold = group_quantile(*draw(shift), 0.95)
            shares.append((draw(shift)[0] <= threshold).mean())
        assert low < np.mean(shares) < 0.98


def draw_scenes(rng, count, max_size, classes=3, noise=1.2):
    """Probabilities [n, k], labels [n], groups [n] and OOD scores [n] of images of ``count`` scenes.

    A scene has up to ``max_size`` images. One error is common to its images, another is of each image alone.
    """
    sizes = rng.integers(1, max_size + 1, count)
    groups = np.repeat(np.arange(count), sizes)
    labels = rng.integers(0, classes, count)[groups]
    scores = 2 * np.eye(classes)[labels] + noise * rng.normal(size=(count, classes))[groups]
    scores += 0.3 * rng.normal(size=scores.shape)
    p = np.exp(scores)
    return p / p.sum(axis=1, keepdims=True), labels, groups, scores[:, 0] ** 2


def is_covered(probabilities, labels, thresholds):
    """Whether the probability of the true class reaches its threshold [n]."""
    return (probabilities >= np.array(thresholds.set_thresholds))[np.arange(len(labels)), labels]


def test_targets_are_met_on_images_of_new_scenes():
    """Mean over 200 draws of scenes: coverage, coverage of each class, and false-rejection rate."""
    rng, coverage, class_coverage, rejected = np.random.default_rng(0), [], [[], [], []], []
    for _ in range(200):
        thresholds = fit_thresholds(*draw_scenes(rng, 200, 6), coverage=0.9, false_alarms=0.1)
        probabilities, labels, _, ood_scores = draw_scenes(rng, 400, 6)
        above = probabilities >= np.array(thresholds.set_thresholds)
        covered = is_covered(probabilities, labels, thresholds)
        assert (thresholds.sets(probabilities) >= above).all()  # only the most probable class may be added
        coverage.append(covered.mean())
        for c in range(3):
            class_coverage[c].append(covered[labels == c].mean())
        rejected.append(thresholds.rejects(ood_scores).mean())
    assert 0.9 <= np.mean(coverage) <= 0.915
    assert all(0.895 <= np.mean(of_class) <= 0.92 for of_class in class_coverage)
    assert 0.085 <= np.mean(rejected) <= 0.104


def test_without_groups_the_coverage_of_new_scenes_falls_short():
    """Images of one scene, counted as if they were independent, give a threshold that is too high."""
    rng, coverage = np.random.default_rng(1), {"with groups": [], "without groups": []}
    for _ in range(200):
        probabilities, labels, groups, ood_scores = draw_scenes(rng, 25, 12, noise=2.0)
        new_probabilities, new_labels, _, _ = draw_scenes(rng, 300, 12, noise=2.0)
        for name, index in (("with groups", groups), ("without groups", np.arange(len(groups)))):
            thresholds = fit_thresholds(probabilities, labels, index, ood_scores, coverage=0.9, false_alarms=0.1)
            coverage[name].append(is_covered(new_probabilities, new_labels, thresholds).mean())
    assert np.mean(coverage["with groups"]) >= 0.89
    assert np.mean(coverage["without groups"]) < np.mean(coverage["with groups"]) - 0.02


def test_classes_with_few_groups_share_a_threshold():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 100 + [1] * 100 + [2] * 5 + [3] * 5)
    p = rng.dirichlet(np.ones(4), 210)
    fitted = fit_thresholds(p, labels, np.arange(210), np.zeros(210), coverage=0.9, false_alarms=0.1)
    thresholds, true_p = fitted.set_thresholds, p[np.arange(210), labels]
    assert thresholds[0] == -group_quantile(-true_p[labels == 0], np.arange(100), 0.9)
    assert thresholds[1] == -group_quantile(-true_p[labels == 1], np.arange(100), 0.9)
    # Ten images of two classes together are too few: the threshold is that of all images.
    assert thresholds[2] == thresholds[3] == -group_quantile(-true_p, np.arange(210), 0.9)
    assert len(set(thresholds)) == 3


def test_with_too_few_groups_sets_hold_every_class_and_nothing_is_rejected():
    p = np.full((8, 2), 0.5)
    thresholds = fit_thresholds(p, np.arange(8) % 2, np.arange(8), np.arange(8.0), coverage=0.95, false_alarms=0.05)
    assert thresholds.set_thresholds == (0.0, 0.0)
    assert thresholds.reject_threshold == float("inf")
    assert thresholds.sets(np.array([[1.0, 0.0]])).all()
    assert not thresholds.rejects(np.array([1e9])).any()


def test_a_false_rejection_rate_of_zero_rejects_nothing():
    p = np.full((100, 2), 0.5)
    thresholds = fit_thresholds(p, np.arange(100) % 2, np.arange(100), np.arange(100.0), coverage=0.5, false_alarms=0.0)
    assert thresholds.reject_threshold == float("inf")


@pytest.mark.parametrize(("coverage", "false_alarms"), [(0, 0.05), (1, 0.05), (2, 0.05), (0.9, 1), (0.9, -0.1)])
def test_targets_that_cannot_be_met_are_errors(coverage, false_alarms):
    images = (np.full((4, 2), 0.5), np.arange(4) % 2, np.arange(4), np.ones(4))
    with pytest.raises(OptionError):
        fit_thresholds(*images, coverage=coverage, false_alarms=false_alarms)
    with pytest.raises(OptionError):
        fit_thresholds(*images, coverage=float("nan"), false_alarms=float("nan"))


def test_the_most_probable_class_is_always_in_the_set():
    thresholds = ConformalThresholds(0.9, (0.99, 0.5, 0.3), 0.1, 0.5)
    sets = thresholds.sets(np.array([[0.6, 0.1, 0.3], [0.4, 0.55, 0.05]]))
    assert sets.tolist() == [[True, False, True], [False, True, False]]
