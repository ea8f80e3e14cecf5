"""Class weights, costs and thresholds: read, checked against the classes, and turned into arrays in their order."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.class_values import read_costs, read_weights
from headstart.data.labels import class_name
from headstart.errors import OptionError, listed
from headstart.heads.optimizers import class_weights
from headstart.stats.decision import MAX_CLASSES, MAX_VALUE, DecisionRule

ClassWeight = str | os.PathLike[str] | Mapping[Any, float] | None
Costs = str | os.PathLike[str] | Mapping[Any, Mapping[Any, float]] | None
Thresholds = Mapping[Any, float] | None


def check_decision_options(costs: Costs, thresholds: Thresholds) -> None:
    """Raise OptionError where two rules are to decide."""
    if costs is not None and thresholds is not None:
        raise OptionError("Costs and thresholds both decide which class is predicted; give one of them.")


@dataclass(frozen=True)
class ClassSettings:
    """What is set for classes by their names; what is None is not set.

    ``weights`` has the weight of each class, or is "balanced"; ``costs`` by true class the cost of predicting each
    class, from the file ``source``; ``thresholds`` the probability from which on some classes are predicted.
    """

    weights: str | Mapping[str, float] | None = None
    costs: Mapping[str, Mapping[str, float]] | None = None
    thresholds: Mapping[str, float] | None = None
    source: str = ""

    @classmethod
    def of(cls, weights: ClassWeight, costs: Costs, thresholds: Thresholds, classes: Iterable[str]) -> ClassSettings:
        """Read files and check everything against the names of the classes. Raises OptionError, DataError."""
        names, source = sorted(classes), ""
        if isinstance(costs, str | os.PathLike):
            path = os.fspath(costs)
            costs, source = read_costs(path), PurePath(path).name
        if isinstance(weights, str | os.PathLike) and weights != "balanced":
            weights = _checked_weights(read_weights(os.fspath(weights)), names, f"{os.fspath(weights)}: ")
        elif isinstance(weights, Mapping):
            weights = _checked_weights(_named(weights, "class_weight"), names, "class_weight: ")
        elif weights not in (None, "balanced"):
            raise OptionError(f"class_weight {weights!r} cannot be used; give 'balanced', a file or a weight by class.")
        where = f"{source}: " if source else ""
        if costs is not None:
            costs = _checked_costs(_named(costs, "costs"), names, where or "costs: ")
        if thresholds is not None:
            thresholds = _named(thresholds, "thresholds")
            _check_names(thresholds, names, "A threshold: ", are_all=False)
            if not thresholds or not all(map(_is_number, thresholds.values())):
                raise OptionError("A threshold must be a probability between 0 and 1, like 0.2.")
        settings = cls(weights, costs, thresholds, source)
        try:
            settings.rule(names)
        except OptionError as error:
            raise OptionError(f"{where}{error}") from None
        return settings

    def class_weights(self, classes: Sequence[str], labels: NDArray[np.integer]) -> NDArray[np.float64] | None:
        """Return the weights [k] of the classes of images with ``labels`` [n] in 0..k-1; None where none are set.

        "balanced" is n / (k * images of the class), as in scikit-learn: all classes become equally frequent.
        """
        if self.weights is None:
            return None
        if isinstance(self.weights, str):
            return class_weights(labels, len(classes))
        return np.array([self.weights[name] for name in classes])

    def rule(self, classes: Sequence[str]) -> DecisionRule | None:
        """Return the rule that decides between the classes; None for the most probable one. Raises OptionError."""
        if self.costs is not None:
            costs = self.costs
            return DecisionRule.of_costs(np.array([[costs[t][p] for p in classes] for t in classes]), self.source)
        if self.thresholds is not None and any(name in self.thresholds for name in classes):
            return DecisionRule.of_thresholds([self.thresholds.get(name) for name in classes])
        return None

    def to_dict(self, classes: Sequence[str], labels: NDArray[np.integer]) -> dict[str, Any]:
        """Return what ``run.json`` holds of it: "class_weight" and "decision", each where it is set."""
        weights, rule = self.class_weights(classes, labels), self.rule(classes)
        values: dict[str, Any] = {}
        if weights is not None:
            values["class_weight"] = {
                "balanced": self.weights == "balanced",
                "weights": dict(zip(classes, weights.tolist(), strict=True)),
            }
        if rule is not None:
            values["decision"] = {**rule.to_dict(), "description": rule.describe(classes)}
        return values


def _named(values: Mapping[Any, Any], what: str) -> dict[str, Any]:
    """Return a mapping with the names of classes for labels of any type. Raises OptionError for no mapping."""
    if not isinstance(values, Mapping):
        raise OptionError(f"{what} {values!r} cannot be used; give a value for each class, by its name.")
    return {class_name(label): value for label, value in values.items()}


def _checked_weights(weights: Mapping[str, Any], classes: Sequence[str], where: str) -> dict[str, float]:
    _check_names(weights, classes, where)
    for name, value in weights.items():
        if not _is_number(value) or not 1 / MAX_VALUE <= value <= MAX_VALUE:
            raise OptionError(
                f"{where}the weight of {name!r} is {str(value)[:40]!r}; expected a number above 0, from "
                f"{1 / MAX_VALUE:g} to {MAX_VALUE:g}."
            )
    return {name: float(value) for name, value in weights.items()}


def _checked_costs(costs: Mapping[str, Any], classes: Sequence[str], where: str) -> dict[str, dict[str, float]]:
    if len(classes) > MAX_CLASSES:
        raise OptionError(f"Costs are for up to {MAX_CLASSES} classes; these data have {len(classes)}.")
    _check_names(costs, classes, where)
    checked = {}
    for truth, given in costs.items():
        row = _named(given, f"{where}the row of {truth!r}:")
        _check_names(row, classes, f"{where}the row of {truth!r}: ")
        for predicted, value in row.items():
            if not _is_number(value) or not 0 <= value <= MAX_VALUE:
                raise OptionError(
                    f"{where}the cost of predicting {predicted!r} for {truth!r} is {str(value)[:40]!r}; expected a "
                    f"number from 0 to {MAX_VALUE:g}."
                )
        checked[truth] = {name: float(value) for name, value in row.items()}
    return checked


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return is_number and (isinstance(value, int) or math.isfinite(value))  # type: ignore[arg-type]


def _check_names(given: Iterable[str], classes: Sequence[str], where: str, *, are_all: bool = True) -> None:
    """Raise OptionError for a name that is no class, and, where all must be there, for a class that is missing."""
    unknown = sorted(set(given) - set(classes))
    if unknown:
        raise OptionError(f"{where}no class is called {_listed(unknown)}; the classes are {_listed(classes)}.")
    missing = sorted(set(classes) - set(given)) if are_all else []
    if missing:
        raise OptionError(f"{where}nothing is given for {_listed(missing)}; give each class a value.")


def _listed(names: Sequence[str]) -> str:
    return listed([*map(repr, names)])
