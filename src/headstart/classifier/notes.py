"""Lines about a fit that the user must see: too few groups, classes that are missed, accuracies that disagree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from headstart.classifier.class_settings import ClassSettings
from headstart.errors import listed
from headstart.model.predictions import Evaluation
from headstart.stats.accuracy import disjoint, target_text, wilson
from headstart.stats.classification import ClassificationMetrics
from headstart.stats.conformal import ConformalThresholds, effective_groups, groups_needed
from headstart.stats.label_metrics import MultiLabelMetrics
from headstart.stats.label_thresholds import DEFAULT, LabelThresholds, groups_needed_for_recall

MAX_CLASS_NOTES = 5
FEW_GROUPS = 10  # of a class: where all of fewer are recognised, the interval of its recall begins below 72%
RARE = 0.2  # of the images of the largest class
MANY_COARSE = 0.5  # of the channels of a tap


def coverage_notes(thresholds: ConformalThresholds, index: NDArray[np.integer]) -> list[str]:
    """Say where there are too few groups to meet a target, or too few large ones; ``index`` [n] are the groups."""
    notes = []
    groups, alike = len(np.unique(index)), effective_groups(index)
    needed = groups_needed(thresholds.coverage)
    if thresholds.false_alarms:
        needed = max(needed, groups_needed(1 - thresholds.false_alarms))
    if alike < needed <= groups:
        notes.append(
            f"The groups of images differ much in size: {groups} groups tell as much as {alike:.0f} of equal size, and "
            f"{needed} are needed. On new images, prediction sets and rejection may miss their targets by some points."
        )
    if not any(thresholds.set_thresholds):
        notes.append(
            f"{groups} groups of images are too few for a coverage of {target_text(thresholds.coverage)}: every "
            f"prediction set holds every class; {groups_needed(thresholds.coverage)} groups are needed."
        )
    if thresholds.false_alarms and np.isinf(thresholds.reject_threshold):
        notes.append(
            f"{groups} groups of images are too few for a false-rejection rate of "
            f"{target_text(thresholds.false_alarms)}: no image is rejected as unknown; "
            f"{groups_needed(1 - thresholds.false_alarms)} groups are needed."
        )
    return notes


def class_notes(metrics: ClassificationMetrics) -> list[str]:
    """Name the classes that are never predicted, or mostly missed: an accuracy over all classes can hide them."""
    notes = []
    for of_class in metrics.per_class:
        if of_class.recall is None or of_class.recall >= 0.5:
            continue
        if of_class.precision is None:
            predicted = f"No image is predicted as {of_class.name}"
        elif of_class.recall == 0:
            predicted = f"None of the images of {of_class.name} is recognised"
        else:
            predicted = f"Only {of_class.recall:.0%} of the images of {of_class.name} are recognised"
        count = "is 1 training image" if of_class.support == 1 else f"are {of_class.support} training images"
        notes.append(f"{predicted}, leaving one group out; of that class there {count}: add some.")
    more = len(notes) - MAX_CLASS_NOTES
    return notes[:MAX_CLASS_NOTES] + [f"{more} more classes are recognised as badly; see the report."] * (more > 0)


def rare_class_notes(
    metrics: ClassificationMetrics,
    thresholds: ConformalThresholds,
    labels: NDArray[np.integer],
    index: NDArray[np.integer],
) -> list[str]:
    """Name the rare classes of which too few groups of images are there to know how well they are recognised.

    ``labels`` and ``index`` [n] are the classes and groups of the training images. Classes that are mostly missed, and
    those whose images are all in one group, have notes of their own.
    """
    largest = max(of_class.support for of_class in metrics.per_class)
    groups = {
        of_class.name: len(np.unique(index[labels == c]))
        for c, of_class in enumerate(metrics.per_class)
        if of_class.support < RARE * largest and (of_class.recall or 0.0) >= 0.5
    }
    few = {name: count for name, count in sorted(groups.items(), key=lambda one: one[1]) if 1 < count < FEW_GROUPS}
    if not few:
        return []
    named, most = listed([f"{name} ({count})" for name, count in few.items()]), max(few.values())
    promise = (
        f" Prediction sets keep their {target_text(thresholds.coverage)} over all classes together, not for each."
        if any(thresholds.set_thresholds)
        else ""
    )
    least = f"{wilson(most, most)[0]:.0%}"
    return [
        f"Rare classes, with their groups of images: {named}. Hardly anything is known of how well they are "
        f"recognised, however high the accuracy over all classes: of {most} groups all may be right where the true "
        f"share is {least}.{promise} Add images of other scenes, at least {FEW_GROUPS} groups of each class."
    ]


def imbalance_notes(metrics: ClassificationMetrics, settings: ClassSettings) -> list[str]:
    """Point to class weights where classes are uneven, some are mostly missed, and nothing is set for them."""
    is_missed = any(of_class.recall is not None and of_class.recall < 0.5 for of_class in metrics.per_class)
    if not (is_missed and metrics.is_uneven and settings == ClassSettings()):
        return []
    return [
        "The classes are uneven: to predict as if all were equally frequent, give --class-weight balanced; more of the "
        "rare classes are then recognised, and fewer of the frequent ones."
    ]


def rounding_notes(coarse_channels: Mapping[str, float]) -> list[str]:
    """Say of which taps many channels are rounded coarsely, by the shares of ``Features.coarse_channels``."""
    return [
        f"{share:.0%} of the channels of {tap} hardly vary over these images: their deviation is below 8 of the steps "
        "to which features are rounded, so that what they tell is partly lost."
        for tap, share in coarse_channels.items()
        if share > MANY_COARSE
    ]


def contradiction_notes(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Say where the two accuracies contradict each other."""
    if "validation" not in evaluations:
        return []
    left_out, validation = evaluations["leave_group_out"].accuracy, evaluations["validation"].accuracy
    if not disjoint(left_out.interval, validation.interval):
        return []
    if validation.value > left_out.value:
        return [
            "Validation accuracy is above that of training images with their group left out: "
            "the validation images may be easier, or copies."
        ]
    return [
        "Validation accuracy is below that of training images with their group left out: rely on the validation "
        "accuracy. The validation images may differ from the training images, or related images were not grouped; name "
        "their groups (--group-by)."
    ]


def label_notes(
    metrics: MultiLabelMetrics,
    label_thresholds: LabelThresholds,
    thresholds: ConformalThresholds,
    index: NDArray[np.integer],
) -> list[str]:
    """Say of which labels nothing can be promised, which are never found, and where nothing is rejected.

    ``index`` [n] are the groups of the training images.
    """
    notes = []
    few = [
        f"{label.name} ({label.groups})"
        for label, least in zip(metrics.per_label, thresholds.set_thresholds, strict=True)
        if label.groups < groups_needed_for_recall(thresholds.coverage) and not least
    ]
    if few:
        notes.append(
            f"Too few groups of images have {listed(few)} to promise that a prediction set holds it: it is in every "
            f"set; {groups_needed_for_recall(thresholds.coverage)} groups are needed for "
            f"{target_text(thresholds.coverage)}."
        )
    target, share = label_thresholds.target, label_thresholds.share
    unpromised = [
        f"{label.name} ({label.groups})"
        for label, promised in zip(metrics.per_label, label_thresholds.is_promised, strict=True)
        if target and not promised
    ]
    if unpromised:
        needed = f"; {groups_needed_for_recall(share)} groups are needed" if target == "recall" else ""
        notes.append(
            f"Too few positives of {listed(unpromised)} to promise a {target} of {target_text(share)}: each holds "
            f"from a probability of {DEFAULT} on{needed} (in brackets the groups of images that have it)."
        )
    single = [label.name for label in metrics.per_label if label.groups == 1]
    if single:
        notes.append(
            f"All images with {listed(single)} are in one group each, and cannot be recognised when that is left out; "
            "add images of other scenes."
        )
    never = [
        f"{label.name} ({label.support} images)"
        for label in metrics.per_label
        if label.groups > 1 and not label.recall.value
    ]
    if never:
        notes.append(
            f"Of {listed(never)} no image is found, leaving one group out: add images, or give --target-recall to "
            "find more of them at the price of false ones."
        )
    if thresholds.false_alarms and np.isinf(thresholds.reject_threshold):
        needed_groups = groups_needed(1 - thresholds.false_alarms)
        notes.append(
            f"{len(np.unique(index))} groups of images are too few for a false-rejection rate of "
            f"{target_text(thresholds.false_alarms)}: no image is rejected as unknown; {needed_groups} groups are "
            "needed."
        )
    return notes
