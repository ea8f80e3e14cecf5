"""Which labels an image is said to have: a threshold for each label, from held-out probabilities.

A target recall is met by conformal risk control (Angelopoulos, Bates, Fisch, Lei & Schuster 2022): of a new group of
images that have the label, at most the share 1 - recall is missed on average, with a slack of one in (groups with the
label + 1). Precision does not grow steadily with the threshold, so a target precision is met by testing thresholds one
after the other (Learn then Test: Angelopoulos, Bates, Candès, Jordan & Lei 2021), and holds with a confidence of 90%.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError
from headstart.stats.accuracy import binomial_tail

Array = NDArray[np.float64]
TARGETS = ("recall", "precision")
DEFAULT = 0.5  # the threshold that makes the fewest mistakes with calibrated probabilities; it promises nothing
CONFIDENCE = 0.9  # of a precision
GRID = np.arange(1, 100) / 100  # thresholds that are tested for a precision: fixed, not found in the data


@dataclass(frozen=True)
class LabelThresholds:
    """The probability [k] from which on each label is said to hold, and what is promised of that.

    ``target`` is "recall" or "precision", and ``share`` what it is to be, 0 to 1; "" and 0 where nothing was asked for.
    ``is_promised`` [k] is False for a label of too few groups, which then has the threshold ``DEFAULT``.
    """

    thresholds: tuple[float, ...]
    is_promised: tuple[bool, ...]
    target: str = ""
    share: float = 0.0

    def decide(self, probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which labels [n, k] are said to hold, from probabilities [n, k]."""
        decisions: NDArray[np.bool_] = np.asarray(probabilities, np.float64) >= np.array(self.thresholds)
        return decisions

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form in ``config.json``."""
        return {
            "thresholds": list(self.thresholds),
            "is_promised": list(self.is_promised),
            "target": self.target,
            "share": self.share,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], labels: int) -> LabelThresholds:
        """Read the JSON form; raise ValueError for one that does not fit so many labels."""
        thresholds, promised = value["thresholds"], value["is_promised"]
        for name, numbers in (("thresholds", thresholds), ("is_promised", promised)):
            if not isinstance(numbers, list) or len(numbers) != labels:
                raise ValueError(f"{name} of the labels are not one for each of {labels} labels")
        share = value["share"]
        if not all(type(number) in (int, float) and 0 <= number <= 1 for number in (*thresholds, share)):
            raise ValueError("a threshold of a label is not a number from 0 to 1")
        if not all(type(flag) is bool for flag in promised) or value["target"] not in ("", *TARGETS):
            raise ValueError("what is promised of the thresholds of the labels cannot be read")
        return cls(tuple(map(float, thresholds)), tuple(promised), str(value["target"]), float(share))


def check_target(target: str, share: float) -> None:
    """Raise OptionError for a target that cannot be met."""
    if target not in ("", *TARGETS):
        raise OptionError(f"Unknown target {target!r}; choose one of {', '.join(TARGETS)}.")
    if target and not 0 < share < 1:
        raise OptionError(f"A target {target} of {share} cannot be met; give a share between 0 and 1, like 0.9.")


def groups_needed_for_recall(recall: float) -> int:
    """Return how many groups with a label it takes to promise a recall: with fewer the slack alone is too much."""
    return math.ceil(1 / (1 - recall) - 1 - 1e-9)


def recall_threshold(probabilities: Array, groups: NDArray[np.integer], recall: float) -> float | None:
    """Return the highest threshold that keeps a ``recall`` of a new group; None where there are too few groups.

    ``probabilities`` [n] are those of images that have the label, with their group left out; ``groups`` [n]. The
    threshold keeps it both where every group counts the same, for which it is exact, and where every image does.
    """
    index, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    count = len(sizes)
    budget = (1 - recall) * (count + 1) / count - 1 / count if count else -1.0
    if budget < -1e-12:
        return None
    order = np.argsort(probabilities, kind="stable")
    ordered = probabilities[order]
    first = np.searchsorted(ordered, ordered, side="left")  # how many are below each
    highest = 1.0
    for weights in (1 / (sizes[index] * count), np.full(len(index), 1 / max(1, len(index)))):
        missed = np.concatenate([[0.0], np.cumsum(weights[order])])[first]
        highest = min(highest, float(ordered[missed <= budget + 1e-12].max()))
    return highest


def precision_threshold(
    probabilities: Array, truth: NDArray[np.bool_], groups: NDArray[np.integer], precision: float
) -> float | None:
    """Return a threshold of ``GRID`` whose precision is at least ``precision``, with confidence ``CONFIDENCE``.

    ``probabilities`` and ``truth`` [n] are those of all images whose cell is known, with their group left out. The
    precision is the mean, over groups of which an image is said to have the label, of the share of such images that do.
    From three starts that do not depend on the data, thresholds are tested downwards, as long as the hypothesis that
    the precision is too low is rejected; each start has a third of the error. Of those that pass it is ``DEFAULT``, or
    else the lowest; None where none does.
    """
    index = np.unique(groups, return_inverse=True)[1]
    starts = ((1 + precision) / 2, precision, DEFAULT)
    certified = []
    for start in starts:
        for threshold in GRID[start + 1e-9 >= GRID][::-1]:
            chosen = probabilities >= threshold
            totals = np.bincount(index[chosen])
            hits = np.bincount(index[chosen], truth[chosen])[totals > 0]
            if _too_low(hits / totals[totals > 0], precision) > (1 - CONFIDENCE) / len(starts):
                break
            certified.append(float(threshold))
    return DEFAULT if DEFAULT in certified else min(certified, default=None)


def _too_low(shares: Array, target: float) -> float:
    """Return the p-value of the hypothesis that the mean of which ``shares`` [g] are a sample is below ``target``.

    The binomial test where all are 0 or 1, else that of Hoeffding and Bentkus (Bates et al. 2021, section 3.1.1).
    """
    count = len(shares)
    if not count:
        return 1.0
    errors, rate = float((1 - shares).sum()), 1 - target
    tail = binomial_tail(math.ceil(errors - 1e-9), count, rate)
    if ((shares == 0) | (shares == 1)).all():
        return tail
    mean = min(errors / count, rate)
    divergence = mean * math.log(mean / rate) if mean > 0 else 0.0
    divergence += (1 - mean) * math.log((1 - mean) / (1 - rate)) if mean < 1 else 0.0
    return min(1.0, math.exp(-count * divergence), math.e * tail)


def fit_label_thresholds(
    probabilities: Array,
    values: NDArray[np.bool_],
    known: NDArray[np.bool_],
    groups: NDArray[np.integer],
    target: str,
    share: float,
) -> LabelThresholds:
    """Fit thresholds to the probabilities [n, k] of images whose group was left out.

    ``values`` [n, k] says which labels hold, where ``known`` [n, k]; ``groups`` [n]. ``target`` and ``share`` are those
    of ``LabelThresholds``. A target is kept where ``DEFAULT`` keeps it: a threshold above it for a recall, or below it
    for a precision, would only make more mistakes. Raises OptionError.
    """
    check_target(target, share)
    found: list[float | None] = []
    for label in range(values.shape[1]):
        rows = np.flatnonzero(known[:, label])
        positive = rows[values[rows, label]]
        if target == "recall":
            highest = recall_threshold(probabilities[positive, label], groups[positive], share)
            found.append(None if highest is None else min(highest, DEFAULT))
        elif target == "precision":
            found.append(precision_threshold(probabilities[rows, label], values[rows, label], groups[rows], share))
        else:
            found.append(None)
    thresholds = tuple(DEFAULT if threshold is None else threshold for threshold in found)
    return LabelThresholds(thresholds, tuple(threshold is not None for threshold in found), target, share)


def set_thresholds(
    probabilities: Array,
    values: NDArray[np.bool_],
    known: NDArray[np.bool_],
    groups: NDArray[np.integer],
    coverage: float,
    decisions: LabelThresholds,
) -> tuple[float, ...]:
    """Return the threshold of each label [k] from which on it is in the prediction set of an image.

    Each has the recall ``coverage``, as ``recall_threshold`` promises it; 0 where there are too few groups. A label
    that is said to hold by ``decisions`` is always in the set. The arrays are those of ``fit_label_thresholds``.
    """
    thresholds = []
    for label in range(values.shape[1]):
        positive = np.flatnonzero(known[:, label] & values[:, label])
        highest = recall_threshold(probabilities[positive, label], groups[positive], coverage) or 0.0
        thresholds.append(min(highest, decisions.thresholds[label]))
    return tuple(thresholds)
