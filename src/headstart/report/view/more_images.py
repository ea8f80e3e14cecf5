"""How many more images of a class to add, by how its accuracy rose with the number of images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.heads.learning_curve import STEPS, classes_with_errors, extrapolate
from headstart.report.view.run_values import RunValues, finite_number, interval_of

FEWER_ERRORS = 0.8  # of the errors there are: what is worth the work
MAX_POINTS = 100


_Bounds = tuple[float, tuple[float, float]] | None  # images, and the interval of the share that is misclassified


@dataclass(frozen=True)
class MoreImages:
    """What more images would bring for one class.

    ``few`` and ``few_error`` are the fewest images of the class that a head was trained on and the share of the class
    that it misclassifies; ``now`` and ``now_error`` the same of all images. ``more`` is a round number of images that
    should leave ``expected_error``, at most four fifths of the errors; None where twice the images would not.
    ``interval`` is the 95% interval of ``expected_error``, None where the run does not tell.
    """

    class_index: int
    few: int
    few_error: float
    now: int
    now_error: float
    more: int | None
    expected_error: float
    interval: tuple[float, float] | None = None


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
    last, expectation = points[-1], run.get("learning_curve", "expectation")
    return [
        _advice(c, counts[:, c], errors[:, c], [_class_bounds(entry, c) for entry in (last, expectation)])
        for c in classes_with_errors(errors[-1], counts[-1])
    ]


def _advice(class_index: int, counts: np.ndarray, errors: np.ndarray, bounds: Sequence[_Bounds]) -> MoreImages:
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
        None if more is None else _interval(bounds, now + more),
    )


def _interval(bounds: Sequence[_Bounds], images: int) -> tuple[float, float] | None:
    """Return the interval of the error at a number of images, by the power law through the bounds at two others."""
    known = [bound for bound in bounds if bound is not None]
    if len(known) < 2 or known[0][0] >= known[1][0]:
        return None
    sizes = np.array([size for size, _ in known])
    ends = np.array([ends for _, ends in known]).T  # [low and high, sizes]
    low, high = extrapolate(sizes, ends, images).tolist()
    return (low, min(1.0, high))


def _class_bounds(entry: object, class_index: int) -> _Bounds:
    """Return the images of a class at a point, and the interval of its error; None where these are not given."""
    if not isinstance(entry, Mapping):
        return None
    counts, intervals = entry.get("per_class"), entry.get("class_interval")
    if not all(isinstance(values, list) and len(values) > class_index for values in (counts, intervals)):
        return None
    assert isinstance(counts, list)
    assert isinstance(intervals, list)
    count, ends = finite_number(counts[class_index]), interval_of(intervals[class_index])
    if count is None or not 1 <= count < 1e9 or ends is None or not 0 <= ends[0] <= ends[1] <= 1:
        return None
    return count, (1 - ends[1], 1 - ends[0])


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
