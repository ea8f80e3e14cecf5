"""Tables with a path and a label column: CSV, Parquet (extra ``tables``), JSON lines."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from headstart.data.dataset import Dataset, Item, Reader
from headstart.data.folder_names import build, normalise, split_name
from headstart.data.sources import _nearest, _why, read_file
from headstart.errors import DataError, MissingExtraError
from headstart.images.decode import is_image_name

COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "picture"),
    "label": ("label", "class", "category", "target"),
    "split": ("split", "subset", "set"),
    "group": ("group", "group_id", "scene"),
}
MAX_TABLE = 2**30


def from_table(uri: str, group_column: str | None) -> Dataset:
    """The data set a table lists. Paths are relative to the table and must stay in its folder.

    Columns are found by name, in any case: path (file, filename, image, ...), label (class, category, target),
    split (subset, set), group (group_id, scene) or the one ``group_column`` names.
    """
    rows = _rows(uri)
    if not rows:
        raise DataError(f"The table {uri} has no rows; expected a path and a label in each.")
    columns = _columns(uri, list(rows[0]), group_column)
    base = uri.split("?")[0].rsplit("/", 1)[0] if "://" in uri else str(Path(uri).parent)
    skipped: Counter[str] = Counter()
    items: list[tuple[int, Item]] = []
    paths: list[str] = []
    for number, row in enumerate(rows, 2):
        relative = _text(row.get(columns["path"])).replace("\\", "/")
        label = _text(row.get(columns["label"])) if columns["label"] else ""
        named = _text(row.get(columns["split"])) if columns["split"] else ""
        if not relative or not is_image_name(relative):
            skipped["not a picture"] += 1
            continue
        if columns["label"] and not label:
            skipped["no label"] += 1
            continue
        split = split_name(named) if named else "train"
        if split is None:
            raise DataError(f"{uri}, row {number}: unknown split {named!r}; expected train, validation or test.")
        path = posixpath.normpath(relative)
        if path.startswith(("/", "..")) or path[1:2] == ":" or "\0" in path:
            raise DataError(f"{uri}, row {number}: {relative!r} leaves the table's folder; use paths inside it.")
        group = _text(row.get(columns["group"])) if columns["group"] else ""
        items.append((len(paths), Item(path, normalise(label) if label else None, split, group or None)))
        paths.append(f"{base}/{path}")
    if not items:
        raise DataError(f"No row of {uri} names a picture and its label ({dict(skipped)}); check its columns.")
    return build(uri, items, dict(skipped), (), Reader(lambda number: read_file(paths[number])))


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _columns(uri: str, names: Sequence[str], group_column: str | None) -> dict[str, str]:
    lower = {name.strip().lower(): name for name in names}
    found = {role: next((lower[a] for a in known if a in lower), "") for role, known in COLUMNS.items()}
    if group_column is not None:
        if group_column not in names:
            raise DataError(f"{uri} has no column {group_column!r}; it has {', '.join(names)}.")
        found["group"] = group_column
    if not found["path"]:
        raise DataError(
            f"{uri} has no path column; expected one of {', '.join(COLUMNS['path'])}, got {', '.join(names)}."
        )
    return found


def _rows(uri: str) -> list[Mapping[str, object]]:
    data = _bytes(uri)
    name = uri.split("?")[0].lower()  # a query may follow an address
    try:
        if name.endswith(".parquet"):
            return _parquet(data)
        text = data.decode("utf-8-sig")
        if name.endswith((".jsonl", ".ndjson")):
            parsed = [json.loads(line) for line in text.splitlines() if line.strip()]
            if not all(isinstance(row, dict) for row in parsed):
                raise ValueError("a line is not an object")
            return parsed
        first = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=first.count)
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return [{k: v for k, v in row.items() if k is not None} for row in rows]
    except MissingExtraError:
        raise
    except (ValueError, csv.Error, RecursionError) as error:
        raise DataError(
            f"The table {uri} cannot be read: {_why(error)}; expected UTF-8 text with a header line."
        ) from None


def _bytes(uri: str) -> bytes:
    try:
        if "://" in uri:
            import fsspec

            with fsspec.open(uri, "rb") as stream:
                data: bytes = stream.read(MAX_TABLE + 1)
        else:
            if not Path(uri).exists():
                raise DataError(f"There is no {uri}{_nearest(Path(uri))}; give a table, a folder, an archive or a URL.")
            with Path(uri).open("rb") as file:
                data = file.read(MAX_TABLE + 1)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"The table {uri} cannot be read: {_why(error)}.") from None
    if len(data) > MAX_TABLE:
        raise DataError(f"The table {uri} has more than {MAX_TABLE:,} bytes; split it.")
    return data


def _parquet(data: bytes) -> list[Mapping[str, object]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("Parquet tables need pyarrow; run: pip install 'headstart[tables]'") from None
    try:
        rows: list[Mapping[str, object]] = pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None
    return rows
