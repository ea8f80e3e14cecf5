"""Lines about a fit that the user must see."""

from dataclasses import replace

import numpy as np
import pytest

from headstart.classifier.notes import class_notes, coverage_notes, label_notes, rare_class_notes
from headstart.cli.label_output import _describe
from headstart.report.labels.view import promise
from headstart.stats.accuracy import target_text
from headstart.stats.classification import classification_metrics
from headstart.stats.conformal import ConformalThresholds
from headstart.stats.label_metrics import Estimate


def thresholds(coverage=0.95, set_thresholds=(0.2, 0.3), false_alarms=0.05, reject_threshold=0.4):
    return ConformalThresholds(coverage, set_thresholds, false_alarms, reject_threshold)


@pytest.mark.parametrize("sizes", [[3] * 19, [1] * 40, [2, 3] * 15])
def test_enough_groups_of_similar_size_need_no_note(sizes):
    assert coverage_notes(thresholds(), np.repeat(np.arange(len(sizes)), sizes)) == []


def test_groups_of_very_different_size_are_told_with_how_many_they_are_worth():
    sizes = [60] * 3 + [1] * 30  # 210 images: 210 ** 2 / (3 * 3600 + 30) = 4.07
    (note,) = coverage_notes(thresholds(), np.repeat(np.arange(33), sizes))
    assert "33 groups tell as much as 4 of equal size, and 19 are needed" in note
    assert coverage_notes(thresholds(0.5, false_alarms=0.0), np.repeat(np.arange(33), sizes)) == []


def rare_classes(counts, missed=(), groups_of=1):
    """The notes of classes a, b, ... of so many images; of those that are ``missed`` none is recognised."""
    labels = np.repeat(np.arange(len(counts)), counts)
    predicted = np.where(np.isin(labels, missed), 0, labels)
    metrics = classification_metrics(labels, predicted, tuple("abcdefgh"[: len(counts)]))
    sets = thresholds(set_thresholds=(0.2,) * len(counts))
    return rare_class_notes(metrics, sets, labels, np.arange(len(labels)) // groups_of)


def test_rare_classes_of_few_groups_are_named_with_how_little_is_known_of_them():
    (note,) = rare_classes([200, 5, 200, 2, 1, 3, 10], missed=[5])
    assert note == (
        "Rare classes, with their groups of images: d (2), b (5). Hardly anything is known of how well they are "
        "recognised, however high the accuracy over all classes: of 5 groups all may be right where the true share is "
        "57%. Prediction sets keep their 95% over all classes together, not for each. Add images of other scenes, at "
        "least 10 groups of each class."
    )
    assert "images: b (6). " in rare_classes([200, 30], groups_of=5)[0]
    for counts in ([200, 10], [9, 9], [40, 8], [200, 1]):
        assert rare_classes(counts) == []
    (note,) = rare_classes([200, *range(3, 10)])
    assert "images: b (3), c (4), d (5), e (6), f (7) and 2 more. " in note
    assert ": of 9 groups all may be right where the true share is 70%. " in note


def test_too_few_groups_are_told_for_each_target():
    impossible = thresholds(set_thresholds=(0.0, 0.0), reject_threshold=float("inf"))
    coverage, rejection = coverage_notes(impossible, np.repeat(np.arange(10), 4))
    assert coverage.startswith("10 groups of images are too few for a coverage of 95%")
    assert rejection.startswith("10 groups of images are too few for a false-rejection rate of 5%")


def test_shares_that_were_asked_for_are_not_rounded():
    texts = {0.995: "99.5%", 0.9: "90%", 0.07: "7%", 0.904: "90.4%", 0.999999: "99.9999%", 0.001: "0.1%", 1: "100%"}
    assert {share: target_text(share) for share in texts} == texts
    impossible = thresholds(0.996, (0.0, 0.0), 0.004, float("inf"))
    coverage, rejection = coverage_notes(impossible, np.repeat(np.arange(10), 4))
    assert "too few for a coverage of 99.6%: every prediction set holds every class; 249 groups are needed" in coverage
    assert "a false-rejection rate of 0.4%: no image is rejected as unknown; 249 groups are needed." in rejection


def test_a_promise_of_almost_all_is_not_one_of_all(label_fit):
    evaluation = label_fit.evaluations["validation"]
    targets = replace(label_fit.model.label_thresholds, share=0.995, is_promised=(False, True, True))
    assert _describe(targets) == "a recall of 99.5% is promised for 2 of 3 labels"
    assert promise(targets).startswith("A recall of 99.5% is promised on average for 2 of 3 labels, on new groups")
    sets = thresholds(0.996, (0.0, 0.5, 0.5))
    notes = label_notes(evaluation.metrics, targets, sets, np.arange(30))
    assert any("to promise a recall of 99.5%: each holds from a probability of 0.5 on; 199 groups" in n for n in notes)
    assert any("249 groups are needed for 99.6%." in note for note in notes)
    low = replace(evaluation.metrics.per_label[1], recall=Estimate(0.5, (0.4, 0.6)))
    metrics = replace(evaluation.metrics, per_label=(evaluation.metrics.per_label[0], low))
    predictions = replace(evaluation.predictions, label_thresholds=replace(targets, is_promised=(False, True)))
    (note,) = replace(evaluation, metrics=metrics, predictions=predictions).missed_targets
    assert ", 99.5% was targeted: these images differ" in note


def test_a_class_that_is_mostly_missed_is_told_with_how_much_of_it_is_found():
    true, predicted = np.repeat(np.arange(4), [4, 5, 1, 3]), np.array([0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 2, 0, 0])
    why = "leaving one group out; of that class there"
    assert class_notes(classification_metrics(true, predicted, ("ant", "bee", "fly", "bug"))) == [
        f"Only 20% of the images of bee are recognised, {why} are 5 training images: add some.",
        f"None of the images of fly is recognised, {why} is 1 training image: add some.",
        f"No image is predicted as bug, {why} are 3 training images: add some.",
    ]
