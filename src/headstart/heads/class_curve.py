"""What more images of one class would bring to its recall, said only where the same can be shown backwards.

The images of the class are taken away in blocks of whole groups, and each block is predicted by heads that learned from
all the rest: so its recall is known for fewer images than there are. The power law of ``learning_curve`` through these
is held against the recall that the images now have; only if its interval contains that, it is drawn further.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.kinds import Array, Labels
from headstart.heads.learning_curve import error_interval, expected_error, round_number
from headstart.heads.live import LiveHead

MORE = 20  # images, unless stated
BLOCKS = (3, 2, 1, 0)  # how many times as many images are taken away, at most half of the class
MIN_GROUPS = 6


@dataclass(frozen=True)
class CurvePoint:
    """Recall, 0 to 1, with its 95% interval, of a class with so many ``images``."""

    images: int
    recall: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class ClassCurve:
    """Points from few images of a class to all, and what ``more`` are expected to bring.

    ``predicted`` is the interval for the recall with all images that follows from ``more`` fewer. ``expected`` is None
    unless the recall lies in it; ``why`` then says so, as it does where there are too few images for a curve.
    """

    points: tuple[CurvePoint, ...]
    more: int
    predicted: tuple[float, float] | None
    expected: CurvePoint | None
    why: str

    @property
    def holds(self) -> bool:
        """Whether the recall with all images lies in the interval predicted from fewer."""
        return self.predicted is not None and self.predicted[0] <= self.points[-1].recall <= self.predicted[1]


def class_curve(head: LiveHead, labels: Labels, groups: Labels, label: int, more: int | None = None) -> ClassCurve:
    """Compute the curve of one class of images with ``labels`` [n], -1 where not there, and ``groups`` [n]."""
    members = np.flatnonzero(labels == label)
    more = more or (MORE if len(members) >= 3 * MORE else max(1, round_number(max(1, len(members) // 3))))
    names = np.unique(groups[members])
    if len(members) < 3 * more or len(names) < MIN_GROUPS:
        return ClassCurve((), more, None, None, f"{3 * more} images in {MIN_GROUPS} groups are needed for {more} more.")
    order = np.random.default_rng(0).permutation(len(names))
    place = order[np.searchsorted(names, groups)[members]]  # a random place of each image's group
    errors, sizes = [], []
    for times in (times for times in BLOCKS if times * more <= len(members) / 2):
        blocks = _blocks(place, times * more)
        found = _errors(head, labels, groups, members, blocks)
        if found is None:
            return ClassCurve(
                (), more, None, None, "The predictions cannot be followed live; wait for the full choice."
            )
        errors.append(found)
        sizes.append(len(members) - len(members) / (blocks.max() + 1) if times else float(len(members)))
    if len(sizes) < 3:
        return ClassCurve((), more, None, None, f"{4 * more} images are needed to tell what {more} more bring.")
    return _curve(np.array(errors), np.array(sizes), groups[members], more)


def _blocks(place: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Deal images into blocks of about ``size`` by the place of their group; of one group each where it is 0."""
    if not size:
        return place
    sizes = np.bincount(place)
    block_of_group = (np.cumsum(sizes) - sizes / 2) // (sizes.sum() / max(2, round(sizes.sum() / size)))
    return np.unique(block_of_group[place], return_inverse=True)[1]


def _errors(
    head: LiveHead, labels: Labels, groups: Labels, members: NDArray[np.int64], blocks: NDArray[np.int64]
) -> Array | None:
    """Return which images of a class are misclassified when all groups of their block are left out together."""
    merged = groups.copy()
    first_of_block = np.unique(blocks, return_index=True)[1]
    of_group = dict(zip(groups[members].tolist(), groups[members][first_of_block][blocks].tolist(), strict=True))
    known = np.array(sorted(of_group))
    is_known = np.isin(groups, known)
    merged[is_known] = np.array([of_group[group] for group in known])[np.searchsorted(known, groups[is_known])]
    rows = np.flatnonzero(np.isin(merged, merged[members]) & (labels >= 0))
    found = head.held_out(labels, merged, rows)
    if found is None:
        return None
    predicted = found.classes[found.probabilities.argmax(axis=1)]
    errors: Array = (predicted != labels[found.rows])[np.searchsorted(found.rows, members)].astype(np.float64)
    return errors


def _curve(errors: Array, sizes: Array, groups: Labels, more: int) -> ClassCurve:
    every = np.r_[sizes, sizes[-1] + more]
    shares = np.r_[1 - errors.mean(axis=1), 1 - expected_error(errors, groups, every)]
    high, low = 1 - error_interval(errors, groups, every, seed=0)
    *points, expected = (
        CurvePoint(round(size), share, (min(a, share), max(b, share)))
        for size, share, a, b in zip(every.tolist(), shares.tolist(), low.tolist(), high.tolist(), strict=True)
    )
    predicted_high, predicted_low = (1 - error_interval(errors[:-1], groups, sizes, seed=0)[:, -1]).tolist()
    predicted = (predicted_low, predicted_high)
    curve = ClassCurve(tuple(points), more, predicted, expected, "")
    if curve.holds:
        return curve
    why = (
        f"From {points[-2].images} images a recall of {predicted_low:.1%} to {predicted_high:.1%} was to be expected "
        f"with all {points[-1].images}; it is {points[-1].recall:.1%}, so nothing is said about more."
    )
    return ClassCurve(tuple(points), more, predicted, None, why)
