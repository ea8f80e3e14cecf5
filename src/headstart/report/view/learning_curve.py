"""Points of the learning curve in ``run.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.report.charts import LearningPoint
from headstart.report.view.run_values import RunValues, finite_number, interval_of

MAX_POINTS = 100


def learning_curve(run: RunValues) -> tuple[list[LearningPoint], list[LearningPoint]]:
    """Return the measured and the expected points; both are empty if fewer than two were measured."""
    measured = _points(run.get("learning_curve", "points"))
    if len(measured) < 2:
        return [], []
    return measured, _points([run.get("learning_curve", "expectation")])


def _points(entries: Any) -> list[LearningPoint]:
    """Return the entries that are valid points, by number of images."""
    points = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping):
            count, accuracy = finite_number(entry.get("pictures")), finite_number(entry.get("accuracy"))
            if count is not None and accuracy is not None and 1 <= count < 1e9 and 0 <= accuracy <= 1:
                low, high = interval_of(entry.get("interval")) or (accuracy, accuracy)
                points.append(LearningPoint(int(count), accuracy, min(1, max(0, low)), min(1, max(0, high))))
    return sorted(points, key=lambda point: point.count)[:MAX_POINTS]
