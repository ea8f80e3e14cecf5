"""Confusion matrix, and precision, recall and F1 by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
