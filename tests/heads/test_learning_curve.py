"""Learning curves: points against heads fitted the long way, and the extrapolation against heads of more images."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.heads import select

from headstart.heads.candidates import ScoredCandidate
from headstart.heads.centroid import solve_centroid
from headstart.heads.folds import FOLDS, deal_into_folds
from headstart.heads.lda import solve_lda
from headstart.heads.learning_curve import error_interval, extrapolate, learning_curve, round_number
from headstart.heads.ridge import solve_ridge
from headstart.heads.statistics import Statistics
from headstart.heads.training_set import TrainingSet


def draw_class_means(seed=0, classes=3, d=30, spread=0.55):
    return spread * np.random.default_rng(seed).normal(size=(classes, d))


def draw_images(rng, count, class_means, noise=1.0):
    """Vectors [count, d] and labels [count]."""
    labels = np.arange(count) % len(class_means)
    return class_means[labels] + noise * rng.normal(size=(count, class_means.shape[1])), labels


def solve_part(statistics, options, head, unit, share):
    """The solution from the statistics of a ``share`` of the images; ``unit`` is the mean squared length of all."""
    if options["kind"] == "lda":
        return solve_lda(statistics, head.settings["shrinkage"] * unit)
    if options["kind"] == "centroid":
        return solve_centroid(statistics)
    return solve_ridge(statistics, 0.4 / 0.6 * share)


@pytest.mark.parametrize("options", [{"kind": "lda"}, {"kind": "centroid"}, {"kind": "ridge", "dropout": 0.4}])
def test_points_are_the_accuracies_of_heads_fitted_to_parts(options):
    x, labels = draw_images(np.random.default_rng(3), 90, draw_class_means())
    groups = np.arange(90) // 2 * 2 % 89
    selected = select({"deep": x}, labels, groups, **options)
    curve = learning_curve(selected, labels, groups, seed=7)
    folds = deal_into_folds(labels, groups, np.random.default_rng(7))
    vectors = selected.main.problem.basis.vectors.rows(slice(None))
    unit = ((vectors - vectors.mean(axis=0)) ** 2).sum() / 90
    for size in range(1, FOLDS):
        is_correct_by_round = []
        for start in range(FOLDS):
            is_train = np.isin(folds, [(start + i) % FOLDS for i in range(size)])
            statistics = Statistics.of(vectors[is_train], labels[is_train], 3)
            weights, bias = solve_part(statistics, options, selected.main.candidate, unit, is_train.sum() / 90)
            is_correct = (vectors[~is_train] @ weights + bias).argmax(axis=1) == labels[~is_train]
            is_correct_by_round.append((folds[~is_train], is_correct))
        fold_accuracies = [
            np.mean(np.concatenate([is_correct[test_folds == fold] for test_folds, is_correct in is_correct_by_round]))
            for fold in range(FOLDS)
        ]
        fold_shares = [np.mean(folds == fold) for fold in range(FOLDS)]
        assert curve.points[size - 1].accuracy == pytest.approx(np.dot(fold_accuracies, fold_shares), abs=1e-9)
        class_shares = np.bincount(labels) / len(labels)
        assert np.dot(curve.points[size - 1].class_accuracy, class_shares) == pytest.approx(
            curve.points[size - 1].accuracy, abs=1e-9
        )
    is_correct = selected.probabilities.argmax(axis=1) == labels
    assert curve.points[-1].class_accuracy == pytest.approx([is_correct[labels == c].mean() for c in range(3)])
    assert curve.points[-1].images == 90
    for point in (*curve.points, curve.expected):
        for accuracy, interval in zip(point.class_accuracy, point.class_interval, strict=True):
            assert interval is None or 0 <= interval[0] <= accuracy <= interval[1] <= 1
    assert curve.points[-1].accuracy == (selected.probabilities.argmax(axis=1) == labels).mean()


def test_the_interval_holds_the_accuracy_of_a_head_of_three_times_as_many_images():
    """In at least 21 of 25 draws, measured on 5000 new images; and in as many the accuracy of each class in its own."""
    covered, errors, classes = 0, [], []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        class_means = draw_class_means(seed, d=24)
        x, labels = draw_images(rng, 360, class_means)
        groups = np.arange(360)
        part = select({"deep": x[:120]}, labels[:120], groups[:120], kind="lda")
        expected = learning_curve(part, labels[:120], groups[:120], more=240).expected
        head = select({"deep": x}, labels, groups, kind="lda").head
        new, new_labels = draw_images(rng, 5000, class_means)
        is_correct = head.scores(new.astype(np.float32)).argmax(axis=1) == new_labels
        accuracy = is_correct.mean()
        for c, ends in enumerate(expected.class_interval):
            if ends is not None:
                classes.append(ends[0] <= is_correct[new_labels == c].mean() <= ends[1])
        covered += expected.interval[0] <= accuracy <= expected.interval[1]
        errors.append(expected.accuracy - accuracy)
    assert covered >= 21
    assert len(classes) > 40
    assert np.mean(classes) >= 21 / 25
    assert abs(np.mean(errors)) < 0.02


def test_the_expected_accuracy_is_at_least_that_of_all_images_and_within_its_interval():
    x, labels = draw_images(np.random.default_rng(0), 120, draw_class_means())
    selected = select({"deep": x}, labels, np.arange(120))
    curve = learning_curve(selected, labels, np.arange(120))
    assert curve.more == 100
    assert curve.expected.images == pytest.approx(220, abs=1)
    assert curve.expected.per_class == (73, 73, 73)
    assert curve.points[-1].accuracy <= curve.expected.accuracy <= 1
    for point in (*curve.points, curve.expected):
        assert 0 <= point.interval[0] <= point.accuracy <= point.interval[1] <= 1
    assert [point.images for point in curve.points] == [24, 48, 72, 96, 120]
    json_form = curve.to_dict()
    assert json_form["expectation"]["more"] == 100
    assert len(json_form["points"]) == 5


def test_without_errors_the_interval_still_has_a_width():
    x = np.r_[np.zeros((30, 5)), np.ones((30, 5))] + 0.01 * np.random.default_rng(0).normal(size=(60, 5))
    labels = np.repeat([0, 1], 30)
    selected = select({"deep": x}, labels, np.arange(60))
    curve = learning_curve(selected, labels, np.arange(60))
    assert curve.points[-1].accuracy == curve.expected.accuracy == 1
    assert 0.85 < curve.points[-1].interval[0] < 0.99
    # With 110 groups instead of 60, but they are to be measured again.
    assert curve.points[-1].interval[0] - 0.03 < curve.expected.interval[0] < 1


def test_what_is_expected_varies_as_it_will_be_measured():
    """Without anything to learn the error is as uncertain as now, and is measured on twice as many groups besides."""
    is_wrong = np.arange(400) % 10 < 3
    errors, sizes = np.tile(is_wrong.astype(float), (5, 1)), np.array([80.0, 160, 240, 320, 400, 800])
    low, high = error_interval(errors, np.arange(400), sizes, seed=0)
    now, expected = (high - low)[-2:]
    assert now == pytest.approx(2 * 1.96 * np.sqrt(0.3 * 0.7 / 400), rel=0.1)
    assert expected == pytest.approx(now * np.sqrt(1 + 1 / 2), rel=0.12)
    scenes = np.repeat(is_wrong[:100], 4)  # 100 groups, each right or wrong as a whole
    low, high = error_interval(np.tile(scenes.astype(float), (5, 1)), np.arange(400) // 4, sizes, seed=0)
    assert (high - low)[-1] == pytest.approx(2 * expected, rel=0.15)


def test_an_exact_power_law_is_extrapolated_exactly():
    sizes = np.array([20.0, 40, 80, 100])
    errors = 3 * sizes**-0.5
    np.testing.assert_allclose(extrapolate(sizes, errors[None], 400), [3 * 400**-0.5])
    rising = extrapolate(sizes, errors[None, ::-1], 400)
    np.testing.assert_allclose(rising, errors[0])  # no worse than with the images there are


def test_there_is_no_curve_without_enough_groups_or_a_closed_form():
    x, labels = draw_images(np.random.default_rng(0), 60, draw_class_means())
    groups = np.where(labels == 2, 1000 + np.arange(60) % 4, np.arange(60))  # a class of four groups
    assert learning_curve(select({"deep": x}, labels, groups), labels, groups) is None
    selected = select({"deep": x}, labels, np.arange(60))
    assert learning_curve(selected, labels, np.arange(60)) is not None
    logistic = replace(selected.main.candidate, kind="logistic")
    selected = replace(selected, main=replace(selected.main, candidate=logistic))
    assert learning_curve(selected, labels, np.arange(60)) is None
    assert learning_curve(selected.without_arrays(), labels, np.arange(60)) is None


def test_an_average_of_heads_has_the_curve_of_the_greatest_weight():
    x, labels = draw_images(np.random.default_rng(3), 90, draw_class_means())
    groups = np.arange(90)
    selected = select({"deep": x}, labels, groups)
    assert sum(candidate.weight > 0 for candidate in selected.candidates) > 1
    main = max(selected.candidates, key=lambda candidate: candidate.weight)
    assert selected.main.candidate == main
    curve = learning_curve(selected, labels, groups)
    alone = TrainingSet.of({"deep": x}, labels, groups).problem(("deep",), main.scaling)
    scored = ScoredCandidate(main, selected.main.losses, selected.main.scores, alone)
    assert learning_curve(replace(selected, main=scored), labels, groups).points[:-1] == curve.points[:-1]
    assert curve.points[-1].accuracy == (selected.probabilities.argmax(axis=1) == labels).mean()


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (4, 2), (9, 5), (10, 10), (245, 200), (1027, 1000), (60, 50)])
def test_round_numbers(count, expected):
    assert round_number(count) == expected
