"""Several labels an image as Python programs hold them: lists of labels, or a matrix of zeros and ones.

The names of the labels are in scikit-learn's order: those of ``MultiLabelBinarizer`` for lists, the columns of a matrix
as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Item
from headstart.data.labels import as_list, check_labels, class_name, is_missing, labels_by_class
from headstart.errors import DataError

Labels = list[Any]


@dataclass(frozen=True)
class LabelSets:
    """The labels of n images: ``names`` [k], those ``present`` [n] and those ``unknown`` [n], by name.

    ``classes`` [k] are the labels in the type that they came in: texts, whole numbers, or the columns of a matrix.
    """

    names: tuple[str, ...]
    present: tuple[tuple[str, ...], ...]
    unknown: tuple[tuple[str, ...], ...]
    classes: tuple[Any, ...]


@dataclass(frozen=True)
class MatrixRow:
    """A row of a matrix of zeros and ones, with the names of its columns."""

    columns: tuple[Any, ...]
    values: tuple[Any, ...]


def label_list(labels: Any) -> Labels:
    """Return labels as a list with one entry for each image, of a matrix [n, k] its rows.

    A matrix is a two-dimensional array or a table of several columns, whose names are those of the labels. Raises
    DataError.
    """
    columns = getattr(labels, "columns", None)
    shape: tuple[int, ...] = getattr(labels, "shape", ())
    if len(shape) != 2 or shape[1] == 1:
        return as_list(labels, "labels")
    names = tuple(range(shape[1])) if columns is None else tuple(columns)
    values = labels.toarray() if hasattr(labels, "toarray") else np.asarray(labels)
    return [MatrixRow(names, tuple(row)) for row in values.tolist()]


def label_sets(labels: Sequence[object]) -> LabelSets | None:
    """Return the labels of images that may have several; None where each entry is one label.

    Entries are lists, tuples, sets or one-dimensional arrays of labels, or rows of a matrix of zeros and ones, in which
    NaN stands for a label of which it is not known whether it holds. Raises DataError.
    """
    if labels and all(isinstance(row, MatrixRow) for row in labels):
        return _of_matrix([row for row in labels if isinstance(row, MatrixRow)])
    is_list = [isinstance(entry, list | tuple | Set) or getattr(entry, "ndim", 0) == 1 for entry in labels]
    if not any(is_list):
        return None
    if not all(is_list):
        i = is_list.index(False)
        raise DataError(f"Image {i} has {labels[i]!r}, others have lists of labels; give each image a list.")
    rows: list[list[Any]] = [list(entry) for entry in labels]  # type: ignore[call-overload]
    flat = [label for row in rows for label in row]
    if not flat:
        raise DataError("No label holds of any image; give at least one image a label.")
    check_labels(flat)
    original = labels_by_class(flat)
    present = tuple(tuple(sorted({class_name(label) for label in row})) for row in rows)
    return LabelSets(tuple(original), present, ((),) * len(rows), tuple(original.values()))


def _of_matrix(rows: Sequence[MatrixRow]) -> LabelSets:
    names = tuple(class_name(column) for column in rows[0].columns)
    if len(set(names)) != len(names):
        raise DataError("Two columns of the labels have the same name; give each label one column.")
    present, unknown = [], []
    for i, row in enumerate(rows):
        for name, value in zip(names, row.values, strict=True):
            is_number = isinstance(value, int | float) and (value in (0, 1) or math.isnan(value))
            if not (is_number or is_missing(value)):
                raise DataError(
                    f"Image {i} has {value!r} in the column {name}; expected 0 or 1, or NaN where it is not known."
                )
        held = zip(names, row.values, strict=True)
        cells = {name: None if is_missing(value) else bool(value) for name, value in held}
        present.append(tuple(sorted(name for name, value in cells.items() if value)))
        unknown.append(tuple(name for name, value in cells.items() if value is None))
    return LabelSets(names, tuple(present), tuple(unknown), rows[0].columns)


def label_matrix(items: Sequence[Item], names: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which labels ``names`` [k] hold of each item [n, k], and of which it is known; others are ignored."""
    place = {name: i for i, name in enumerate(names)}
    values, known = np.zeros((len(items), len(names)), bool), np.ones((len(items), len(names)), bool)
    for row, item in enumerate(items):
        values[row, [place[name] for name in item.labels or () if name in place]] = True
        known[row, [place[name] for name in item.unknown if name in place]] = False
        if item.is_rest_unknown:
            known[row] = values[row]
    return values, known


def label_text(item: Item) -> str | None:
    """Return what is known of the labels of an item as one text: its one label, or a list in JSON; None for nothing.

    >>> label_text(Item("a.jpg", None, "train", labels=("sunset", "beach"), unknown=("dog",)))
    '[["beach","sunset"],["dog"],false]'
    """
    if item.labels is None:
        return item.label
    return json.dumps([sorted(item.labels), sorted(item.unknown), item.is_rest_unknown], separators=(",", ":"))


def with_label_text(item: Item, text: str | None) -> Item:
    """Return an item with the labels that ``label_text`` wrote of one that may have several.

    Raises ValueError for anything else, which may come from anyone.
    """
    if text is None:
        return replace(item, label=None)
    try:
        present, unknown, rest = json.loads(text)
        labelled = replace(item, label=None, labels=tuple(present), unknown=tuple(unknown), is_rest_unknown=rest)
        names = [*present, *unknown]
        is_ours = all(isinstance(name, str) and name for name in names) and label_text(labelled) == text
        if not is_ours or len(set(names)) != len(names) or not isinstance(rest, bool):
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"{text[:60]!r} are no labels of an image") from None
    return labelled
