"""Predictions for images, and how good they are where the true classes are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart.data import Quarantined
from headstart.errors import DataError
from headstart.stats.accuracy import Accuracy, held_out_accuracy, target_text
from headstart.stats.classification import (
    ClassificationMetrics,
    WeakClass,
    classification_metrics,
    confusion_matrix,
    weak_classes,
)
from headstart.stats.conformal import ConformalThresholds
from headstart.stats.decision import DecisionRule, MeanCost, decide, mean_cost


@dataclass(frozen=True, eq=False)  # compared and hashed as one object: arrays have no one answer
class Predictions:
    """Predictions for n images that could be read.

    ``classes`` [k] are those of the model; ``paths`` [n] name the images, ``rows`` [n] are their places in the dataset,
    or in the features of a fit; ``probabilities`` is [n, k]. ``truth`` [n] holds true classes as places in ``labels``
    (None where they are not known): the classes, and ``unknown_classes`` that only the data have. ``quarantined`` names
    the images that could not be read, ``notes`` say what was not used of others. Predictions of a
    finished model also have ``thresholds`` and the OOD score of each image, ``ood_scores`` [n], 0 to 1, and, where the
    true classes are known, which images it was trained on, ``is_training_image`` [n]; else these are None.
    ``rule`` decides which class is predicted, None for the most probable one.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    rows: NDArray[np.int64] = field(repr=False)
    probabilities: NDArray[np.float64] = field(repr=False)
    truth: NDArray[np.int64] | None = field(default=None, repr=False)
    unknown_classes: tuple[str, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    thresholds: ConformalThresholds | None = None
    ood_scores: NDArray[np.float64] | None = field(default=None, repr=False)
    is_training_image: NDArray[np.bool_] | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    rule: DecisionRule | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the model, then those that only the data have."""
        return self.classes + self.unknown_classes

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The predicted class [n] of each image: the one that the rule decides for, or the most probable one."""
        return decide(self.probabilities, self.rule)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probability [n] of the predicted class."""
        confidence: NDArray[np.float64] = self.probabilities[np.arange(len(self)), self.predicted]
        return confidence

    @property
    def is_correct(self) -> NDArray[np.bool_]:
        """Which predictions [n] are correct. Raises DataError where the true classes are not known."""
        if self.truth is None:
            raise DataError("The true classes of these images are not known; evaluate images with labels.")
        return np.asarray(self.predicted == self.truth)

    @property
    def sets(self) -> NDArray[np.bool_] | None:
        """Which classes [n, k] are in the prediction set of each image; None without thresholds."""
        return None if self.thresholds is None else self.thresholds.sets(self.probabilities)

    @property
    def is_rejected(self) -> NDArray[np.bool_] | None:
        """Which images [n] are rejected as none of the classes; None without thresholds."""
        if self.thresholds is None or self.ood_scores is None:
            return None
        return self.thresholds.rejects(self.ood_scores)

    def ranking(self, i: int) -> list[int]:
        """Return the classes of image ``i``: the predicted one, then the others, most probable first."""
        order = [int(c) for c in self.probabilities[i].argsort()[::-1]]
        if self.rule is None:
            return order
        first = int(self.rule.decide(self.probabilities[i : i + 1])[0])
        return [first, *(c for c in order if c != first)]

    def prediction_set(self, i: int) -> list[str] | None:
        """Return the classes in the prediction set of image ``i``, most probable first; None without thresholds."""
        if self.thresholds is None:
            return None
        members = self.thresholds.sets(self.probabilities[i : i + 1])[0]
        return [self.classes[c] for c in self.probabilities[i].argsort()[::-1] if members[c]]


def encode_truth(classes: Sequence[str], names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Turn the names of true classes [n] into places in ``classes`` and the unknown classes behind them."""
    unknown = tuple(sorted(set(names) - set(classes)))
    number = {name: i for i, name in enumerate((*classes, *unknown))}
    return np.array([number[name] for name in names], np.int64), unknown


@dataclass(frozen=True, eq=False)  # compared and hashed as one object: arrays have no one answer
class Evaluation:
    """Quality of predictions for images whose true classes are known.

    ``metrics`` are by class, those of unknown classes behind the others; ``confusion`` [k, k] counts images of known
    classes, the row being the true class, the column the predicted one. Every image of an unknown class counts as
    wrong. With thresholds also: ``coverage``, how many images of known classes have theirs in their prediction set,
    and ``set_size``, the mean number of classes in a set; ``false_rejections``, how many images of known classes are
    rejected; ``ood_recall``, how many images of unknown classes are. None where there are no such images. ``cost`` is
    the mean cost of the predictions for images of known classes, None where the model has no costs. ``weak_classes``
    are recognised far worse than the others, worst first.
    """

    predictions: Predictions
    accuracy: Accuracy
    metrics: ClassificationMetrics
    confusion: NDArray[np.int64]
    coverage: Accuracy | None = None
    set_size: float | None = None
    false_rejections: Accuracy | None = None
    ood_recall: Accuracy | None = None
    cost: MeanCost | None = None
    weak_classes: tuple[WeakClass, ...] = ()

    @property
    def training_images(self) -> int:
        """How many of the images the model was trained on: of these it says nothing about new ones."""
        known = self.predictions.is_training_image
        return 0 if known is None else int(known.sum())

    @property
    def missed_targets(self) -> list[str]:
        """A sentence for each target of prediction sets and rejection that these images miss, beyond chance (95%)."""
        thresholds = self.predictions.thresholds
        if thresholds is None:
            return []
        why = "these images differ from the training images, or the groups of those were too few."
        notes = []
        if self.coverage is not None and self.coverage.interval[1] < thresholds.coverage:
            notes.append(
                f"{self.coverage.value:.1%} of the prediction sets hold the true class, "
                f"{target_text(thresholds.coverage)} were targeted: {why}"
            )
        if self.false_rejections is not None and self.false_rejections.interval[0] > thresholds.false_alarms:
            notes.append(
                f"{self.false_rejections.value:.1%} of images of known classes are rejected, "
                f"{target_text(thresholds.false_alarms)} were targeted: {why}"
            )
        return notes

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from headstart.model.notebook import evaluation_html  # which imports this module

        return evaluation_html(self)

    @property
    def decision(self) -> str:
        """How classes are decided for, as a sentence without a point; empty where it is by probability alone."""
        rule = self.predictions.rule
        return "" if rule is None else rule.describe(self.predictions.classes)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        predictions, thresholds = self.predictions, self.predictions.thresholds
        values: dict[str, object] = {
            "classes": list(predictions.classes),
            "images": {
                "count": len(predictions),
                "quarantined": len(predictions.quarantined),
                "training": self.training_images,
            },
            "accuracy": self.accuracy.to_dict(),
            **self.metrics.to_dict(),
            "weak_classes": [weak.to_dict() for weak in self.weak_classes],
            "confusion": self.confusion.tolist(),
            "unknown_classes": list(predictions.unknown_classes),
        }
        if predictions.rule is not None:
            values["decision"] = {**predictions.rule.to_dict(), "description": self.decision}
            values["cost"] = None if self.cost is None else self.cost.to_dict()
        if thresholds is not None:
            coverage = None if self.coverage is None else {**self.coverage.to_dict(), "set_size": self.set_size}
            values["coverage"] = {"promised": thresholds.coverage, "found": coverage}
            values["none_of_these"] = {
                "false_alarms": thresholds.false_alarms,
                "known": None if self.false_rejections is None else self.false_rejections.to_dict(),
                "unknown": None if self.ood_recall is None else self.ood_recall.to_dict(),
            }
        return values


def evaluate(predictions: Predictions, groups: NDArray[np.integer] | None = None) -> Evaluation:
    """Evaluate predictions against the true classes, which must be known.

    ``groups`` [n] are those of images of which several show one thing, where they are known: intervals are then by
    groups.
    """
    assert predictions.truth is not None
    truth, predicted, classes = predictions.truth, predictions.predicted, len(predictions.classes)
    is_known = truth < classes
    accuracy = held_out_accuracy(predictions.is_correct, groups)
    coverage = set_size = false_rejections = ood_recall = None
    sets, is_rejected = predictions.sets, predictions.is_rejected
    if sets is not None and is_known.any():
        coverage = held_out_accuracy(sets[is_known, truth[is_known]], _of(groups, is_known))
        set_size = float(sets[is_known].sum(axis=1).mean())
    if is_rejected is not None:
        false_rejections = _share(is_rejected, groups, is_known)
        ood_recall = _share(is_rejected, groups, ~is_known)
    costs, cost = None if predictions.rule is None else predictions.rule.costs, None
    if costs is not None and is_known.any():
        cost = mean_cost(costs, truth[is_known], predicted[is_known], _of(groups, is_known))
    return Evaluation(
        predictions,
        accuracy,
        classification_metrics(truth, predicted, predictions.labels),
        confusion_matrix(truth[is_known], predicted[is_known], classes),
        coverage,
        set_size,
        false_rejections,
        ood_recall,
        cost,
        weak_classes(truth, predicted, predictions.classes, groups),
    )


def _share(selected: NDArray[np.bool_], groups: NDArray[np.integer] | None, of: NDArray[np.bool_]) -> Accuracy | None:
    return held_out_accuracy(selected[of], _of(groups, of)) if of.any() else None


def _of(groups: NDArray[np.integer] | None, images: NDArray[np.bool_]) -> NDArray[np.integer] | None:
    return None if groups is None else groups[images]
