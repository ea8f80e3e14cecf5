"""Results by class, and the classes that have a colour on the map."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.report.data import ImageResult

MAX_ROWS = 50
MAX_COLOURS = 8


@dataclass(frozen=True)
class ClassRow:
    """Results of the images of one class, with the mean probability of that class and the most frequent wrong class."""

    true_class: int
    count: int
    correct: int
    mean_probability: float
    most_frequent_error: int | None


def class_table(images: Sequence[ImageResult]) -> list[ClassRow]:
    """Return a row for each true class, lowest accuracy first, up to 50."""
    predictions: dict[int, Counter[int]] = defaultdict(Counter)
    probabilities: dict[int, float] = defaultdict(float)
    for image in images:
        predictions[image.true_class][image.predicted_class] += 1
        probabilities[image.true_class] += image.true_class_confidence
    rows = []
    for c in sorted(predictions, key=lambda c: predictions[c][c] / predictions[c].total())[:MAX_ROWS]:
        count = predictions[c].total()
        errors = Counter({predicted: n for predicted, n in predictions[c].items() if predicted != c}).most_common(1)
        most_frequent_error = errors[0][0] if errors else None
        rows.append(ClassRow(c, count, predictions[c][c], probabilities[c] / count, most_frequent_error))
    return rows


def coloured_classes(images: Sequence[ImageResult]) -> list[int]:
    """Return the classes that have a colour of their own on the map: up to eight, those with the most errors."""
    errors = Counter(image.true_class for image in images if not image.is_correct)
    sizes = Counter(image.true_class for image in images)
    order = sorted(sizes, key=lambda c: (-errors[c], -sizes[c], c))
    return sorted(order[:MAX_COLOURS])
