"""Rows of tables: CSV and TSV, JSON lines, and Parquet (in ``parquet``)."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from headstart.data.reading import NOTHING_THERE, error_reason, missing_path
from headstart.errors import DataError, ImageError, MissingExtraError
from headstart.files import open_regular

TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
MAX_TABLE = 2**30  # bytes
MAX_COLUMNS = 20_000  # twice the labels that there can be

Row = Mapping[str, object]
OpenStream = Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Table:
    """Rows as mappings from column to value, to be iterated over.

    ``class_names`` are the names of the classes of a column of numbers (Hugging Face's ClassLabel). ``notes`` are lines
    that the user must see. Cells that hold an image file are replaced by its path, and ``images`` returns the bytes of
    a row. ``unread`` are columns of lists and other structures.
    """

    columns: tuple[str, ...]
    rows: Sequence[Row]
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    images: Callable[[int], bytes | None] | None = None
    unread: tuple[str, ...] = ()


def column_key(name: str) -> str:
    """Return what spellings of a column's name have in common.

    >>> column_key(" Image Name"), column_key("image_name"), column_key("imageName")
    ('imagename', 'imagename', 'imagename')
    """
    return re.sub(r"[\s_-]", "", name).lower()


def is_table(name: str) -> bool:
    """Return whether a path or address is that of a table."""
    return name.split("?")[0].lower().endswith(TABLES)


def read_table(uri: str, open_stream: OpenStream | None = None, *, lists: Collection[str] = ()) -> Table:
    """Read a table by its ending, from a file, an address, or what ``open_stream`` opens.

    Columns of lists in a Parquet file are read where the key of their name is among ``lists``. Raises DataError,
    MissingExtraError.
    """
    name = uri.split("?")[0].lower()  # an address may have a query
    try:
        if name.endswith(".parquet"):
            from headstart.data.parquet import read_parquet

            return read_parquet(open_stream or _opener(uri), lists)
        text, notes = _decode(_read_bytes(uri, open_stream=open_stream))
        if name.endswith((".jsonl", ".ndjson")):
            rows = _parse_json_lines(text)
        else:
            rows, more = _parse_csv(text, uri)
            notes = (*notes, *more)
        columns = tuple(dict.fromkeys(column for row in rows for column in row))
        check_columns(columns)
        return Table(columns, rows, notes=notes)
    except MissingExtraError:
        raise
    except Exception as error:  # csv, json and pyarrow raise many kinds for malformed bytes
        if isinstance(error, DataError) and not isinstance(error, ImageError):
            raise
        expected = "rows within these limits" if name.endswith(".parquet") else "text with a header line"
        raise DataError(f"The table {uri} cannot be read: {error_reason(error)}; expected {expected}.") from None


def read_text(uri: str, limit: int, expected: str) -> tuple[str, tuple[str, ...]]:
    """Read a file of text of at most ``limit`` bytes, and notes about it; ``expected`` is what it holds.

    Raises DataError.
    """
    if "://" not in uri and not Path(uri).exists():
        raise DataError(missing_path(uri, f"a file with {expected}"))
    try:
        return _decode(_read_bytes(uri, limit))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{uri} cannot be read as text: {error_reason(error)}.") from None


def csv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number (from 1, of its last line) and the cells of each row. Raises csv.Error."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True, skipinitialspace=True)
    for row in reader:
        yield reader.line_num, row


def _read_bytes(uri: str, limit: int = MAX_TABLE, open_stream: OpenStream | None = None) -> bytes:
    try:
        with (open_stream or _opener(uri))() as stream:
            data = stream.read(limit + 1)
    except DataError:
        raise
    except Exception as error:  # fsspec's back ends raise errors of their own
        raise DataError(f"The table {uri} cannot be read: {error_reason(error)}.") from None
    if len(data) > limit:
        raise DataError(f"The table {uri} has more than {limit:,} bytes; split it.")
    return data


def _opener(uri: str) -> OpenStream:
    """Return what opens a local file, or a copy in memory of what is behind an address. Raises DataError."""
    if "://" not in uri:
        if not Path(uri).exists():
            raise DataError(missing_path(uri, "a table, a folder, an archive or a URL"))
        return partial(open_regular, uri)
    import fsspec

    try:
        with fsspec.open(uri, "rb") as stream:
            data: bytes = stream.read(MAX_TABLE + 1)
    except FileNotFoundError:  # whose text is the address alone
        raise DataError(f"The table {uri} cannot be read: {NOTHING_THERE}.") from None
    except Exception as error:
        raise DataError(f"The table {uri} cannot be read: {error_reason(error)}.") from None
    return partial(io.BytesIO, data)


def _decode(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Decode text: by its byte order mark, as UTF-8, or else as Windows-1252, with a note."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16"), ()
    try:
        return data.decode("utf-8-sig"), ()
    except UnicodeDecodeError:
        text = data.decode("cp1252")
        return text, ("The table is not UTF-8, and was read as Windows-1252; check names with accents.",)


def _parse_csv(text: str, uri: str) -> tuple[list[Row], tuple[str, ...]]:
    """Parse text with a header; return the rows, and notes on them."""
    if "\0" in text:
        raise ValueError("it holds NUL characters, as UTF-16 without a byte order mark does; save it as UTF-8")
    declared = re.match(r"sep=(.)\r?\n", text)  # Excel's own line, which it hides
    text = text[declared.end() :] if declared else text
    stream = io.StringIO(text, newline="")
    delimiter = declared[1] if declared else _delimiter(text)
    rows = csv.DictReader(stream, delimiter=delimiter, strict=True, skipinitialspace=True)
    names = [name.strip() for name in rows.fieldnames or ()]
    check_columns([name for name in names if name])  # spreadsheets leave several columns without a name
    rows.fieldnames = names
    found: list[Row] = []
    longer = []
    for number, row in enumerate(rows, start=2):
        rest = row.pop(None, ())  # the cells beyond the header
        if any(cell.strip() for cell in rest):
            longer.append(number)
        found.append(row)
    if not longer:
        return found, ()
    more, have = (f" and {len(longer) - 1} more", "have") if len(longer) > 1 else ("", "has")
    return found, (
        f"Row {longer[0]}{more} of {uri} {have} more cells than the header, which are not read; put a cell that holds "
        "a separator in quotes.",
    )


def check_columns(names: Sequence[str]) -> None:
    """Raise ValueError where a name occurs twice, and where there are too many."""
    if len(names) > MAX_COLUMNS:
        raise ValueError(f"it has {len(names):,} columns, more than the limit of {MAX_COLUMNS:,}")
    duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
    if duplicates:
        raise ValueError(f"the column {duplicates[0]!r} occurs more than once")


def _delimiter(text: str) -> str:
    """Return the comma, semicolon or tab, whichever occurs most in the first line."""
    line = re.match(r"[^\r\n]*", text)
    return max(",;\t", key=line[0].count) if line else ","


def _parse_json_lines(text: str) -> list[Row]:
    lines = io.StringIO(text, newline=None)  # not ``splitlines``: within a text of JSON a line separator is no end
    rows = [json.loads(line) for line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not an object")
    return rows
