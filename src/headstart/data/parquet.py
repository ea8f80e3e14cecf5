"""Parquet tables (extra ``tables``), read in pieces: a file of a few kilobytes may claim gigabytes."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from itertools import accumulate
from typing import Any

from headstart.data.table_files import OpenStream, Row, Table, check_columns, column_key
from headstart.errors import DataError, ImageError, missing_extra, one_line, untrusted
from headstart.images.decoding import MAX_BYTES

MAX_ROWS = 1_000_000  # of a file
MAX_DECODED = 2**28  # bytes of all cells but images, in Arrow's memory
MAX_CELL = 2**15  # bytes
MAX_LISTED = 4_000_000  # values in the lists of a column
MAX_BATCH = 2**26  # bytes of the paths of images
ROWS_AT_ONCE = 4096  # that are decoded at a time
MAX_KEPT = 2**24  # bytes of images before the last one read that are kept, to be read again


class ArrowRows(Sequence[Row]):
    """Rows of an Arrow table, which become Python objects only as they are iterated over.

    The row of an image without a path is named by its number.
    """

    def __init__(self, table: Any, image_column: str) -> None:
        self._table, self._image_column = table, image_column

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError("rows are iterated over")

    def __iter__(self) -> Iterator[Row]:
        number = 0
        for batch in self._table.to_batches(max_chunksize=ROWS_AT_ONCE):
            with untrusted("The table", DataError):  # texts are only decoded here
                rows = batch.to_pylist()
            for row in rows:
                number += 1
                if self._image_column and not row[self._image_column]:
                    row[self._image_column] = f"row {number}"
                yield row


def read_parquet(open_stream: OpenStream, lists: Collection[str] = ()) -> Table:
    """Read a Parquet table. Images inside it, as the Hugging Face Hub stores them, stay there until they are read.

    Lists of texts or numbers are read in columns whose key (``column_key``) is among ``lists``. Raises ValueError where
    it cannot be read, or is beyond ``MAX_ROWS``, ``MAX_CELL``, ``MAX_LISTED`` or ``MAX_DECODED``; MissingExtraError.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_extra("Parquet tables need pyarrow", "tables") from None
    try:
        with open_stream() as stream:
            file = pyarrow.parquet.ParquetFile(stream)
            schema, metadata = file.schema_arrow, file.metadata
            check_columns(schema.names)
            image_column = next((field.name for field in schema if _holds_images(field.type)), "")
            of_lists = {field.name for field in schema if column_key(field.name) in lists and _is_list(field.type)}
            columns = {  # by the name in the table, the path in the file
                field.name: f"{field.name}.path" if field.name == image_column else field.name
                for field in schema
                if field.name == image_column or _is_flat(field.type) or field.name in of_lists
            }
            paths = _leaf_paths(metadata, columns, of_lists)
            _check_claims(metadata, {path for found in paths.values() for path in found})
            # What is repeated stays a number until its length is known.
            leaves = [path for name, found in paths.items() if name != image_column for path in found]
            file = pyarrow.parquet.ParquetFile(stream, read_dictionary=leaves)
            table = pyarrow.Table.from_batches([*_decode(file, columns)]) if metadata.num_rows else None
            groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    except (pyarrow.ArrowException, OSError, OverflowError) as error:
        raise ValueError(str(error)) from None
    others = [name for name in schema.names if name not in columns]
    notes = (f"Columns that hold lists, structures or bytes are not read: {', '.join(others)}.",) if others else ()
    return Table(
        tuple(columns),
        ArrowRows(table, image_column) if table is not None else (),
        _class_names(schema.metadata),
        notes,
        _StoredImages(open_stream, image_column, groups).read if image_column else None,
        tuple(others),
    )


def _holds_images(column_type: Any) -> bool:
    from pyarrow import types

    return types.is_struct(column_type) and {"bytes", "path"} <= {field.name for field in column_type}


def _is_flat(column_type: Any) -> bool:
    from pyarrow import types

    value_type = column_type.value_type if types.is_dictionary(column_type) else column_type
    return not any(
        test(value_type)
        for test in (types.is_nested, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    )


def _is_list(column_type: Any) -> bool:
    """Return whether a column holds lists of texts or of numbers."""
    from pyarrow import types

    is_list = types.is_list(column_type) or types.is_large_list(column_type)
    return is_list and _is_flat(column_type.value_type)


def _leaf_paths(metadata: Any, columns: Mapping[str, str], lists: Set[str]) -> dict[str, set[str]]:
    """Return the paths in the file of the values of each column: of ``lists`` it is "labels.list.element"."""
    paths = {name: set() if name in lists else {place} for name, place in columns.items()}
    for i in range(metadata.num_columns if lists else 0):
        path = metadata.schema.column(i).path
        for end in (place for place, character in enumerate(path) if character == "."):
            if path[:end] in lists:
                paths[path[:end]].add(path)
    return paths


def _check_claims(metadata: Any, columns: Set[str]) -> None:
    """Raise ValueError for a table that is too large by its own words, before any of it is decoded."""
    if metadata.num_rows > MAX_ROWS:
        raise ValueError(f"it has {metadata.num_rows:,} rows, more than the limit of {MAX_ROWS:,}")
    size = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        for part in map(group.column, range(group.num_columns)):
            if part.path_in_schema in columns:
                size += max(part.total_uncompressed_size, 0)
                if part.num_values > max(MAX_LISTED, MAX_ROWS):
                    raise ValueError(f"a column has {part.num_values:,} values, more than the limit of {MAX_LISTED:,}")
    if size > MAX_DECODED:
        raise ValueError(f"its cells have {size:,} bytes, more than the limit of {MAX_DECODED:,}")


def _decode(file: Any, columns: Mapping[str, str]) -> Iterator[Any]:
    """Yield batches of rows in which every column is flat. Raises ValueError where they become too large."""
    import pyarrow

    rows = size = 0
    for group in range(file.num_row_groups):
        count = _rows_at_once(file.metadata.row_group(group), {*columns.values()} - {*columns})
        for batch in file.iter_batches(count, row_groups=[group], columns=[*columns.values()], use_threads=False):
            flat = pyarrow.RecordBatch.from_arrays([_flat(batch.column(name)) for name in columns], [*columns])
            rows, size = rows + flat.num_rows, size + flat.nbytes
            if rows > MAX_ROWS or size > MAX_DECODED:
                raise ValueError(f"it has more than {MAX_ROWS:,} rows, or cells of more than {MAX_DECODED:,} bytes")
            yield flat


def _rows_at_once(group: Any, inner: Set[str]) -> int:
    """Return how many rows to decode at a time, so that ``inner`` columns, which cannot stay numbers, are bounded.

    A value is at most as long as all that is stored of its column.
    """
    parts = map(group.column, range(group.num_columns))
    longest: int = sum(max(part.total_uncompressed_size, 0) for part in parts if part.path_in_schema in inner)
    return min(max(MAX_BATCH // max(longest, 1), 1), ROWS_AT_ONCE)


def _flat(array: Any) -> Any:
    """Return a column of values: of a column of images the paths. Raises ValueError for a cell that is too long."""
    import pyarrow.compute
    from pyarrow import types

    if types.is_struct(array.type):
        array = pyarrow.compute.struct_field(array, "path")
    if types.is_list(array.type) or types.is_large_list(array.type):
        return _flat_lists(array)
    values = array.dictionary if types.is_dictionary(array.type) else array
    if types.is_string(values.type) or types.is_large_string(values.type):
        length = pyarrow.compute.max(pyarrow.compute.binary_length(values)).as_py() or 0
        if length > MAX_CELL:
            raise ValueError(f"a cell has {length:,} bytes, more than the limit of {MAX_CELL:,}")
    return array.dictionary_decode() if types.is_dictionary(array.type) else array


def _flat_lists(array: Any) -> Any:
    """Return a column of lists of values. Raises ValueError for texts that are too long, alone or together."""
    import pyarrow.compute
    from pyarrow import types

    values = array.flatten()  # of the lists that are not null
    if types.is_dictionary(values.type):
        texts = values.dictionary
        if types.is_string(texts.type) or types.is_large_string(texts.type):
            lengths = pyarrow.compute.binary_length(texts)
            size = pyarrow.compute.sum(pyarrow.compute.take(lengths, values.indices)).as_py() or 0
            if size > MAX_DECODED or (pyarrow.compute.max(lengths).as_py() or 0) > MAX_CELL:
                raise ValueError(f"a list holds texts of more than {MAX_CELL:,} bytes, or all lists {size:,} bytes")
        values = values.dictionary_decode()
    lengths = pyarrow.compute.fill_null(pyarrow.compute.list_value_length(array), 0)
    offsets = pyarrow.concat_arrays([pyarrow.array([0], lengths.type), pyarrow.compute.cumulative_sum(lengths)])
    kind = pyarrow.LargeListArray if types.is_large_list(array.type) else pyarrow.ListArray
    return kind.from_arrays(offsets, values, mask=array.is_null() if array.null_count else None)


class _StoredImages:
    """The images of a Parquet file, decoded a few rows at a time. Threads wait for each other."""

    def __init__(self, open_stream: OpenStream, column: str, groups: Sequence[int]) -> None:
        self._open_stream, self._column = open_stream, column
        self._starts = [0, *accumulate(groups)]  # the first row of each row group, and the end
        self._lock = threading.Lock()
        self._batches: Iterator[Any] = iter(())
        self._group, self._next = -1, 0  # the row group that is read, and its next row
        self._kept: list[tuple[int, Any]] = []  # batches with their first row

    def read(self, row: int) -> bytes | None:
        """Return the bytes of the image of a row. Raises ImageError."""
        with self._lock:
            try:
                return self._read(row)
            except ImageError:
                raise
            except Exception as error:  # whatever pyarrow raises for a damaged page
                self._group = -1
                raise ImageError(f"Cannot be read from the table: {one_line(error)}.") from None

    def _read(self, row: int) -> bytes | None:
        group = bisect_right(self._starts, row) - 1
        if group != self._group or not self._kept or row < self._kept[0][0]:
            self._group, self._next, self._kept = group, self._starts[group], []
            self._batches = self._images(group)
        while row >= self._next:
            batch = next(self._batches, None)
            if batch is None or not batch.num_rows:
                raise ImageError("Cannot be read from the table: it has fewer rows than it announces.")
            self._kept.append((self._next, batch))
            self._next += 1
            while len(self._kept) > 1 and sum(kept.nbytes for _, kept in self._kept) > MAX_KEPT:
                self._kept.pop(0)
        value = self._kept[row - self._kept[0][0]][1].column(0)[0]["bytes"]
        if value.is_valid and len(value.as_buffer()) > MAX_BYTES:
            raise ImageError(f"It has more bytes than the limit of {MAX_BYTES:,}.")
        if row + 1 == self._starts[group + 1]:  # read to its end: other files may have their turn
            self._group, self._kept, self._batches = -1, [], iter(())
        data: bytes | None = value.as_py()
        return data

    def _images(self, group: int) -> Iterator[Any]:
        import pyarrow.parquet

        with self._open_stream() as stream:
            file = pyarrow.parquet.ParquetFile(stream)
            yield from file.iter_batches(1, row_groups=[group], columns=[f"{self._column}.bytes"], use_threads=False)


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the names of the classes of each ClassLabel column, which datasets of the Hub store as numbers."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        labels = {name: _class_label(feature) for name, feature in features.items()}
        return {str(name): names for name, names in labels.items() if names is not None}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _class_label(feature: Any) -> list[str] | None:
    """Return the names of a ClassLabel, or of a list of them; None for another feature."""
    if isinstance(feature, list) and len(feature) == 1:
        return _class_label(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return [str(label) for label in feature["names"]]
    return _class_label(feature.get("feature")) if feature.get("_type") in ("Sequence", "List", "LargeList") else None
