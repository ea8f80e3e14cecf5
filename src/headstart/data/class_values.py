"""Numbers of classes in a file: a weight for each class, or a square table of costs."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from typing import Any

from headstart.data.layout import to_nfc
from headstart.data.reading import error_reason
from headstart.data.table_files import csv_rows, read_text
from headstart.errors import DataError, one_line
from headstart.files import from_table_text

MAX_BYTES = 2**22
WEIGHTS_HEADER = ["class", "weight"]
WEIGHTS_FORM = 'rows of class,weight, or the JSON {"cat": 1, "dog": 2.5}'
COSTS_FORM = (
    "a first row with a cell and then the names of the classes, and for each class a row with its name and a number "
    'for each of them, or the JSON {"cat": {"cat": 0, "dog": 1}, "dog": {"cat": 5, "dog": 0}}'
)


def read_weights(path: str) -> dict[str, float]:
    """Read a file with a number for each class: CSV with rows of class,weight, or (``.json``) a JSON object.

    A first row ``class,weight`` is a header. The numbers and names are not checked against anything. Raises DataError,
    which names the row, for another form.
    """
    if path.lower().endswith(".json"):
        return _numbers(_read_json(path, WEIGHTS_FORM), path, WEIGHTS_FORM)
    weights: dict[str, float] = {}
    for number, cells in _read_csv(path, WEIGHTS_FORM):
        if not weights and [cell.casefold() for cell in cells] == WEIGHTS_HEADER:
            continue
        where = f"{path}, row {number}"
        if len(cells) != 2 or not cells[0]:
            raise DataError(f"{where}: expected {WEIGHTS_FORM}; got {', '.join(map(repr, cells))[:200]}.")
        if cells[0] in weights:
            raise DataError(f"{where}: the class {cells[0]!r} has a weight already; give it one row.")
        weights[cells[0]] = _number(cells[1], f"{where}: the weight of {cells[0]!r}")
    if not weights:
        raise DataError(f"{path} names no class; expected {WEIGHTS_FORM}.")
    return weights


def read_costs(path: str) -> dict[str, dict[str, float]]:
    """Read a square table of costs: by true class the cost of predicting each class.

    It is CSV, a row for each true class and a column for each predicted one, with the names in the first column and
    row; or (``.json``) an object of objects. The numbers and names are not checked against anything. Raises DataError,
    which names the row, for another form.
    """
    if path.lower().endswith(".json"):
        rows = _read_json(path, COSTS_FORM)
        return {name: _numbers(row, f"{path}, {name!r}", COSTS_FORM) for name, row in rows.items()}
    table = [*_read_csv(path, COSTS_FORM)]
    if len(table) < 2:
        raise DataError(f"{path} has no costs; expected {COSTS_FORM}.")
    columns = table[0][1][1:]
    if len(set(columns)) != len(columns):
        raise DataError(f"{path}, row {table[0][0]}: a class is named twice; expected {COSTS_FORM}.")
    costs: dict[str, dict[str, float]] = {}
    for number, cells in table[1:]:
        where = f"{path}, row {number}"
        if len(cells) != len(columns) + 1:
            raise DataError(f"{where} has {len(cells)} cells, the first row {len(columns) + 1}; expected {COSTS_FORM}.")
        if cells[0] in costs:
            raise DataError(f"{where}: the class {cells[0]!r} has a row already; give it one.")
        costs[cells[0]] = {
            name: _number(cell, f"{where}: the cost of predicting {name!r} for {cells[0]!r}")
            for name, cell in zip(columns, cells[1:], strict=True)
        }
    return costs


def _read_csv(path: str, form: str) -> list[tuple[int, list[str]]]:
    """Return the number and the cells of each row that is not empty."""
    text, _ = read_text(path, MAX_BYTES, form)
    try:
        rows = [(number, [to_nfc(from_table_text(cell.strip())) for cell in row]) for number, row in csv_rows(text)]
    except csv.Error as error:
        raise DataError(f"{path} cannot be read: {error_reason(error)}; expected {form}.") from None
    return [(number, cells) for number, cells in rows if any(cells)]


def _read_json(path: str, form: str) -> dict[str, Any]:
    text, _ = read_text(path, MAX_BYTES, form)
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else one_line(error)
        raise DataError(f"{path} cannot be read as JSON: {reason}; expected {form}.") from None
    if not isinstance(value, dict) or not value:
        raise DataError(f"{path} is no JSON object with classes; expected {form}.")
    return value


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of an object. Raises ValueError where a name occurs twice, of which one would be lost."""
    names = [to_nfc(name) for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("a name occurs twice in one object")
    return dict(zip(names, (value for _, value in pairs), strict=True))


def _numbers(row: object, where: str, form: str) -> dict[str, float]:
    """Return the numbers of an object."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected {form}.")
    for name, value in row.items():
        if type(value) not in (int, float):
            raise DataError(f"{where}: {name!r} has {str(value)[:40]!r}, which is no number; expected {form}.")
    try:
        return {name: float(value) for name, value in row.items()}
    except OverflowError:
        raise DataError(f"{where}: a number is too large.") from None


def _number(cell: str, what: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise DataError(f"{what} is {cell[:40]!r}, which is no number; write it like 2.5.") from None
