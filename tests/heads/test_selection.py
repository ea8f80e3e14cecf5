"""The choice of taps, head and penalty: honest, and defined in every corner."""

import numpy as np
import pytest

from headstart.errors import DataError, OptionError
from headstart.heads.centroid import solve_centroid
from headstart.heads.head import softmax
from headstart.heads.lda import solve_lda
from headstart.heads.ridge import PENALTIES, solve_ridge
from headstart.heads.selection import HeadOptions, rank_candidates, select_head
from headstart.heads.statistics import Statistics
from headstart.heads.training_set import TrainingSet


def select(values, labels, groups, images=None, **options):
    return select_head(TrainingSet.of(values, labels, groups, images), HeadOptions(**options))


def rank(values, labels, groups, images=None, **options):
    return rank_candidates(TrainingSet.of(values, labels, groups, images), HeadOptions(**options))


def clusters(seed=0, groups=40, each=4, d=24, spread=0.3, classes=2):
    """Groups of near copies; the class shows in the deep tap, the group in both."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(groups), each)
    labels = np.arange(groups)[index] % classes
    scene = rng.normal(size=(groups, d))
    centre = rng.normal(size=(classes, d))
    deep = centre[labels] * 1.5 + scene[index] + spread * rng.normal(size=(len(index), d))
    shallow = scene[index] * 3 + spread * rng.normal(size=(len(index), d))
    return {"shallow": shallow.astype(np.float16), "deep": deep.astype(np.float16)}, labels, index


def test_the_tap_that_carries_the_class_is_chosen_and_its_accuracy_is_not_flattered():
    values, labels, groups = clusters()
    choice = select(values, labels, groups)
    assert choice.head.taps == ("deep",)
    new, truth, _ = clusters(seed=0, spread=0.3)
    fresh_rng = np.random.default_rng(77)
    # New groups of the same classes: centres are drawn first after the scenes, so rebuild them from the same seed.
    rng = np.random.default_rng(0)
    rng.normal(size=(40, 24))
    centre = rng.normal(size=(2, 24))
    truth = np.arange(2000) % 2
    new = centre[truth] * 1.5 + fresh_rng.normal(size=(2000, 24)) + 0.3 * fresh_rng.normal(size=(2000, 24))
    unseen = (choice.head.scores(new.astype(np.float32)).argmax(axis=1) == truth).mean()
    claimed = (choice.probabilities.argmax(axis=1) == labels).mean()
    assert abs(unseen - claimed) < 0.08


def test_leaving_out_single_pictures_of_scenes_flatters():
    """With labels that are noise to a scene, memory of the scene is all there is to learn."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(60), 4)
    labels = rng.permutation(np.arange(60) % 2)[groups]
    values = {"deep": rng.normal(size=(60, 80))[groups] + 0.1 * rng.normal(size=(240, 80))}
    alone = select(values, labels, np.arange(240))
    whole = select(values, labels, groups)
    assert (alone.probabilities.argmax(axis=1) == labels).mean() > 0.95
    assert (whole.probabilities.argmax(axis=1) == labels).mean() < 0.7


@pytest.mark.parametrize("kind", ["auto", "ridge", "lda", "centroid", "logistic"])
def test_every_head_learns_and_its_probabilities_are_calibrated_rows(kind):
    values, labels, groups = clusters(classes=3, groups=45)
    choice = select(values, labels, groups, kind=kind)
    assert kind in ("auto", choice.head.kind)
    probabilities = (
        choice.head.probabilities(np.asarray(values[choice.head.taps[-1]], np.float32))
        if len(choice.head.taps) == 1
        else None
    )
    np.testing.assert_allclose(choice.probabilities.sum(axis=1), 1, atol=1e-12)
    if probabilities is not None:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
        assert (probabilities.argmax(axis=1) == labels).mean() > 0.85


@pytest.mark.parametrize("settings", [{}, {"dropout": 0.5}, {"kind": "lda"}, {"kind": "centroid"}])
def test_the_fitted_head_is_the_one_that_was_judged(settings):
    """Fitting on all but a group and scoring the group gives the held-out scores of that very choice."""
    values, labels, groups = clusters(groups=12, each=2)
    values = {"deep": values["deep"].astype(np.float64)}
    choice = select(values, labels, groups, **settings)
    if "random_features" in choice.head.settings:
        pytest.skip("random features are spread over all images")
    scores = rank(values, labels, groups, **settings).selected.scores
    x = values["deep"]
    refit = select(values, labels, np.arange(len(labels)), **settings)  # only its head's algebra is used below
    assert refit.head.weights.shape == choice.head.weights.shape
    deviations = x - x.mean(axis=0)
    if "dropout" in settings:
        scale = 1 / np.sqrt((x**2).sum(axis=0))
    else:
        scale = np.full(x.shape[1], 1 / np.sqrt(deviations.var(axis=0).sum()))
    scaled = x * scale
    unit = (deviations**2 * scale**2).sum() / len(x)
    for group in range(3):
        out, stay = groups == group, groups != group
        statistics = Statistics.of(scaled[stay], labels[stay], 2)
        if choice.head.kind == "lda":
            weights, bias = solve_lda(statistics, choice.head.settings["shrinkage"] * unit)
        elif choice.head.kind == "centroid":
            weights, bias = solve_centroid(statistics)
        elif "dropout" in choice.head.settings:
            rate = choice.head.settings["dropout"]
            weights, bias = solve_ridge(statistics, rate / (1 - rate))
        else:
            weights, bias = solve_ridge(statistics, choice.head.settings["penalty"] * unit)
        expected, got = scaled[out] @ weights + bias, scores[out]
        np.testing.assert_allclose(
            got - got.mean(axis=1, keepdims=True), expected - expected.mean(axis=1, keepdims=True), atol=1e-6
        )


def test_one_picture_a_class_still_gives_a_head():
    rng = np.random.default_rng(0)
    values = {"deep": rng.normal(size=(5, 30)).astype(np.float16)}
    choice = select(values, np.arange(5), np.arange(5))
    x = np.asarray(values["deep"], np.float32)
    assert (choice.head.scores(x).argmax(axis=1) == np.arange(5)).all()
    assert np.isfinite(choice.probabilities).all()


def test_two_classes_of_very_unequal_size():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 3 + [1] * 300)
    values = {"deep": (rng.normal(size=(303, 10)) + 6 * (labels == 0)[:, None]).astype(np.float16)}
    choice = select(values, labels, np.arange(303))
    assert (choice.probabilities.argmax(axis=1) == labels)[:3].all()


def test_one_class_is_a_clear_error():
    with pytest.raises(DataError, match="at least two classes"):
        select({"deep": np.ones((4, 3))}, np.zeros(4, int), np.arange(4))


@pytest.mark.slow
def test_a_thousand_classes():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(1000), 3)
    values = {"deep": (rng.normal(size=(1000, 64))[labels] + 0.3 * rng.normal(size=(3000, 64))).astype(np.float16)}
    choice = select(values, labels, np.arange(3000))
    assert (choice.probabilities.argmax(axis=1) == labels).mean() > 0.95
    assert choice.probabilities.shape == (3000, 1000)


def test_features_without_any_variation_do_not_fail():
    labels = np.arange(12) % 2
    choice = select({"dead": np.zeros((12, 5)), "flat": np.ones((12, 3))}, labels, np.arange(12))
    assert np.isfinite(choice.head.weights).all()
    np.testing.assert_allclose(choice.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "forest"}, {"cut": "nowhere"}, {"cut": ("deep", "nowhere")}, {"dropout": 1.0}, {"dropout": -0.5},
        {"dropout": 0.5, "kind": "lda"},
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(options):
    values, labels, groups = clusters(groups=8)
    with pytest.raises(OptionError):
        select(values, labels, groups, **options)


def test_the_cut_asked_for_is_used():
    values, labels, groups = clusters(groups=10)
    assert select(values, labels, groups, cut="shallow").head.taps == ("shallow",)
    both = select(values, labels, groups, cut=("shallow", "deep"), kind="ridge")
    assert both.head.taps == ("shallow", "deep")
    assert both.head.weights.shape == (48, 2)


def test_the_dropout_asked_for_is_used():
    values, labels, groups = clusters(groups=10)
    choice = select(values, labels, groups, dropout=0.3)
    assert choice.head.kind == "ridge"
    assert choice.head.settings["dropout"] == 0.3


def test_dropout_zero_is_plain_least_squares():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    x = rng.normal(size=(60, 5)) + labels[:, None]
    choice = select({"deep": x}, labels, np.arange(60), dropout=0.0)
    design = np.c_[x, np.ones(60)]
    expected = design @ np.linalg.lstsq(design, np.eye(2)[labels], rcond=None)[0]
    np.testing.assert_allclose(choice.head.scores(x), expected, atol=1e-4)


def test_random_features_are_tried_where_a_line_cannot_do_it():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    labels = (np.linalg.norm(x, axis=1) > 1.1).astype(int)
    choice = select({"deep": x}, labels, np.arange(400), kind="ridge")
    assert choice.head.settings.get("random_features")
    assert (choice.probabilities.argmax(axis=1) == labels).mean() > 0.93


def test_the_same_data_in_another_order_give_the_same_choice():
    values, labels, groups = clusters()
    order = np.random.default_rng(9).permutation(len(labels))
    first = select(values, labels, groups)
    second = select({k: v[order] for k, v in values.items()}, labels[order], groups[order])
    assert first.head.settings == second.head.settings
    np.testing.assert_allclose(first.probabilities[order], second.probabilities, atol=1e-6)
    np.testing.assert_allclose(first.head.weights, second.head.weights, atol=1e-4)


def test_candidates_are_told():
    values, labels, groups = clusters(groups=10)
    tried = select(values, labels, groups).candidates
    kinds = {(c.taps, c.kind) for c in tried}
    assert {(("deep",), "ridge"), (("deep",), "lda"), (("shallow",), "centroid")} <= kinds
    assert sum(c.kind == "ridge" and c.taps == ("deep",) and "penalty" in c.settings for c in tried) >= len(PENALTIES)
    assert all(np.isfinite(c.log_loss) for c in tried)


def test_further_views_are_learned_from_but_do_not_judge():
    """With a copy of every vector as its view, what is told of a picture is of a refit without both."""
    rng = np.random.default_rng(5)
    labels, groups = np.tile([0, 1], 30), np.arange(60)
    x = rng.normal(size=(60, 8)) + 0.8 * labels[:, None]
    twice = select({"t": np.tile(x, (2, 1))}, np.tile(labels, 2), np.tile(groups, 2), kind="ridge", images=60)
    scaled = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0).sum())
    penalty = float(twice.head.settings["penalty"])  # in spreads of one picture: against twice the data, half as much
    for i in (0, 7, 59):
        weights, bias = solve_ridge(Statistics.of(np.delete(scaled, i, 0), np.delete(labels, i), 2), penalty / 2)
        expected = softmax((scaled[[i]] @ weights + bias) / twice.head.temperature)
        np.testing.assert_allclose(twice.probabilities[[i]], expected, atol=1e-9)
    # A view of the wrong class: learned from, so everything is worse, but only the pictures are counted.
    views = ({"t": np.concatenate([x, x])}, np.r_[labels, 1 - labels], np.tile(groups, 2))
    wrong = rank(*views, kind="ridge", images=60).selected.candidate
    assert wrong.accuracy < rank({"t": x}, labels, groups, kind="ridge").selected.candidate.accuracy
    right = (select(*views, kind="ridge", images=60).probabilities.argmax(axis=1) == labels).mean()
    assert wrong.accuracy == pytest.approx(right)


def test_a_picture_is_left_out_with_its_views():
    """Views that give their picture's class away would make noise look learnable if they stayed."""
    rng = np.random.default_rng(6)
    labels = np.tile([0, 1], 20)
    x = rng.normal(size=(40, 60))
    values, groups = np.tile(x, (3, 1)) + 0.01 * rng.normal(size=(120, 60)), np.tile(np.arange(40), 3)
    told = rank({"t": values}, np.tile(labels, 3), groups, kind="ridge", images=40).selected.candidate.accuracy
    flattered = rank({"t": values}, np.tile(labels, 3), np.arange(120), kind="ridge", images=40)
    flattered = flattered.selected.candidate.accuracy
    assert told < 0.7
    assert flattered > 0.9


def test_of_many_pictures_the_same_is_chosen(monkeypatch):
    """Where memory is spared, tap sets are judged one after the other: as they are side by side."""
    rng = np.random.default_rng(0)
    labels, groups = np.arange(120) % 3, np.arange(120) // 2
    values = {name: (rng.normal(size=(120, d)) + 0.4 * labels[:, None]).astype(np.float32) for name, d in
              (("early", 4), ("middle", 6), ("late", 8))}  # fmt: skip
    beside = rank(values, labels, groups)
    monkeypatch.setattr("headstart.heads.selection.MANY_IMAGES", 1)
    after = rank(values, labels, groups)
    assert {c.taps for c in beside.candidates} >= {("middle", "late"), ("early", "middle", "late")}
    assert [c.to_dict() for c in after.candidates] == [c.to_dict() for c in beside.candidates]
    assert after.selected.candidate.to_dict() == beside.selected.candidate.to_dict()
