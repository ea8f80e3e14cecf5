"""How many more images of a class to add, by how its accuracy rose with the number of images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.heads.learning_curve import STEPS, extrapolate
from headstart.report.view.run_values import RunValues, finite_number

MAX_CLASSES = 5
MIN_ERRORS = 3  # misclassified images of a class; of fewer no curve can be drawn
FEWER_ERRORS = 0.8  # of the errors there are: what is worth the work
MAX_POINTS = 100


@dataclass(frozen=True)
class MoreImages:
    """What more images would bring for one class.

    ``few`` and ``few_error`` are the fewest images of the class that a head was trained on and the share of the class
    that it misclassifies; ``now`` and ``now_error`` the same of all images. ``more`` is a round number of images that
    should leave ``expected_error``, at most four fifths of the errors; None where twice the images would not.
    """

    class_index: int
    few: int
    few_error: float
    now: int
    now_error: float
    more: int | None
    expected_error: float


def more_images(run: RunValues, known_classes: int) -> list[MoreImages]:
    """Return the classes with the most misclassified images, most first; none where the curve does not tell them.

    The errors of a class fall about as a power of the number of images, as those of all classes do (see
    ``heads.learning_curve``); in the measurement all classes grow together.
    """
    points = run.get("learning_curve", "points")
    valid = [_point(point, known_classes) for point in points[:MAX_POINTS]] if isinstance(points, list) else []
    table = [point for point in valid if point is not None]
    if len(table) < 2 or len(table) < len(valid):
        return []
    counts, errors = (np.array(values) for values in zip(*table, strict=True))  # [points, classes]
    if (np.diff(counts, axis=0) < 0).any() or counts.min() < 1:
        return []
    wrong = counts[-1] * errors[-1]
    chosen = [c for c in np.argsort(-wrong, kind="stable").tolist() if wrong[c] >= MIN_ERRORS - 1e-9]
    return [_advice(c, counts[:, c], errors[:, c]) for c in chosen[:MAX_CLASSES]]


def _advice(class_index: int, counts: np.ndarray, errors: np.ndarray) -> MoreImages:
    now = int(counts[-1])

    def expected(more: int) -> float:
        return float(extrapolate(counts, errors[None], now + more)[0])

    enough = [more for more in _round_numbers(now) if expected(more) <= FEWER_ERRORS * errors[-1]]
    more = enough[0] if enough else None
    return MoreImages(
        class_index,
        int(counts[0]),
        float(errors[0]),
        now,
        float(errors[-1]),
        more,
        expected(now if more is None else more),
    )


def _round_numbers(limit: int) -> list[int]:
    """Return 10, 20, 50, 100, ... up to a limit, or 1, 2, 5 where the limit is below ten."""
    powers = range(int(math.log10(max(1, limit))) + 1)
    numbers = [step * 10**power for power in powers for step in STEPS if step * 10**power <= limit]
    return [number for number in numbers if number >= min(10, limit // 2)]


def _point(entry: object, classes: int) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return the images of each class, and the share of each that is misclassified; None where these are not given."""
    if not isinstance(entry, Mapping):
        return None
    counts, accuracy = entry.get("per_class"), entry.get("class_accuracy")
    if not (isinstance(counts, list) and isinstance(accuracy, list) and len(counts) == len(accuracy) == classes):
        return None
    numbers, shares = [finite_number(value) for value in counts], [finite_number(value) for value in accuracy]
    if not all(n is not None and 0 <= n < 1e9 for n in numbers) or not all(
        s is not None and 0 <= s <= 1 for s in shares
    ):
        return None
    return [n or 0.0 for n in numbers], [1 - (s or 0.0) for s in shares]
