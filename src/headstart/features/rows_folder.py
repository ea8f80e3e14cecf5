"""A folder of rows: Parquet files, each of a shard of the images, and ``features.json``. Read as untrusted data."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import SPLITS, Item
from headstart.data.label_cells import MAX_CELLS, MAX_LABELS
from headstart.data.label_sets import with_label_text
from headstart.errors import DataError, missing_extra, untrusted
from headstart.features.rows import (
    MAX_LABELS_TEXT,
    MAX_TEXT,
    FeatureRows,
    Rows,
    Source,
    Unread,
    joined,
    unread_from_dict,
)
from headstart.files import (
    escape_name,
    foreign_files,
    parse_json,
    read_json,
    read_limited,
    to_json,
    unescape_name,
)

FORMAT = 1
FORMAT_OF_SEVERAL = 2  # labels an image: an earlier version must not take their texts for classes
FILE = "features.json"
SHARD = re.compile(r"[0-9a-f]{32}\.parquet")
SHARD_ROWS = 4096  # of a file of rows that are kept; embed cuts by images
MAX_FILE = 64 * 2**20  # bytes of features.json
MAX_SHARD = 2**30  # bytes of a shard
MAX_SHARD_ROWS = 2**16
MAX_SHARDS = 2**20
MAX_UNREAD = 16 * 2**20  # bytes of what a shard says of unreadable images
COLUMNS = {"path": "paths", "label": "labels", "split": "splits", "group": "groups", "folder": "folders"}
INT16, FLOAT32 = np.dtype("<i2"), np.dtype("<f4")
KEY = b"headstart"


def import_pyarrow() -> Any:
    """Import pyarrow with its modules for Parquet. Raises MissingExtraError."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError:
        raise missing_extra("Features are kept as Parquet, which needs pyarrow", "tables") from None
    return pyarrow


@dataclass(frozen=True)
class Shard:
    """What a Parquet file holds: rows, the images that could not be read, and how many images a remark is about."""

    rows: Rows
    unread: tuple[Unread, ...] = ()
    remarks: Mapping[str, int] = field(default_factory=dict)


def shard_bytes(shard: Shard) -> bytes:
    """Return the content of a Parquet file, not compressed.

    The same rows give the same bytes with the same version of pyarrow. Raises MissingExtraError.
    """
    pyarrow = import_pyarrow()
    rows = shard.rows
    arrays = {"content_hash": _binary(rows.content_hashes)}
    for column, name in COLUMNS.items():
        texts = [None if text is None else escape_name(text) for text in getattr(rows, name)]
        arrays[column] = pyarrow.array(texts, pyarrow.string())
    arrays["tiny_image"] = _binary(rows.tiny_images)
    arrays["image_stats"] = _binary(rows.image_stats.astype(FLOAT32))
    for tap, value in rows.values.items():
        arrays[f"tap:{tap}"] = _binary(value.astype(INT16))
    about = {"unread": [asdict(image) for image in shard.unread], "remarks": dict(shard.remarks)}
    table = pyarrow.table(arrays).replace_schema_metadata({KEY: to_json(about)})
    stream = io.BytesIO()
    pyarrow.parquet.write_table(
        table, stream, compression="none", use_dictionary=False, write_statistics=False, row_group_size=MAX_SHARD_ROWS
    )
    return stream.getvalue()


def _binary(values: NDArray[Any]) -> Any:
    """Return an array [n, k] as n cells of fixed size."""
    pyarrow = import_pyarrow()
    values = np.ascontiguousarray(values)
    width = values.shape[1] * values.dtype.itemsize
    return pyarrow.FixedSizeBinaryArray.from_buffers(
        pyarrow.binary(width), len(values), [None, pyarrow.py_buffer(values.tobytes())]
    )


def write_rows(folder: Path, features: FeatureRows) -> int:
    """Write rows into a new folder, and return the bytes that they take. Raises OSError, MissingExtraError."""
    folder.mkdir(parents=True, exist_ok=True)
    shards, size = [], 0
    for start in range(0, len(features.rows), SHARD_ROWS):
        rows = features.rows.select(range(start, min(start + SHARD_ROWS, len(features.rows))))
        data = shard_bytes(Shard(rows))
        name = hashlib.sha256(rows.content_hashes.tobytes() + repr(rows.paths).encode("utf-8", "backslashreplace"))
        shards.append(shard_entry(f"{name.hexdigest()[:32]}.parquet", len(rows), data))
        (folder / shards[-1]["name"]).write_bytes(data)
        size += len(data)
    about = listing(features.source, shards)
    (folder / FILE).write_bytes(about)
    return size + len(about)


def shard_entry(name: str, rows: int, data: bytes) -> dict[str, Any]:
    """Return what ``features.json`` says of a shard."""
    return {"name": name, "rows": rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def listing(source: Source, shards: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the content of ``features.json``. Raises DataError where it is more than a reader takes."""
    images = sum(shard["rows"] for shard in shards)
    value = {"format": format_of(source), "images": images, **source.to_dict(), "shards": list(shards)}
    data = to_json(value, indent=1)
    if len(data) > MAX_FILE:
        raise DataError(f"{FILE} would have {len(data):,} bytes, more than {MAX_FILE:,}; skip fewer files.")
    return data


def format_of(source: Source) -> int:
    """Return the number of the format that rows of a source have."""
    return FORMAT_OF_SEVERAL if source.is_multi_label else FORMAT


def is_rows_folder(folder: Path) -> bool:
    """Return whether a folder holds rows, be they finished or not, and nothing else."""
    return not foreign_to_rows(folder) and any(_is_of_rows(path.name) for path in folder.iterdir())


def foreign_to_rows(folder: Path) -> list[Path]:
    """Return what is in a folder beside rows: see ``files.foreign_files``."""
    return foreign_files(folder, _is_of_rows)


def _is_of_rows(name: str) -> bool:
    return name == FILE or SHARD.fullmatch(name) is not None


def read_rows(folder: Path) -> FeatureRows:
    """Read the rows in a folder; nothing of it is trusted. Raises DataError with what is wrong, MissingExtraError."""
    parts = open_rows(folder)
    return FeatureRows(parts.source, joined(parts.read(), parts.count))


@dataclass(frozen=True)
class RowsFolder:
    """A folder of features whose listing was read: what the rows were computed from and by, and the shards of them."""

    folder: Path
    source: Source
    shards: tuple[Mapping[str, Any], ...]

    @property
    def count(self) -> int:
        """How many rows it has."""
        return sum(shard["rows"] for shard in self.shards)

    def read(self) -> Iterator[Rows]:
        """Yield the rows of one shard after the other. Raises DataError with what is wrong."""
        labels: list[str | None] = []
        for shard in self.shards:
            rows = read_shard(self.folder, shard, self.source.channels).rows
            if len(rows) != shard["rows"]:
                raise DataError(
                    f"{self.folder / shard['name']} has {len(rows):,} rows, not the {shard['rows']:,} that {FILE} "
                    "says; copy or compute it again."
                )
            labels += rows.labels
            yield rows
        with untrusted(str(self.folder), DataError):
            check_labels(self.source, labels)


def open_rows(folder: Path) -> RowsFolder:
    """Read the listing of a folder of features. Raises DataError, also for one without any; MissingExtraError."""
    import_pyarrow()
    source, shards = read_listing(folder)
    if not shards:
        raise DataError(f"{folder} holds no features: no image of its data could be read; compute them from others.")
    return RowsFolder(folder, source, tuple(shards))


def check_labels(source: Source, labels: Sequence[str | None]) -> None:
    """Raise ValueError for labels [n] that no image has, and for more than can be fitted to."""
    if not source.is_multi_label:
        lengths = [len(label.encode("utf-8", "surrogatepass")) for label in {*labels} - {None} if label]
        if max(lengths, default=0) > MAX_TEXT:
            raise ValueError(f"a label has {max(lengths):,} bytes, more than {MAX_TEXT:,}")
        return
    names: set[str] = set()
    for text in {*labels, *(image.label or None for image in source.unread)}:
        item = with_label_text(Item("", None, "train"), text)
        names.update(item.labels or (), item.unknown)
    if len(names) > MAX_LABELS or len(names) * len(labels) > MAX_CELLS:
        raise ValueError(
            f"it has {len(names):,} labels of {len(labels):,} images; expected at most {MAX_LABELS:,} labels, and "
            f"{MAX_CELLS:,} labels times images"
        )


def read_listing(folder: Path) -> tuple[Source, list[dict[str, Any]]]:
    """Read ``features.json``: what the rows were computed from and by, and the shards. Raises DataError."""
    path = folder / FILE
    if not path.is_file():
        hint = "it is not finished: run the same headstart embed again" if is_rows_folder(folder) else "no features"
        raise DataError(f"{folder} has no {FILE}: {hint}.")
    _check_inside(folder, FILE)
    with untrusted(str(path), DataError):
        value = read_json(path, MAX_FILE)
        if value["format"] not in (FORMAT, FORMAT_OF_SEVERAL):
            raise DataError(
                f"{path} is of format {str(value['format'])[:20]}; this version reads formats {FORMAT} and "
                f"{FORMAT_OF_SEVERAL}."
            )
        source = Source.from_dict(value)
        if value["format"] != format_of(source):
            raise ValueError(f"format {value['format']} does not fit to what it says of labels")
        shards = value["shards"]
        if not isinstance(shards, list) or len(shards) > MAX_SHARDS:
            raise ValueError("shards are no list, or too many")
        for shard in shards:
            numbers = (shard["rows"], shard["bytes"])
            fits = all(type(number) is int and number >= 0 for number in numbers) and SHARD.fullmatch(shard["name"])
            fits = fits and re.fullmatch("[0-9a-f]{64}", shard["sha256"])
            if not fits or shard["rows"] > MAX_SHARD_ROWS or shard["bytes"] > MAX_SHARD:
                raise ValueError(f"a shard cannot be read: {str(shard)[:100]}")
        if len({shard["name"] for shard in shards}) != len(shards):
            raise ValueError("a shard is named twice")
        if value["images"] != sum(shard["rows"] for shard in shards):
            raise ValueError("images is not the sum of the rows of the shards")
        for shard in shards:  # what the rows will take in memory is on the disk, too
            _check_size(folder, shard, source.channels)
    return source, shards


def _check_inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file() or path.resolve().parent != folder.resolve():
        raise DataError(f"{folder}: {name} is missing, or a link out of the folder; copy it again, or compute it anew.")
    return path


def _check_size(folder: Path, shard: Mapping[str, Any], taps: Mapping[str, int]) -> None:
    size = _check_inside(folder, shard["name"]).stat().st_size
    if size != shard["bytes"]:
        raise DataError(
            f"{folder}: {shard['name']} has {size:,} bytes, not the {shard['bytes']:,} that {FILE} says; copy it again."
        )
    least = shard["rows"] * (32 + 768 + 16 + 2 * sum(taps.values()))
    if least > size:
        raise DataError(f"{folder}: {shard['name']} is too small for {shard['rows']:,} rows; copy it again.")


def read_shard(folder: Path, shard: Mapping[str, Any], taps: Mapping[str, int]) -> Shard:
    """Read a shard that ``features.json`` names, with rows of ``taps``. Raises DataError."""
    path = _check_inside(folder, shard["name"])
    data = read_limited(path, MAX_SHARD)
    if len(data) > MAX_SHARD or hashlib.sha256(data).hexdigest() != shard["sha256"]:
        raise DataError(f"{path} is not the file that {FILE} describes (its sha256 differs); copy or compute it again.")
    return parse_shard(data, taps, str(path))


def find_shard(path: Path, taps: Mapping[str, int]) -> tuple[bytes, Shard] | None:
    """Return the content of a shard that an earlier run wrote, None where it is not there, or damaged."""
    if not path.is_file() or path.is_symlink():
        return None
    data = read_limited(path, MAX_SHARD)
    try:
        return data, parse_shard(data, taps, str(path))
    except DataError:  # damaged: it is computed again
        return None


def parse_shard(data: bytes, taps: Mapping[str, int], what: str) -> Shard:
    """Read the content of a shard. Raises DataError, which calls it ``what``."""
    pyarrow = import_pyarrow()
    with untrusted(what, DataError):
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data), read_dictionary=[*COLUMNS])
        metadata, schema = file.metadata, file.schema_arrow
        about_text = (schema.metadata or {}).get(KEY, b"")
        if len(about_text) > MAX_UNREAD:
            raise ValueError("it says too much of images that could not be read")
        about = parse_json(about_text)
        widths = {"content_hash": 32, "tiny_image": 768, "image_stats": 16}
        widths |= {f"tap:{tap}": channels * INT16.itemsize for tap, channels in taps.items()}
        names = ["content_hash", *COLUMNS, "tiny_image", "image_stats", *(f"tap:{tap}" for tap in taps)]
        _check_schema(schema, names, widths)
        count = metadata.num_rows
        if not 0 <= count <= MAX_SHARD_ROWS or count * sum(widths.values()) > len(data):
            raise ValueError(f"{count} rows do not fit into {len(data):,} bytes")
        table = pyarrow.Table.from_batches(list(_batches(file, count)), schema) if count else schema.empty_table()
        columns = {name: table.column(name) for name in names}

        def numbers(name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
            return _numbers(columns[name], widths[name], dtype)

        texts = {name: _texts(columns[column], column) for column, name in COLUMNS.items()}
        rows = Rows(
            numbers("content_hash", np.dtype(np.uint8)),
            tiny_images=numbers("tiny_image", np.dtype(np.uint8)),
            image_stats=numbers("image_stats", FLOAT32),
            values={tap: numbers(f"tap:{tap}", INT16) for tap in taps},
            **texts,
        )
        _check_rows(rows)
        remarks = {remark: count for remark, count in about["remarks"].items() if type(count) is int}
        return Shard(rows, tuple(unread_from_dict(image) for image in about["unread"]), remarks)


def _check_schema(schema: Any, names: Sequence[str], widths: Mapping[str, int]) -> None:
    pyarrow = import_pyarrow()
    if schema.names != [*names]:
        raise ValueError(f"its columns are {', '.join(schema.names)[:200]}; expected {', '.join(names)}")
    for name in names:
        kind = schema.field(name).type
        if name in widths:
            fits = kind == pyarrow.binary(widths[name])
        else:
            fits = pyarrow.types.is_dictionary(kind) and kind.value_type == pyarrow.string()
        if not fits:
            raise ValueError(f"the column {name} is of type {str(kind)[:60]}")


def _batches(file: Any, count: int) -> Iterator[Any]:
    """Yield the batches of a file of ``count`` rows. Raises ValueError where there are more."""
    rows = 0
    for batch in file.iter_batches(4096, use_threads=False):
        rows += batch.num_rows
        if rows > count:
            break
        yield batch
    if rows != count:
        raise ValueError(f"it has {rows} rows or more, not {count}")


def _numbers(column: Any, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    if column.null_count:
        raise ValueError("a cell of numbers is empty")
    parts = []
    for chunk in column.chunks:
        buffer = memoryview(chunk.buffers()[1])[chunk.offset * width : (chunk.offset + len(chunk)) * width]
        parts.append(np.frombuffer(buffer, dtype).reshape(len(chunk), width // dtype.itemsize))
    native = dtype.newbyteorder("=")
    return np.concatenate(parts).astype(native, copy=False) if parts else np.empty((0, width // dtype.itemsize), native)


def _texts(column: Any, name: str) -> tuple[Any, ...]:
    """Return texts, None where there is none; what is repeated is held once."""
    pyarrow = import_pyarrow()
    texts: list[str | None] = []
    for chunk in column.chunks:
        lengths = pyarrow.compute.max(pyarrow.compute.binary_length(chunk.dictionary)).as_py() or 0
        if lengths > (limit := MAX_LABELS_TEXT if name == "label" else MAX_TEXT):
            raise ValueError(f"a {name} has {lengths:,} bytes, more than {limit:,}")
        known = [unescape_name(text) for text in chunk.dictionary.to_pylist()]
        texts += [None if i is None else known[i] for i in chunk.indices.to_pylist()]
    if name not in ("label", "group") and None in texts:
        raise ValueError(f"a {name} is empty")
    return tuple(texts)


def _check_rows(rows: Rows) -> None:
    """Raise ValueError for values that no image has."""
    if unknown := set(rows.splits) - set(SPLITS):
        raise ValueError(f"{sorted(unknown)[0][:40]!r} is no split")
    if "" in rows.labels:
        raise ValueError("a label is an empty text")
    if not np.isfinite(rows.image_stats).all():
        raise ValueError("a number is not finite")
