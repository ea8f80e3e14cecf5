"""Tables with a path and a label column: CSV, Parquet (extra ``tables``) and JSON lines."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from headstart.data.dataset import Dataset, Item, sorted_dataset
from headstart.data.folder_names import split_name, to_nfc
from headstart.data.reading import error_reason, missing_path, read_file
from headstart.errors import DataError, MissingExtraError, missing_extra
from headstart.files import open_regular
from headstart.images.decode import is_image_name

COLUMNS = {  # names of the columns, by role
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "picture"),
    "label": ("label", "class", "category", "target"),
    "split": ("split", "subset", "set"),
    "group": ("group", "group_id", "scene"),
}
MAX_TABLE = 2**30  # bytes

Row = Mapping[str, object]


def from_table(uri: str, group_column: str | None) -> Dataset:
    """Build the dataset that a table lists. Paths are relative to the table and must stay in its folder.

    Columns are found by name, in any case: path (file, filename, image, ...), label (class, category, target), split
    (subset, set) and group (group_id, scene) or ``group_column``. Raises DataError.
    """
    rows = _read_rows(uri)
    if not rows:
        raise DataError(f"The table {uri} has no rows; expected a path and a label in each.")
    columns = _find_columns(uri, list(rows[0]), group_column)
    folder = uri.split("?")[0].rsplit("/", 1)[0] if "://" in uri else str(Path(uri).parent)
    skipped: Counter[str] = Counter()
    items: list[Item] = []
    paths: list[str] = []
    for row_number, row in enumerate(rows, 2):  # the header is row 1
        relative = _cell(row, columns["path"]).replace("\\", "/")
        label = _cell(row, columns["label"])
        split_text = _cell(row, columns["split"])
        if not relative or not is_image_name(relative):
            skipped["not an image"] += 1
            continue
        if columns["label"] and not label:
            skipped["no label"] += 1
            continue
        split = split_name(split_text) if split_text else "train"
        if split is None:
            raise DataError(
                f"{uri}, row {row_number}: unknown split {split_text!r}; expected train, validation or test."
            )
        path = posixpath.normpath(relative)
        if path.startswith(("/", "..")) or path[1:2] == ":" or "\0" in path:
            raise DataError(
                f"{uri}, row {row_number}: {relative!r} is outside the table's folder; use paths inside it."
            )
        group = _cell(row, columns["group"])
        items.append(Item(path, to_nfc(label) if label else None, split, group or None, key=len(paths)))
        paths.append(f"{folder}/{path}")
    if not items:
        raise DataError(f"No row of {uri} names an image and its label ({dict(skipped)}); check its columns.")
    dataset = sorted_dataset(uri, items, dict(skipped), (), lambda key: read_file(paths[key]))
    return replace(dataset, folder=folder)


def _cell(row: Row, column: str) -> str:
    """Return the text of a cell; it is empty where the table has no such column."""
    value = row.get(column) if column else None
    return "" if value is None else str(value).strip()


def _find_columns(uri: str, names: Sequence[str], group_column: str | None) -> dict[str, str]:
    """Return the name of the column of each role, empty where the table has none. Raises DataError without a path."""
    by_lower_case = {name.strip().lower(): name for name in names}
    columns = {
        role: next((by_lower_case[alias] for alias in aliases if alias in by_lower_case), "")
        for role, aliases in COLUMNS.items()
    }
    if group_column is not None:
        if group_column not in names:
            raise DataError(f"{uri} has no column {group_column!r}; it has {', '.join(names)}.")
        columns["group"] = group_column
    if not columns["path"]:
        raise DataError(
            f"{uri} has no path column; expected one of {', '.join(COLUMNS['path'])}, got {', '.join(names)}."
        )
    return columns


def _read_rows(uri: str) -> list[Row]:
    """Read the rows of a table by its ending. Raises DataError."""
    data = _read_bytes(uri)
    name = uri.split("?")[0].lower()  # an address may have a query
    try:
        if name.endswith(".parquet"):
            return _parse_parquet(data)
        text = data.decode("utf-8-sig")
        return _parse_json_lines(text) if name.endswith((".jsonl", ".ndjson")) else _parse_csv(text)
    except MissingExtraError:
        raise
    except (ValueError, csv.Error, RecursionError) as error:
        raise DataError(
            f"The table {uri} cannot be read: {error_reason(error)}; expected UTF-8 text with a header line."
        ) from None


def _read_bytes(uri: str) -> bytes:
    try:
        if "://" in uri:
            import fsspec

            with fsspec.open(uri, "rb") as stream:
                data: bytes = stream.read(MAX_TABLE + 1)
        else:
            if not Path(uri).exists():
                raise DataError(missing_path(uri, "a table, a folder, an archive or a URL"))
            with open_regular(uri) as file:
                data = file.read(MAX_TABLE + 1)
    except DataError:
        raise
    except Exception as error:  # fsspec's back ends raise errors of their own
        raise DataError(f"The table {uri} cannot be read: {error_reason(error)}.") from None
    if len(data) > MAX_TABLE:
        raise DataError(f"The table {uri} has more than {MAX_TABLE:,} bytes; split it.")
    return data


def _parse_csv(text: str) -> list[Row]:
    """Parse text separated by commas, semicolons or tabs, whichever occurs most in the header."""
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    # Under None are the cells of a row that is longer than the header.
    return [{name: value for name, value in row.items() if name is not None} for row in rows]


def _parse_json_lines(text: str) -> list[Row]:
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not an object")
    return rows


def _parse_parquet(data: bytes) -> list[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_extra("Parquet tables need pyarrow", "tables") from None
    try:
        rows: list[Row] = pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None
    return rows
