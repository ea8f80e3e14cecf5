"""Selection of taps, kind of head and penalty: its held-out figures hold on new images, and corner cases work."""

import numpy as np
import pytest
from helpers.heads import centred, overlapping_classes, rank, scenes, select

from headstart.errors import DataError, OptionError
from headstart.heads import eigenbasis, selection
from headstart.heads.candidates import Candidate, ScoredCandidate, tied_with_best
from headstart.heads.centroid import solve_centroid
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.head import softmax
from headstart.heads.lda import solve_lda
from headstart.heads.mlp import MlpConfig
from headstart.heads.ood import fit_ood, held_out_ood_scores
from headstart.heads.ridge import solve_ridge
from headstart.heads.selection import HeadOptions, rank_tap_sets
from headstart.heads.statistics import Statistics
from headstart.heads.training_set import TrainingSet
from headstart.stats.temperature import fit_temperature


def accuracy(scores, labels):
    return (scores.argmax(axis=1) == labels).mean()


def test_the_tap_that_shows_the_class_is_selected_and_its_accuracy_holds_on_new_groups():
    values, labels, groups = scenes()
    selected = select(values, labels, groups, cut="deep")
    assert max(select(values, labels, groups).candidates, key=lambda c: c.weight).taps == ("deep",)
    rng = np.random.default_rng(0)
    rng.normal(size=(40, 24))  # ``scenes`` draws the vectors of its groups, and then the means of the classes
    class_means = rng.normal(size=(2, 24))
    new_rng, new_labels = np.random.default_rng(77), np.arange(2000) % 2
    new = class_means[new_labels] * 1.5 + new_rng.normal(size=(2000, 24)) + 0.3 * new_rng.normal(size=(2000, 24))
    new_accuracy = accuracy(selected.head.scores(new.astype(np.float32)), new_labels)
    assert abs(new_accuracy - accuracy(selected.probabilities, labels)) < 0.08


def test_leaving_out_single_images_of_scenes_overestimates_the_accuracy():
    """The labels of the scenes are noise: a head can learn nothing but which scene is which."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(60), 4)
    labels = rng.permutation(np.arange(60) % 2)[groups]
    values = {"deep": rng.normal(size=(60, 80))[groups] + 0.1 * rng.normal(size=(240, 80))}
    by_image = select(values, labels, np.arange(240))
    by_group = select(values, labels, groups)
    assert accuracy(by_image.probabilities, labels) > 0.95
    assert accuracy(by_group.probabilities, labels) < 0.7


@pytest.mark.parametrize("kind", ["auto", "ridge", "lda", "centroid", "logistic"])
def test_every_kind_of_head_learns_and_its_probabilities_sum_to_one(kind):
    values, labels, groups = scenes(classes=3, groups=45)
    selected = select(values, labels, groups, kind=kind)
    assert selected.head.kind in ((kind,) if kind != "auto" else ("ridge", "lda", "average"))
    np.testing.assert_allclose(selected.probabilities.sum(axis=1), 1, atol=1e-12)
    if len(selected.head.taps) == 1:
        probabilities = selected.head.probabilities(np.asarray(values[selected.head.taps[-1]], np.float32))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
        assert accuracy(probabilities, labels) > 0.85


def solve_written_out(candidate, statistics, unit):
    """The solution with the kind and settings of a candidate; ``unit`` is the mean squared length of the vectors."""
    if candidate.kind == "lda":
        return solve_lda(statistics, candidate.settings["shrinkage"] * unit)
    if candidate.kind == "centroid":
        return solve_centroid(statistics)
    if "dropout" in candidate.settings:
        rate = candidate.settings["dropout"]
        return solve_ridge(statistics, rate / (1 - rate))
    return solve_ridge(statistics, candidate.settings["penalty"] * unit)


def scales_written_out(x, scaling):
    """The factors of the vectors of one tap."""
    if scaling == "dropout":
        return 1 / np.sqrt((x**2).sum(axis=0))
    deviation = x.std(axis=0)
    scales = 1 / (deviation + 0.001 * deviation.mean()) if scaling == "channel" else np.ones(x.shape[1])
    return scales / np.sqrt((deviation**2 * scales**2).sum())


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"kind": "lda"}, {"kind": "centroid"}])
def test_held_out_scores_are_those_of_the_selected_settings_fitted_without_the_group(options):
    values, labels, groups = scenes(groups=12, group_size=2)
    x = values["deep"].astype(np.float64)
    result = rank({"deep": x}, labels, groups, **options)
    deviations = x - x.mean(axis=0)
    for part in result.parts:
        scale = scales_written_out(x, part.candidate.scaling)
        scaled, unit = x * scale, (deviations**2 * scale**2).sum() / len(x)
        for group in range(3):
            is_left_out = groups == group
            statistics = Statistics.of(scaled[~is_left_out], labels[~is_left_out], 2)
            weights, bias = solve_written_out(part.candidate, statistics, unit)
            expected = scaled[is_left_out] @ weights + bias
            np.testing.assert_allclose(centred(part.scores[is_left_out]), centred(expected), atol=1e-6)


def test_the_head_is_the_average_of_its_parts_by_their_evidence():
    values, labels, groups = overlapping_classes()
    result = rank(values, labels, groups)
    assert len(result.parts) > 2
    losses = np.array([part.candidate.log_loss for part in result.parts])
    taps = np.array([len(part.candidate.taps) for part in result.parts])
    weights = np.exp(-60 * losses / 2 - taps)
    weights /= weights.sum()
    np.testing.assert_allclose([part.candidate.weight for part in result.parts], weights, atol=1e-9)
    head = select(values, labels, groups).head
    assert head.taps == ("shallow", "deep")
    x = np.concatenate([values[tap].astype(np.float64) for tap in head.taps], axis=1)
    expected = 0
    for part, weight in zip(result.parts, weights, strict=True):
        taps = part.candidate.taps
        scales = [scales_written_out(values[tap].astype(np.float64), part.candidate.scaling) for tap in taps]
        scaled = np.concatenate([values[tap].astype(np.float64) for tap in taps], axis=1) * np.concatenate(scales)
        unit = ((scaled - scaled.mean(axis=0)) ** 2).sum() / len(x)
        part_weights, bias = solve_written_out(part.candidate, Statistics.of(scaled, labels, 3), unit)
        expected = expected + weight / part.candidate.temperature * centred(scaled @ part_weights + bias)
    np.testing.assert_allclose(centred(head.scores(x)), expected, atol=2e-4)
    parts = [centred(part.scores) / part.candidate.temperature for part in result.parts]
    held_out = np.tensordot(weights, parts, 1)
    np.testing.assert_allclose(result.average.scores, held_out, atol=1e-9)
    temperature = fit_temperature(held_out, labels, 1 / 61)
    assert head.temperature == pytest.approx(temperature, rel=1e-5)
    np.testing.assert_allclose(select(values, labels, groups).probabilities, softmax(held_out / temperature), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"cut": ("shallow", "deep")}, {"cut": "shallow"}])
def test_unknown_images_are_told_by_the_deepest_tap_of_the_head(options):
    values, labels, groups = overlapping_classes()
    selected = select(values, labels, groups, **options)
    taps = selected.head.taps
    alone = Eigenbasis.of(TrainingSet.of(values, labels, groups).vectors(taps[-1:]))
    np.testing.assert_allclose(selected.ood_scores, held_out_ood_scores(alone, groups), atol=1e-9)
    rng = np.random.default_rng(1)
    new = {tap: rng.normal(size=(30, values[tap].shape[1])) * 5 for tap in taps}
    scores = selected.ood.scores(np.concatenate([new[tap] for tap in taps], axis=1))
    np.testing.assert_allclose(scores, fit_ood(alone).scores(new[taps[-1]]), atol=1e-6)


def test_nothing_further_is_tried_where_next_to_no_errors_are_left():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    values = {tap: rng.normal(size=(60, 9)) + 20 * np.eye(9)[labels] for tap in ("shallow", "deep")}
    tried = select(values, labels, np.arange(60)).candidates
    assert {(c.taps, c.scaling) for c in tried} == {(("deep",), "tap")}


def test_each_tap_alone_and_the_deepest_together_are_ranked():
    rng = np.random.default_rng(0)
    labels, groups = np.arange(120) % 3, np.arange(120) // 2
    values = {
        tap: (rng.normal(size=(120, d)) + 0.4 * labels[:, None]).astype(np.float32)
        for tap, d in (("first", 3), ("early", 4), ("middle", 6), ("late", 8))
    }
    ranked = rank_tap_sets(TrainingSet.of(values, labels, groups))
    alone = [("late",), ("middle",), ("early",), ("first",)]
    assert list(ranked) == [*alone, ("middle", "late"), ("early", "middle", "late")]
    for taps, scored in ranked.items():
        assert scored.candidate.taps == taps
        best = rank(values, labels, groups, cut=taps)
        assert scored.candidate.log_loss == min(c.log_loss for c in best.candidates)
        assert len(scored.scores) == 120


def test_one_image_of_each_class_is_enough_for_a_head():
    rng = np.random.default_rng(0)
    values = {"deep": rng.normal(size=(5, 30)).astype(np.float16)}
    selected = select(values, np.arange(5), np.arange(5))
    assert accuracy(selected.head.scores(np.asarray(values["deep"], np.float32)), np.arange(5)) == 1
    assert np.isfinite(selected.probabilities).all()


def test_two_classes_of_very_unequal_size():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 3 + [1] * 300)
    values = {"deep": (rng.normal(size=(303, 10)) + 6 * (labels == 0)[:, None]).astype(np.float16)}
    selected = select(values, labels, np.arange(303))
    assert accuracy(selected.probabilities[:3], labels[:3]) == 1


@pytest.mark.parametrize("kind", ["auto", pytest.param("mlp", marks=pytest.mark.zoo)])
def test_images_of_one_class_are_an_error(kind):
    if kind == "mlp":
        pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    with pytest.raises(DataError, match="at least two classes"):
        select({"deep": np.ones((4, 3))}, np.zeros(4, int), np.arange(4), kind=kind)


def test_images_of_one_group_are_an_error():
    with pytest.raises(DataError, match="All images are in one group"):
        select({"deep": np.eye(4)}, np.arange(4) % 2, np.zeros(4, int))


@pytest.mark.slow
def test_a_thousand_classes():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(1000), 3)
    values = {"deep": (rng.normal(size=(1000, 64))[labels] + 0.3 * rng.normal(size=(3000, 64))).astype(np.float16)}
    selected = select(values, labels, np.arange(3000))
    assert accuracy(selected.probabilities, labels) > 0.95
    assert selected.probabilities.shape == (3000, 1000)


@pytest.mark.parametrize("kind", ["auto", "ridge", "lda", "centroid", "logistic"])
def test_features_without_variation_give_a_finite_head(kind):
    labels = np.arange(12) % 2
    selected = select({"zeros": np.zeros((12, 5)), "ones": np.ones((12, 3))}, labels, np.arange(12), kind=kind)
    assert np.isfinite(selected.head.weights).all()
    np.testing.assert_allclose(selected.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "forest"}, "Unknown head 'forest'; choose one of auto, ridge, lda, centroid, logistic, mlp"),
        ({"cut": "nowhere"}, "Unknown cut 'nowhere'; this backbone has shallow, deep"),
        ({"cut": ("deep", "nowhere")}, "Unknown cut 'nowhere'"),
        ({"dropout": 1.0}, r"Dropout rate 1\.0"),
        ({"dropout": -0.5}, r"Dropout rate -0\.5"),
        ({"dropout": float("nan")}, "Dropout rate nan"),
        ({"dropout": 1.0, "kind": "mlp"}, r"Dropout rate 1\.0"),
        ({"dropout": 0.5, "kind": "lda"}, "no closed form on the lda head"),
        ({"dropout": 0.5, "kind": "logistic"}, "no closed form on the logistic head"),
    ],
)
def test_options_that_cannot_be_used_are_errors(options, message):
    values, labels, groups = scenes(groups=8)
    for function in (select, rank):
        with pytest.raises(OptionError, match=message):
            function(values, labels, groups, **options)


def test_a_cut_is_one_tap_or_several_or_auto():
    assert HeadOptions().taps is None
    assert HeadOptions(cut="deep").taps == ("deep",)
    assert HeadOptions(cut=("shallow", "deep")).taps == ("shallow", "deep")
    assert HeadOptions(cut=["shallow"]).taps == ("shallow",)
    assert HeadOptions().mlp == MlpConfig()


def test_the_cut_in_the_options_is_used():
    values, labels, groups = scenes(groups=10)
    assert select(values, labels, groups, cut="shallow").head.taps == ("shallow",)
    both = select(values, labels, groups, cut=("shallow", "deep"), kind="ridge")
    assert both.head.taps == ("shallow", "deep")
    assert both.head.weights.shape == (48, 2)


def test_the_dropout_rate_in_the_options_is_used():
    values, labels, groups = scenes(groups=10)
    head = select(values, labels, groups, dropout=0.3).head
    assert head.kind == "ridge"
    assert head.settings["dropout"] == 0.3


def test_dropout_zero_is_plain_least_squares():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    x = rng.normal(size=(60, 5)) + labels[:, None]
    selected = select({"deep": x}, labels, np.arange(60), dropout=0.0)
    design = np.c_[x, np.ones(60)]
    expected = design @ np.linalg.lstsq(design, np.eye(2)[labels], rcond=None)[0]
    np.testing.assert_allclose(selected.head.scores(x), expected, atol=1e-4)


def test_the_order_of_images_does_not_matter():
    values, labels, groups = scenes()
    order = np.random.default_rng(9).permutation(len(labels))
    first = select(values, labels, groups)
    second = select({tap: vectors[order] for tap, vectors in values.items()}, labels[order], groups[order])
    assert {c.weight > 0 for c in first.candidates} == {True, False}
    np.testing.assert_allclose([c.weight for c in first.candidates], [c.weight for c in second.candidates], atol=1e-6)
    np.testing.assert_allclose(first.probabilities[order], second.probabilities, atol=1e-6)
    np.testing.assert_allclose(first.head.weights, second.head.weights, atol=1e-4)


def test_of_many_images_those_with_a_weight_in_few_directions_are_solved_in_all(monkeypatch):
    """Whole groups weigh the candidates. The scores that the claims come from are those of all images."""
    rng = np.random.default_rng(0)
    labels, groups = np.arange(120) % 3, np.arange(120) // 2
    values = {
        tap: (rng.normal(size=(120, d)) + 0.4 * labels[:, None]).astype(np.float32)
        for tap, d in (("early", 14), ("middle", 16), ("late", 18))
    }
    by_all = rank(values, labels, groups)
    for name, value in (("MANY_IMAGES", 100), ("DIRECTIONS", 5), ("FEW_EVALUATED", 60), ("MAX_EVALUATED", 80)):
        monkeypatch.setattr(selection, name, value)
    monkeypatch.setattr(eigenbasis, "OVERSAMPLING", 2)
    training_set = TrainingSet.of(values, labels, groups)
    for count in (60, 80):
        rows = selection.some_rows(training_set, count)
        assert (len(rows), len(np.unique(groups[rows]))) == (count, count // 2)
    assert selection.some_rows(training_set, 120) is None
    by_some = rank(values, labels, groups)
    assert len({(part.candidate.taps, part.candidate.scaling) for part in by_some.parts}) <= selection.MAX_VECTORS
    assert {len(part.losses) for part in by_some.parts} == {len(by_some.average.scores)} == {120}
    assert sum(part.candidate.weight for part in by_some.parts) == pytest.approx(1)
    assert sum(c.weight for c in by_some.candidates) == pytest.approx(1)
    exact = {(c.taps, c.kind, c.scaling, *c.settings.values()): c for c in by_all.candidates}
    for part in by_some.parts:
        c = part.candidate
        assert c.log_loss == pytest.approx(exact[c.taps, c.kind, c.scaling, *c.settings.values()].log_loss)
        assert part.problem.basis.is_complete
    selected = select(values, labels, groups)
    assert selected.ood_scores.shape == (120,)
    x = np.concatenate([values[tap] for tap in selected.head.taps], axis=1)
    assert accuracy(selected.head.scores(x), labels) > accuracy(selected.probabilities, labels) - 0.05


@pytest.mark.slow
def test_thousands_of_images_are_fitted_as_well_as_by_a_head_written_out():
    rng = np.random.default_rng(0)
    labels = np.arange(6000) % 3
    spread = np.geomspace(1, 0.02, 600)
    means = rng.normal(size=(3, 600)) * spread * 0.35
    values = {"deep": (means[labels] + rng.normal(size=(6000, 600)) * spread).astype(np.float16)}
    selected = select(values, labels, np.arange(6000))
    new = (means[labels] + rng.normal(size=(6000, 600)) * spread).astype(np.float16)
    statistics = Statistics.of(values["deep"].astype(np.float64), labels, 3)
    weights, bias = solve_lda(statistics, 0.1)
    best = accuracy(new @ weights + bias, labels)
    assert accuracy(selected.head.scores(new), labels) > best - 0.01
    assert abs(accuracy(selected.probabilities, labels) - accuracy(selected.head.scores(new), labels)) < 0.02
    assert selected.ood_scores.shape == (6000,)
    assert abs(np.median(selected.ood_scores) - np.median(selected.ood.scores(new))) < 0.02


def test_candidates_are_tied_where_losses_differ_no_more_than_noise():
    noise = np.random.default_rng(0).normal(0, 0.02, (2, 40))
    noise -= noise.mean(axis=1, keepdims=True)

    def scored(losses):
        candidate = Candidate(("deep",), "ridge", "tap", {}, float(losses.mean()), 1.0, 1.0)
        return ScoredCandidate(candidate, losses, np.zeros((40, 2)), None)

    candidates = [scored(0.201 + noise[0]), scored(0.3 + noise[1]), scored(0.2 + noise[1])]
    assert tied_with_best(candidates, np.arange(40)) == [True, False, True]
    assert tied_with_best(candidates, np.zeros(40, int)) == [True, True, True]  # one group tells nothing apart
