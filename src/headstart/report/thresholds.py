"""What a threshold for a class would do: how many of its images it finds, and how many others it takes for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.report.data import ClassThresholds

THRESHOLDS = (0.01, 0.02, *(i / 20 for i in range(1, 20)), 0.98, 0.99)
MAX_CLASSES = 100


def class_thresholds(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], predicted: NDArray[np.int64]
) -> tuple[ClassThresholds, ...]:
    """Return the counts of the classes with the most errors, by number of the class.

    ``probabilities`` [n, k] are those of the model's classes; ``truth`` and ``predicted`` [n] are classes, of which
    true ones may be none of the k. Counted is what ``stats.decision.DecisionRule.of_thresholds`` predicts if this class
    alone has a threshold t: the class, if its probability over t is at least that of every other class over 1 - t.
    """
    classes = probabilities.shape[1]
    is_error = truth != predicted
    errors = np.bincount(truth[is_error], minlength=classes)[:classes]
    errors = errors + np.bincount(predicted[is_error], minlength=classes)
    chosen = np.sort(np.argsort(-errors, kind="stable")[:MAX_CLASSES])
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    rows = np.arange(len(truth))
    result = []
    for c in chosen.tolist():
        rival = probabilities[rows, np.where(order[:, 0] == c, order[:, 1], order[:, 0])]
        own = probabilities[:, c]
        highest = own / np.maximum(own + rival, 1e-300)  # the highest threshold at which the class is predicted
        reached = np.searchsorted(THRESHOLDS, highest, side="right")
        is_class = truth == c
        result.append(
            ClassThresholds(c, int(is_class.sum()), _at_least(reached[is_class]), _at_least(reached[~is_class]))
        )
    return tuple(result)


def _at_least(reached: NDArray[np.int64]) -> tuple[int, ...]:
    """Return for each threshold how many images reach it; ``reached`` [n] are the numbers of thresholds reached."""
    counts = np.bincount(reached, minlength=len(THRESHOLDS) + 1)
    return tuple(np.cumsum(counts[::-1])[::-1][1:].tolist())
