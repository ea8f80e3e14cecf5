"""Confusion matrix, and precision, recall and F1 by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.stats.accuracy import Accuracy, wilson

GOOD_RECALL = 0.9  # from which on a class is not called weak, however good the others are
UNEVEN = 1.5  # times the share that a class would have if all had equally many images


@dataclass(frozen=True)
class ClassMetrics:
    """Precision, recall and F1 of one class, 0 to 1, and its number of images (support).

    A ratio whose denominator is zero is None: the precision of a class that was never predicted, the recall of a class
    without images, and the F1 of a class that is neither.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "class": self.name,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "support": self.support,
        }


@dataclass(frozen=True)
class ClassificationMetrics:
    """Metrics of each class and their unweighted means over the classes that have images.

    ``macro_precision`` and ``macro_f1`` count an undefined ratio as 0, as scikit-learn's ``classification_report``
    does; ``balanced_accuracy`` is the mean recall (Brodersen et al. 2010).
    """

    per_class: tuple[ClassMetrics, ...]
    macro_precision: float
    macro_recall: float
    macro_f1: float

    @property
    def majority(self) -> tuple[str, float]:
        """The class with the most images, and its share of all: the accuracy of always predicting it."""
        largest = max(self.per_class, key=lambda metrics: metrics.support)
        return largest.name, largest.support / sum(metrics.support for metrics in self.per_class)

    @property
    def is_uneven(self) -> bool:
        """Whether one class has so many images that an accuracy must be read beside its share."""
        present = sum(metrics.support > 0 for metrics in self.per_class)
        return self.majority[1] >= UNEVEN / present

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have images."""
        return self.macro_recall

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "per_class": [metrics.to_dict() for metrics in self.per_class],
            "macro": {"precision": self.macro_precision, "recall": self.macro_recall, "f1": self.macro_f1},
            "balanced_accuracy": self.balanced_accuracy,
            "majority": {"class": self.majority[0], "share": self.majority[1]},
        }


def confusion_matrix(y_true: NDArray[np.integer], y_pred: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Count images [classes, classes]: the row is the true class, the column the predicted one."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (y_true, y_pred), 1)
    return counts


def classification_metrics(
    y_true: NDArray[np.integer], y_pred: NDArray[np.integer], names: Sequence[str]
) -> ClassificationMetrics:
    """Compute the metrics of true and predicted classes ``y_true`` and ``y_pred`` [n], in 0..k-1 for ``names`` [k]."""
    counts = confusion_matrix(y_true, y_pred, len(names))
    hits, support, predictions = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    per_class = tuple(
        ClassMetrics(
            name,
            _ratio(hits[i], predictions[i]),
            _ratio(hits[i], support[i]),
            _ratio(2 * hits[i], support[i] + predictions[i]),
            int(support[i]),
        )
        for i, name in enumerate(names)
    )
    present = [metrics for metrics in per_class if metrics.support]
    if not present:
        raise ValueError("there are no images to compute metrics of")
    return ClassificationMetrics(
        per_class,
        float(np.mean([metrics.precision or 0.0 for metrics in present])),
        float(np.mean([metrics.recall or 0.0 for metrics in present])),
        float(np.mean([metrics.f1 or 0.0 for metrics in present])),
    )


def _ratio(numerator: int, denominator: int) -> float | None:
    return float(numerator / denominator) if denominator else None


@dataclass(frozen=True)
class WeakClass:
    """A class that is recognised far worse than the others: its recall, and the class that most of the rest became."""

    name: str
    recall: Accuracy
    taken_for: str
    taken: int

    def describe(self) -> str:
        """Return one line: "humans: 10.0% recall (95% interval 4.9% to 19.2%), 63 of 70 taken for dolls"."""
        low, high = self.recall.interval
        return (
            f"{self.name}: {self.recall.value:.1%} recall (95% interval {low:.1%} to {high:.1%}), "
            f"{self.taken} of {self.recall.count} taken for {self.taken_for}"
        )

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"class": self.name, "recall": self.recall.to_dict(), "taken_for": self.taken_for, "taken": self.taken}


def weak_classes(
    y_true: NDArray[np.integer],
    y_pred: NDArray[np.integer],
    names: Sequence[str],
    groups: NDArray[np.integer] | None = None,
) -> tuple[WeakClass, ...]:
    """Return the classes that are weak beyond chance, worst first; none where no class stands out.

    A class is weak where less than ``GOOD_RECALL`` of its images are recognised and the 95% interval of that share
    (Wilson) lies below that of the images of all other classes. With ``groups`` [n], whose images are alike, each group
    counts as one image. ``y_true`` and ``y_pred`` [n] are in 0..k-1 for ``names`` [k]; other true classes are ignored.
    """
    weak = []
    is_correct, is_known = y_true == y_pred, y_true < len(names)
    for i, name in enumerate(names):
        own = y_true == i
        others = is_known & ~own
        if not own.any() or not others.any():
            continue
        recall = _recall(is_correct, own, groups)
        if recall.value >= GOOD_RECALL or recall.interval[1] >= _recall(is_correct, others, groups).interval[0]:
            continue
        counts = np.bincount(y_pred[own & ~is_correct], minlength=len(names))
        taken_for = int(counts.argmax())
        weak.append(WeakClass(name, recall, names[taken_for], int(counts[taken_for])))
    return tuple(sorted(weak, key=lambda weak_class: weak_class.recall.value))


def _recall(is_correct: NDArray[np.bool_], selected: NDArray[np.bool_], groups: NDArray[np.integer] | None) -> Accuracy:
    correct, count = int(is_correct[selected].sum()), int(selected.sum())
    independent = count if groups is None else len(np.unique(groups[selected]))
    method = "Wilson" if groups is None else "Wilson, a group as one image"
    return Accuracy(correct, count, wilson(correct / count * independent, independent), method)
