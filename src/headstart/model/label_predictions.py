"""Predictions of several labels an image, and how good they are where the true labels are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset
from headstart.errors import DataError, OptionError, listed
from headstart.model.predictions import Predictions
from headstart.stats.accuracy import Accuracy, held_out_accuracy, target_text
from headstart.stats.label_metrics import MultiLabelMetrics, multi_label_metrics
from headstart.stats.label_thresholds import LabelThresholds


@dataclass(frozen=True, eq=False)  # compared and hashed as one object: arrays have no one answer
class MultiLabelPredictions(Predictions):
    """Predictions for n images that may have several of k labels, or none.

    ``classes`` are the labels, and each has a probability by itself: rows of ``probabilities`` do not sum to 1.
    ``label_thresholds`` decide which hold. ``label_truth`` and ``label_known`` [n, k] say which hold, where that is
    known; None for images without labels. What is of one class an image, such as ``predicted``, is an OptionError.
    """

    label_thresholds: LabelThresholds | None = None
    label_truth: NDArray[np.bool_] | None = field(default=None, repr=False)
    label_known: NDArray[np.bool_] | None = field(default=None, repr=False)

    @property
    def decisions(self) -> NDArray[np.bool_]:
        """Which labels [n, k] are said to hold."""
        assert self.label_thresholds is not None
        return self.label_thresholds.decide(self.probabilities)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Raises OptionError: an image may have several labels."""
        raise OptionError("An image may have several of these labels, or none; take decisions [n, k].")

    @property
    def sets(self) -> NDArray[np.bool_] | None:
        """Which labels [n, k] are in the prediction set of each image; None without thresholds."""
        if self.thresholds is None:
            return None
        return np.asarray(self.probabilities >= np.array(self.thresholds.set_thresholds))

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Of which images [n] every label that is known is said rightly. Raises DataError where none is known."""
        if self.label_truth is None or self.label_known is None:
            raise DataError("The true labels of these images are not known; evaluate images with labels.")
        return np.asarray(((self.decisions == self.label_truth) | ~self.label_known).all(axis=1))

    def of_labels(self, names: Sequence[str]) -> MultiLabelPredictions:
        """Return the predictions of some of the labels, in the order of ``names``, with the truth about them."""
        places = [self.classes.index(name) for name in names]
        assert self.label_thresholds is not None
        decide, in_sets = self.label_thresholds, self.thresholds
        return replace(
            self,
            classes=tuple(names),
            probabilities=self.probabilities[:, places],
            label_thresholds=replace(
                decide,
                thresholds=tuple(decide.thresholds[c] for c in places),
                is_promised=tuple(decide.is_promised[c] for c in places),
            ),
            thresholds=None
            if in_sets is None
            else replace(in_sets, set_thresholds=tuple(in_sets.set_thresholds[c] for c in places)),
            label_truth=None if self.label_truth is None else self.label_truth[:, places],
            label_known=None if self.label_known is None else self.label_known[:, places],
        )

    def ranking(self, i: int) -> list[int]:
        """Return the labels of image ``i``, most probable first."""
        return [int(c) for c in self.probabilities[i].argsort(kind="stable")[::-1]]

    def holding(self, i: int) -> list[int]:
        """Return which labels are said to hold of image ``i``, as places in ``classes``, most probable first."""
        assert self.label_thresholds is not None
        holds = self.label_thresholds.decide(self.probabilities[i])  # of one image: ``decisions`` are those of all
        return [c for c in self.ranking(i) if holds[c]]

    def names(self, i: int) -> list[str]:
        """Return the labels that are said to hold of image ``i``, most probable first."""
        return [self.classes[c] for c in self.holding(i)]

    def further(self, i: int) -> list[str]:
        """Return the labels that image ``i`` could have besides those that are said to hold, most probable first.

        A label of which nothing can be promised is in every prediction set, and not among them.
        """
        if self.thresholds is None:
            return []
        least, names = dict(zip(self.classes, self.thresholds.set_thresholds, strict=True)), self.names(i)
        return [name for name in self.prediction_set(i) or [] if least[name] > 0 and name not in names]

    def prediction_set(self, i: int) -> list[str] | None:
        """Return the labels in the prediction set of image ``i``, most probable first; None without thresholds."""
        if self.thresholds is None:
            return None
        least = self.thresholds.set_thresholds
        return [self.classes[c] for c in self.ranking(i) if self.probabilities[i, c] >= least[c]]


@dataclass(frozen=True, eq=False)  # compared and hashed as one object: arrays have no one answer
class MultiLabelEvaluation:
    """Quality of predictions of several labels for images whose true labels are known.

    ``coverage`` is the share of labels that hold which are in the prediction set of their image, and ``set_size`` the
    mean number of labels in a set; ``false_rejections`` counts images that are rejected as unlike the training images.
    All three are None without thresholds, or where there is nothing to count.
    """

    predictions: MultiLabelPredictions
    metrics: MultiLabelMetrics
    coverage: Accuracy | None = None
    set_size: float | None = None
    false_rejections: Accuracy | None = None

    @property
    def training_images(self) -> int:
        """How many of the images the model was trained on: of these it says nothing about new ones."""
        known = self.predictions.is_training_image
        return 0 if known is None else int(known.sum())

    @property
    def missed_targets(self) -> list[str]:
        """A sentence for each promise of the thresholds that these images break, beyond chance (95%)."""
        thresholds = self.predictions.label_thresholds
        assert thresholds is not None
        notes = []
        for label, promised in zip(self.metrics.per_label, thresholds.is_promised, strict=True):
            found = label.recall if thresholds.target == "recall" else label.precision
            if promised and found.interval is not None and found.interval[1] < thresholds.share:
                notes.append(
                    f"The {thresholds.target} of {label.name} is {found}, {target_text(thresholds.share)} was "
                    "targeted: these images differ from the training images, or the groups of those were too few."
                )
        return notes

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        predictions, thresholds = self.predictions, self.predictions.thresholds
        assert predictions.label_thresholds is not None
        values: dict[str, object] = {
            "labels": list(predictions.classes),
            "images": {
                "count": len(predictions),
                "quarantined": len(predictions.quarantined),
                "training": self.training_images,
            },
            **self.metrics.to_dict(),
            "label_thresholds": predictions.label_thresholds.to_dict(),
        }
        if thresholds is not None:
            coverage = None if self.coverage is None else {**self.coverage.to_dict(), "set_size": self.set_size}
            values["coverage"] = {"promised": thresholds.coverage, "found": coverage}
            values["none_of_these"] = {
                "false_alarms": thresholds.false_alarms,
                "known": None if self.false_rejections is None else self.false_rejections.to_dict(),
            }
        return values


def evaluate_labels(
    predictions: MultiLabelPredictions, groups: NDArray[np.integer] | None = None
) -> MultiLabelEvaluation:
    """Evaluate predictions against the true labels, which must be known.

    ``groups`` [n] are those of images of which several show one thing, where they are known: intervals are then by
    groups.
    """
    truth, known = predictions.label_truth, predictions.label_known
    assert truth is not None
    assert known is not None
    probabilities = np.where(known, predictions.probabilities, 0.0)  # NaN where a label is not known
    metrics = multi_label_metrics(probabilities, predictions.decisions, truth, known, predictions.classes, groups)
    coverage = set_size = false_rejections = None
    sets, is_rejected = predictions.sets, predictions.is_rejected
    if sets is not None:
        rows, columns = np.nonzero(truth & known)
        held = sets[rows, columns]
        if len(held):
            coverage = held_out_accuracy(held, None if groups is None else groups[rows])
        set_size = float(sets.sum(axis=1).mean())
    if is_rejected is not None and len(is_rejected):
        false_rejections = held_out_accuracy(is_rejected, groups)
    return MultiLabelEvaluation(predictions, metrics, coverage, set_size, false_rejections)


def check_labels_to_compare(dataset: Dataset, names: tuple[str, ...]) -> list[str]:
    """Check that a dataset has several labels an image, and return notes where they are not those of a model.

    Raises DataError.
    """
    if not dataset.is_multi_label:
        raise DataError(
            f"{dataset.uri} has one class an image, or none, and the model several labels; give a table with the "
            "labels of each image (in Python: ReadOptions(multi_label=True))."
        )
    unknown = [name for name in dataset.label_names if name not in names]
    missing = [name for name in names if name not in dataset.label_names]
    notes = []
    if unknown:
        notes.append(f"The model does not know {listed(unknown)}; these labels are not looked at.")
    if missing:
        notes.append(f"The data do not name {listed(missing)}, and are taken to have no image with them.")
    return notes
