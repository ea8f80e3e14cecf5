"""Which class is predicted where mistakes do not cost the same, and what the mistakes cost.

Every rule here predicts the class with the largest score ``probabilities @ matrix``. The one with the least expected
cost has ``matrix = -costs`` (Elkan 2001, "The foundations of cost-sensitive learning", section 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError
from headstart.stats.accuracy import effective_count, wilson

Array = NDArray[np.float64]
KINDS = ("costs", "thresholds")
MAX_CLASSES = 500  # of a rule, whose matrix grows as their square
MAX_VALUE = 1e6  # of a cost; of a weight, or one over it
MAX_SOURCE = 200  # characters


@dataclass(frozen=True)
class DecisionRule:
    """Predicts the class with the largest of ``probabilities @ matrix`` [n, k]; of equal ones the first.

    ``kind`` is "costs", where ``matrix`` [k, k] is minus the cost of predicting column j for an image of class i, or
    "thresholds", where it has one over each class's threshold on its diagonal. ``source`` names the file that the costs
    came from, "" where there is none.
    """

    kind: str
    matrix: Array = field(repr=False)
    source: str = ""

    @classmethod
    def of_costs(cls, costs: Array, source: str = "") -> DecisionRule:
        """Make the rule of the least expected cost from ``costs`` [k, k], the row being the true class.

        Raises OptionError where a cost is not from 0 to ``MAX_VALUE``, where a correct prediction costs more than a
        wrong one, as in a table that was turned over, and where all decisions cost the same.
        """
        costs = np.asarray(costs, np.float64)
        _check_classes(len(costs))
        if not ((costs >= 0) & (costs <= MAX_VALUE)).all():  # NaN is neither
            raise OptionError(f"Costs must be numbers from 0 to {MAX_VALUE:,.0f}; subtract what a decision gains.")
        if (costs < costs.diagonal()[:, None]).any():
            raise OptionError(
                "A correct prediction costs more than a wrong one; expected a row for each true class, with the cost "
                "of predicting each class, and the least cost where both are the same."
            )
        if (costs == costs[:, :1]).all():
            raise OptionError("All predictions cost the same, so that costs decide nothing; give mistakes a cost.")
        return cls("costs", 0.0 - costs, source[:MAX_SOURCE])

    @classmethod
    def of_thresholds(cls, thresholds: Sequence[float | None]) -> DecisionRule:
        """Make the rule by which a class is predicted where its probability reaches its threshold.

        Of several such classes it is the one with the largest ratio of probability to threshold, and so it is where
        there is none. A class without one (None) has 1 minus the least of the others: with that, no class without a
        threshold is predicted where one with a threshold reaches it, and of two classes each has what the other lacks
        to 1. Raises OptionError.
        """
        _check_classes(len(thresholds))
        given = [value for value in thresholds if value is not None]
        if not given or not all(1 / MAX_VALUE <= value <= 1 - 1 / MAX_VALUE for value in given):
            raise OptionError("A threshold must be a probability between 0 and 1, like 0.2.")
        rest = 1 - min(given)
        return cls("thresholds", np.diag([1 / (rest if value is None else value) for value in thresholds]))

    @property
    def costs(self) -> Array | None:
        """The costs [k, k], the row being the true class; None for thresholds."""
        return 0.0 - self.matrix if self.kind == "costs" else None

    @property
    def thresholds(self) -> Array | None:
        """The threshold of each class [k]; None for costs."""
        return 1 / self.matrix.diagonal() if self.kind == "thresholds" else None

    def decide(self, probabilities: Array) -> NDArray[np.int64]:
        """Return the class [n] that is predicted from probabilities [n, k]."""
        return np.asarray((probabilities @ self.matrix).argmax(axis=1), np.int64)

    def describe(self, classes: Sequence[str]) -> str:
        """Return the rule as a sentence, without the point."""
        if self.thresholds is None:
            return f"Decisions minimise the costs in {self.source}" if self.source else "Decisions minimise given costs"
        values = [f"{name} {value:.4g}" for name, value in zip(classes, self.thresholds, strict=True)]
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        return f"Decisions follow thresholds: {', '.join(values[:5])}{more}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form in ``config.json`` and ``run.json``."""
        return {"kind": self.kind, "matrix": self.matrix.tolist(), "source": self.source}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], classes: int) -> DecisionRule:
        """Read the JSON form, which is not believed. Raises ValueError (OptionError is one), KeyError or TypeError."""
        kind, rows, source = value["kind"], value["matrix"], value["source"]
        if kind not in KINDS or not isinstance(source, str) or len(source) > MAX_SOURCE:
            raise ValueError("decision is not of a known kind")
        has_shape = (
            classes <= MAX_CLASSES
            and isinstance(rows, list)
            and len(rows) == classes
            and all(isinstance(row, list) and len(row) == classes for row in rows)
        )
        if not has_shape or not all(type(number) in (int, float) for row in rows for number in row):
            raise ValueError(f"decision.matrix is not {classes} rows of {classes} numbers")
        matrix = np.array([[float(number) for number in row] for row in rows])
        if not (np.abs(matrix) <= MAX_VALUE * (1 + 1e-9)).all():
            raise ValueError(f"decision.matrix has numbers that are not from -{MAX_VALUE:g} to {MAX_VALUE:g}")
        if kind == "costs":
            return cls.of_costs(0.0 - matrix, source)
        off_diagonal = matrix[~np.eye(classes, dtype=bool)]
        if off_diagonal.any() or not (matrix.diagonal() >= 1).all():
            raise ValueError("decision.matrix has no thresholds on its diagonal")
        return cls(kind, matrix, source)


def decide(probabilities: NDArray[np.floating], rule: DecisionRule | None) -> NDArray[np.int64]:
    """Return the class [n] that a rule decides for from probabilities [n, k]; without one the most probable class."""
    if rule is not None:
        return rule.decide(probabilities.astype(np.float64))
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def _check_classes(count: int) -> None:
    if count > MAX_CLASSES:
        raise OptionError(f"Costs and thresholds are for up to {MAX_CLASSES} classes; these data have {count}.")


@dataclass(frozen=True)
class MeanCost:
    """Mean cost of a decision over ``count`` images, with a 95% interval and the name of the method that gave it."""

    value: float
    count: int
    interval: tuple[float, float]
    method: str

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"value": self.value, "count": self.count, "interval": list(self.interval), "method": self.method}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.4g} per image ({self.count} images, 95% interval {low:.4g} to {high:.4g}, {self.method})"


def mean_cost(
    costs: Array,
    truth: NDArray[np.integer],
    predicted: NDArray[np.integer],
    groups: NDArray[np.integer] | None = None,
) -> MeanCost:
    """Return the mean of ``costs`` [k, k] over images with these true and predicted classes [n], n > 0.

    The interval is Wilson's for the cost as a share of the way from the least to the greatest one, which among costs of
    that mean has the largest variance: it is as wide as it must be for the greatest cost to be possible, though no
    image may have had it, and for costs of 0 and 1 it is that of the accuracy. ``groups`` [n] are given where
    they are known: the interval is then by groups, as in ``leave_one_group_out_accuracy``.
    """
    low, high = float(costs.min()), float(costs.max())
    shares = (costs[truth, predicted] - low) / (high - low)
    share = float(shares.mean())
    count = float(len(shares)) if groups is None else effective_count(shares, groups)
    interval = wilson(share * count, count)
    method = "Wilson" if groups is None else "groups resampled"
    value = low + share * (high - low)
    ends = [low + end * (high - low) for end in interval]
    return MeanCost(value, len(shares), (min(ends[0], value), max(ends[1], value)), method)
