"""Labels as Python programs hold them: in lists, arrays, and columns of pandas and polars."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from enum import Enum
from typing import Any

import numpy as np

from headstart.data.layout import to_nfc
from headstart.errors import DataError
from headstart.files import HALF

KINDS = {
    "booleans": (bool, np.bool_),  # before whole numbers: bool is a subclass of int
    "texts": (str,),
    "whole numbers": (int, np.integer),
    "floating-point numbers": (float, np.floating),
}


def as_list(values: Any, name: str) -> list[Any]:
    """Return the values of a list, an array, or a column of pandas or polars, in their order, whatever its index.

    ``name`` is what the messages call them. An array or a table of one column [n, 1] is taken as [n], labels with
    scikit-learn's warning. Raises DataError for several columns and for what has no order.
    """
    if isinstance(values, str | bytes | Mapping | Set):
        raise DataError(f"Expected a list, an array or a column of {name}, got a {type(values).__name__}.")
    if hasattr(values, "__array__") and not hasattr(values, "__iter__"):
        values = np.asarray(values)
    columns = getattr(values, "columns", None)
    shape: tuple[int, ...] = getattr(values, "shape", ())
    if columns is not None and len(columns) != 1:
        raise DataError(f"The {name} are a table of {len(columns)} columns; give the column that holds them.")
    if columns is not None or (isinstance(values, np.ndarray) and len(shape) == 2 and shape[1] == 1):
        if name == "labels":
            _warn_of_a_column(shape)
        values = values[:, 0] if columns is None else values[columns[0]]
    if not isinstance(values, Iterable):
        raise DataError(f"Expected a list, an array or a column of {name}, got {values!r}.")
    return list(values)


def _warn_of_a_column(shape: Sequence[int]) -> None:
    """Warn in the words and, where it is installed, with the class that scikit-learn has for this."""
    exceptions = sys.modules.get("sklearn.exceptions")
    category = UserWarning if exceptions is None else exceptions.DataConversionWarning
    message = f"A column-vector y was passed when a 1d array was expected: of shape {tuple(shape)}, taken as (n,)."
    warnings.warn(message, category, stacklevel=5)  # where fit was called


def is_missing(value: object) -> bool:
    """Return whether a value stands for none: None, NaN, NaT, pandas' NA, a masked entry."""
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and math.isnan(value)


def check_labels(labels: Sequence[object]) -> None:
    """Raise DataError for a label that is missing, no single name or number, or of another type than the first."""
    kinds: dict[str, object] = {}
    for i, label in enumerate(labels):
        if is_missing(label):
            raise DataError(f"Image {i} has no label ({label}); leave unlabelled images out.")
        kind = next((name for name, types in KINDS.items() if isinstance(label, types)), None)
        if kind is None:
            raise DataError(
                f"Image {i} has the label {label!r}; expected one name or number for each image: a text, a whole "
                "number or a boolean."
            )
        if isinstance(label, float | np.floating) and not label.is_integer():
            raise DataError(
                f"Image {i} has the label {label}, a continuous value; expected names or whole numbers. Turn classes "
                "that are called by fractions into texts."
            )
        if isinstance(label, str) and label.endswith("\0"):
            raise DataError(f"Image {i} has the label {label!r}, which ends in a NUL that NumPy drops; take it off.")
        if isinstance(label, str) and HALF.search(label):
            raise DataError(f"Image {i} has the label {label!r}, which holds half a character; give a text of Unicode.")
        kinds.setdefault(kind, label)
        if len(kinds) > 1:
            first, second = kinds.values()
            raise DataError(
                f"The labels {first!r} and {second!r} are of two types, {' and '.join(kinds)}; give labels of one type."
            )


def class_name(label: object) -> str:
    """Return the name of the class that a label stands for: a text in NFC, a number as Python writes it."""
    if isinstance(label, float | np.floating):
        return str(float(label) + 0.0)  # 0.0 for -0.0, which equals it
    return to_nfc(str(_value(label)))


def _value(label: Any) -> Any:
    """Return a label that is a member of an enumeration of texts or numbers as its value."""
    return label.value if isinstance(label, Enum) else label


def labels_by_class(labels: Iterable[object]) -> dict[str, Any]:
    """Return the label of each class by its name, in the order in which ``np.unique`` sorts labels: 2 before 10.

    scikit-learn passes numbers to an estimator that it validates, and expects its columns in their order. A label comes
    back as it was spelt; one that was spelt in several forms of Unicode in NFC. The labels must have been checked.
    """
    spellings: dict[str, set[Any]] = {}
    for label in set(labels):
        spellings.setdefault(class_name(label), set()).add(_value(label))
    by_name = {name: min(same) if len(same) == 1 else name for name, same in spellings.items()}
    return dict(sorted(by_name.items(), key=lambda item: item[1]))
