"""Learning curves: the points against heads fitted the long way, the expectation against what more pictures bring."""

from dataclasses import replace

import numpy as np
import pytest

from headstart.heads.centroid import solve_centroid
from headstart.heads.lda import solve_lda
from headstart.heads.learning_curve import FOLDS, deal_into_folds, extrapolate, learning_curve, round_number
from headstart.heads.ridge import solve_ridge
from headstart.heads.selection import HeadOptions, select_head
from headstart.heads.statistics import Statistics
from headstart.heads.training_set import TrainingSet


def select(values, labels, groups, **options):
    return select_head(TrainingSet.of(values, labels, groups), HeadOptions(**options))


def pictures(rng, count, centre, noise=1.0):
    labels = np.arange(count) % len(centre)
    return centre[labels] + noise * rng.normal(size=(count, centre.shape[1])), labels


def centres(seed=0, classes=3, d=30, apart=0.55):
    return apart * np.random.default_rng(seed).normal(size=(classes, d))


@pytest.mark.parametrize("options", [{"kind": "lda"}, {"kind": "centroid"}, {"kind": "ridge", "dropout": 0.4}])
def test_points_are_the_accuracies_of_heads_fitted_to_parts(options):
    rng = np.random.default_rng(3)
    x, labels = pictures(rng, 90, centres())
    groups = np.arange(90) // 2 * 2 % 89
    choice = select({"deep": x}, labels, groups, **options)
    found = learning_curve(choice, labels, groups, seed=7)
    folds = deal_into_folds(labels, groups, np.random.default_rng(7))
    vectors = choice.basis.vectors.rows(slice(None))
    unit = ((vectors - vectors.mean(axis=0)) ** 2).sum() / 90
    for size in range(1, FOLDS):
        right = []
        for start in range(FOLDS):
            learned = np.isin(folds, [(start + i) % FOLDS for i in range(size)])
            part = Statistics.of(vectors[learned], labels[learned], 3)
            if options["kind"] == "lda":
                weights, bias = solve_lda(part, choice.head.settings["shrinkage"] * unit)
            elif options["kind"] == "centroid":
                weights, bias = solve_centroid(part)
            else:
                weights, bias = solve_ridge(part, 0.4 / 0.6 * learned.sum() / 90)
            right.append((folds[~learned], (vectors[~learned] @ weights + bias).argmax(axis=1) == labels[~learned]))
        each = [np.mean(np.concatenate([r[f == fold] for f, r in right])) for fold in range(FOLDS)]
        shares = [np.mean(folds == fold) for fold in range(FOLDS)]
        assert found.points[size - 1].accuracy == pytest.approx(np.dot(each, shares), abs=1e-9)
    assert found.points[-1].images == 90
    assert found.points[-1].accuracy == (choice.probabilities.argmax(axis=1) == labels).mean()


def test_more_pictures_bring_about_what_is_expected():
    """25 times: the head of three times as many pictures, on thousands of fresh ones, lies within the interval."""
    inside, gains = 0, []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        centre = centres(seed, d=24)
        x, labels = pictures(rng, 360, centre)
        groups = np.arange(360)
        part = select({"deep": x[:120]}, labels[:120], groups[:120], kind="lda")
        found = learning_curve(part, labels[:120], groups[:120], more=240).expected
        whole = select({"deep": x}, labels, groups, kind="lda")
        new, truth = pictures(rng, 5000, centre)
        came = (whole.head.scores(new.astype(np.float32)).argmax(axis=1) == truth).mean()
        inside += found.interval[0] <= came <= found.interval[1]
        gains.append(found.accuracy - came)
    assert inside >= 21
    assert abs(np.mean(gains)) < 0.02


def test_the_expectation_is_between_now_and_everything_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    x, labels = pictures(rng, 120, centres())
    choice = select({"deep": x}, labels, np.arange(120))
    found = learning_curve(choice, labels, np.arange(120))
    assert found.more == 100
    assert found.expected.images == pytest.approx(220, abs=1)
    assert found.expected.per_class == (73, 73, 73)
    assert found.points[-1].accuracy <= found.expected.accuracy <= 1
    for point in (*found.points, found.expected):
        assert 0 <= point.interval[0] <= point.accuracy <= point.interval[1] <= 1
    assert [point.images for point in found.points] == [24, 48, 72, 96, 120]
    told = found.to_dict()
    assert told["expectation"]["more"] == 100
    assert len(told["points"]) == 5


def test_no_mistake_is_not_certainty_and_expects_no_less():
    x = np.r_[np.zeros((30, 5)), np.ones((30, 5))] + 0.01 * np.random.default_rng(0).normal(size=(60, 5))
    labels = np.repeat([0, 1], 30)
    choice = select({"deep": x}, labels, np.arange(60))
    found = learning_curve(choice, labels, np.arange(60))
    assert found.points[-1].accuracy == found.expected.accuracy == 1
    assert 0.85 < found.points[-1].interval[0] < 0.99
    assert found.points[-1].interval[0] <= found.expected.interval[0] < 1


def test_an_exact_power_law_is_carried_on():
    sizes = np.array([20.0, 40, 80, 100])
    errors = 3 * sizes**-0.5
    np.testing.assert_allclose(extrapolate(sizes, errors[None], 400), [3 * 400**-0.5])
    rising = extrapolate(sizes, errors[None, ::-1], 400)
    np.testing.assert_allclose(rising, errors[0])  # never worse than now


def test_folds_keep_groups_whole_and_classes_even():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 70, 300)
    labels = groups % 3
    folds = deal_into_folds(labels, groups, rng)
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
    for c in range(3):
        numbers = [len(np.unique(groups[(labels == c) & (folds == fold)])) for fold in range(FOLDS)]
        assert max(numbers) - min(numbers) <= 1


def test_where_there_is_no_curve_there_is_none():
    rng = np.random.default_rng(0)
    x, labels = pictures(rng, 60, centres())
    few = np.where(labels == 2, 1000 + np.arange(60) % 4, np.arange(60))  # a class of four groups
    choice = select({"deep": x}, labels, few)
    assert learning_curve(choice, labels, few) is None
    choice = select({"deep": x}, labels, np.arange(60))
    assert learning_curve(choice, labels, np.arange(60)) is not None
    iterative = replace(choice, head=replace(choice.head, kind="logistic"))
    assert learning_curve(iterative, labels, np.arange(60)) is None


def test_random_features_have_a_curve_too():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    labels = (np.linalg.norm(x, axis=1) > 1.1).astype(int)
    choice = select({"deep": x}, labels, np.arange(400), kind="ridge")
    assert choice.head.settings.get("random_features")
    found = learning_curve(choice, labels, np.arange(400))
    assert found.points[0].accuracy > 0.8


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (4, 2), (9, 5), (10, 10), (245, 200), (1027, 1000), (60, 50)])
def test_round_numbers(count, expected):
    assert round_number(count) == expected
