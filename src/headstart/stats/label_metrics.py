"""Metrics where an image may have several labels, each with a 95% interval in which images of a group are alike.

Every metric is a number from 0 to 1. As for an accuracy, groups are resampled, the spread of the metric gives the
number of independent images that would spread as much, and Wilson's interval is taken at that number (Korn & Graubard
1998): a bootstrap alone would give a metric of 1 an interval of zero width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.stats.accuracy import independent_images, wilson
from headstart.stats.paired import MetricDifference

Array = NDArray[np.float64]
RESAMPLES = 500
FEWEST = 100  # resamples, where there are many cells
CELLS_AT_ALL = 200_000_000  # that are sorted and summed over all resamples


@dataclass(frozen=True)
class Estimate:
    """A metric, 0 to 1, with its 95% interval; both None where it is not defined, such as the recall of no image."""

    value: float | None
    interval: tuple[float, float] | None

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"value": self.value, "interval": None if self.interval is None else list(self.interval)}

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> Estimate:
        """Read the JSON form; raise ValueError for numbers that are no shares, or contradict each other."""
        number, interval = value["value"], value["interval"]
        if number is None and interval is None:
            return UNDEFINED
        if not isinstance(interval, list) or len(interval) != 2:
            raise ValueError(f"{interval!r} is no interval")
        numbers = [one for one in (interval[0], number, interval[1]) if isinstance(one, int | float)]
        if len(numbers) != 3 or not 0 <= numbers[0] <= numbers[1] <= numbers[2] <= 1:
            raise ValueError(f"{number!r} in {interval!r} is no share")
        return cls(float(numbers[1]), (float(numbers[0]), float(numbers[2])))

    def __str__(self) -> str:
        if self.value is None or self.interval is None:
            return "-"
        return f"{self.value:.1%} (95% interval {self.interval[0]:.1%} to {self.interval[1]:.1%})"


UNDEFINED = Estimate(None, None)


@dataclass(frozen=True)
class LabelMetrics:
    """Metrics of one label; ``support`` images of ``groups`` groups have it, of ``unknown`` it is not known."""

    name: str
    precision: Estimate
    recall: Estimate
    f1: Estimate
    average_precision: Estimate
    support: int
    groups: int
    unknown: int

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "label": self.name,
            "precision": self.precision.to_dict(),
            "recall": self.recall.to_dict(),
            "f1": self.f1.to_dict(),
            "average_precision": self.average_precision.to_dict(),
            "support": self.support,
            "groups": self.groups,
            "unknown": self.unknown,
        }


@dataclass(frozen=True)
class MultiLabelMetrics:
    """Metrics of each label, and of all together.

    ``mean_average_precision`` and ``macro_f1`` are unweighted means over the labels that some image has, ``micro_f1``
    is that of all cells together, and ``exact_match`` the share of images, of those without an unknown cell, of which
    every label is right.
    """

    per_label: tuple[LabelMetrics, ...]
    mean_average_precision: Estimate
    micro_f1: Estimate
    macro_f1: Estimate
    exact_match: Estimate

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "per_label": [label.to_dict() for label in self.per_label],
            "mean_average_precision": self.mean_average_precision.to_dict(),
            "micro_f1": self.micro_f1.to_dict(),
            "macro_f1": self.macro_f1.to_dict(),
            "exact_match": self.exact_match.to_dict(),
        }


def average_precisions(
    probabilities: Array, truth: NDArray[np.bool_], known: NDArray[np.bool_], weights: Array | None = None
) -> Array:
    """Return the average precision [k] of each label, NaN where no image has it.

    It is the sum over thresholds of the precision times the step in recall, images of equal probability being one step
    (scikit-learn's ``average_precision_score``). Only ``known`` cells [n, k] count, each image ``weights`` [n] times.
    """
    return _AveragePrecision(probabilities, truth, known)(np.ones(len(truth)) if weights is None else weights)


class _AveragePrecision:
    """Average precision of k labels, with the images of each sorted once for many weights of the images."""

    def __init__(self, probabilities: Array, truth: NDArray[np.bool_], known: NDArray[np.bool_]) -> None:
        self.order = np.argsort(-np.where(known, probabilities, -np.inf), axis=0, kind="stable")
        ordered = np.take_along_axis(np.where(known, probabilities, -1.0), self.order, axis=0)
        self.truth = np.take_along_axis(truth & known, self.order, axis=0).astype(np.float64)
        self.known = np.take_along_axis(known, self.order, axis=0).astype(np.float64)
        ends = np.vstack([ordered[1:] != ordered[:-1], np.ones((1, ordered.shape[1]), bool)])
        # The last image of those with the same probability, at the place of each.
        last = np.where(ends, np.arange(len(ends))[:, None], len(ends))
        self.last = np.minimum.accumulate(last[::-1], axis=0)[::-1]

    def __call__(self, weights: Array) -> Array:
        ordered = weights[self.order]
        hits = ordered * self.truth
        found, seen = np.cumsum(hits, axis=0), np.cumsum(ordered * self.known, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.take_along_axis(found, self.last, axis=0) / np.take_along_axis(seen, self.last, axis=0)
            totals: Array = np.nansum(hits * precision, axis=0) / found[-1]
        return totals


def multi_label_metrics(
    probabilities: Array,
    decisions: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    known: NDArray[np.bool_],
    names: Sequence[str],
    groups: NDArray[np.integer] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> MultiLabelMetrics:
    """Compute the metrics of ``probabilities`` and ``decisions`` [n, k] for labels ``names`` [k], n > 0.

    ``truth`` [n, k] counts where ``known`` [n, k]. ``groups`` [n] are given where images of a group are alike.
    Intervals are of at most ``resamples``.
    """
    index = np.arange(len(truth)) if groups is None else np.unique(groups, return_inverse=True)[1]
    truth = truth & known
    cells = np.stack([decisions & truth, decisions & known & ~truth, ~decisions & truth]).astype(np.float64)
    by_group = np.zeros((int(index.max()) + 1, *cells.shape[::2]))
    np.add.at(by_group, index, cells.transpose(1, 0, 2))  # [groups, kind of cell, labels]
    whole = np.asarray(known.all(axis=1), bool)
    is_right = ((decisions == truth) | ~known).all(axis=1)
    exact = np.stack([np.bincount(index, whole & is_right), np.bincount(index, whole)], axis=1).astype(np.float64)
    precision_of = _AveragePrecision(probabilities, truth, known)
    has_label = np.asarray(truth.any(axis=0), bool)

    draws = int(np.clip(CELLS_AT_ALL / truth.size, min(FEWEST, resamples), resamples))
    generator, count = np.random.default_rng(seed), len(by_group)
    value = _all_metrics(np.ones(count), by_group, exact, precision_of, index, has_label)
    resampled = [value]
    for _ in range(draws if count > 1 else 0):
        draw = generator.multinomial(count, np.full(count, 1 / count)).astype(np.float64)
        resampled.append(_all_metrics(draw, by_group, exact, precision_of, index, has_label))
    spread = {name: np.stack([metrics[name] for metrics in resampled[1:]] or [value[name]]) for name in value}

    def estimate(name: str, i: int, selected: NDArray[np.bool_]) -> Estimate:
        sizes = np.unique(index[selected], return_counts=True)[1].astype(np.float64)
        return _estimate(value[name][i], spread[name][:, i], sizes)

    per_label = tuple(
        LabelMetrics(
            name,
            estimate("precision", i, decisions[:, i] & known[:, i]),
            estimate("recall", i, truth[:, i]),
            estimate("f1", i, (decisions[:, i] & known[:, i]) | truth[:, i]),
            estimate("average", i, truth[:, i]),
            int(truth[:, i].sum()),
            len(np.unique(index[truth[:, i]])),
            int((~known[:, i]).sum()),
        )
        for i, name in enumerate(names)
    )
    every = np.ones(len(truth), bool)
    mean_average, micro, macro = (estimate("overall", i, every) for i in range(3))
    return MultiLabelMetrics(per_label, mean_average, micro, macro, estimate("overall", 3, whole))


def mean_average_precision_difference(
    first: Array,
    second: Array,
    truth: NDArray[np.bool_],
    known: NDArray[np.bool_],
    groups: NDArray[np.integer],
    *,
    seed: int = 0,
) -> MetricDifference:
    """Compare two models by their probabilities [n, k] of the same images, of groups [n], for the same labels.

    A resample has the same groups for both models, and its mean is over the labels that an image of it has.
    """
    index = np.unique(groups, return_inverse=True)[1]
    count, truth = int(index.max()) + 1, truth & known
    precisions = [_AveragePrecision(probabilities, truth, known) for probabilities in (first, second)]

    def difference(weights: Array) -> float:
        values = precisions[1](weights) - precisions[0](weights)  # NaN for a label that no image has
        return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else 0.0

    draws = int(np.clip(CELLS_AT_ALL / (2 * truth.size), 2 * FEWEST, 4 * RESAMPLES)) if count > 1 else 0
    generator, equal = np.random.default_rng(seed), np.full(count, 1 / count)
    resampled = [difference(generator.multinomial(count, equal).astype(np.float64)[index]) for _ in range(draws)]
    return MetricDifference.of(difference(np.ones(len(truth))), np.array(resampled), count)


def _all_metrics(
    weights: Array,
    by_group: Array,
    exact: Array,
    precision_of: _AveragePrecision,
    index: NDArray[np.integer],
    has_label: NDArray[np.bool_],
) -> dict[str, Array]:
    """Return all metrics where each group counts ``weights`` [groups] times; what is not defined is NaN."""
    hits, false, missed = np.tensordot(weights, by_group, axes=1)
    average = precision_of(weights[index])
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * hits / (2 * hits + false + missed)
        micro = 2 * hits.sum() / (2 * hits.sum() + false.sum() + missed.sum())
        right, images = weights @ exact
        # A label that some image has, but none of this resample, is left out of its means.
        present = has_label & (hits + missed > 0)
        overall = [
            average[present].mean() if present.any() else np.nan,
            micro,
            np.nan_to_num(f1[present]).mean() if present.any() else np.nan,
            right / images,
        ]
        return {
            "precision": hits / (hits + false),
            "recall": hits / (hits + missed),
            "f1": f1,
            "average": average,
            "overall": np.array(overall),
        }


def _estimate(value: float, resampled: Array, sizes: Array) -> Estimate:
    """Return a metric with Wilson's interval at its number of independent images, of groups of ``sizes`` [m]."""
    if not np.isfinite(value) or not len(sizes):
        return UNDEFINED
    value, finite = float(np.clip(value, 0, 1)), resampled[np.isfinite(resampled)]
    count = independent_images(value, float(np.var(finite)) or np.inf if len(finite) else np.inf, sizes)
    return Estimate(value, wilson(value * count, count))
