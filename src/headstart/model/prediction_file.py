"""A file of predictions that grows in pieces beside its place, and can be continued.

``predictions.csv`` grows in the folder ``predictions.csv.part``: a piece for each part of the inputs, which appears
whole or not at all, and ``about.json``, which says which model and which inputs they are of. At the end the pieces are
joined to one file, which gets its name when it is complete. A run that was killed is continued behind its last piece.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from headstart.data import Dataset
from headstart.errors import ModelError, OptionError, missing_extra
from headstart.files import (
    TEMPORARY,
    encode,
    escape_name,
    foreign_files,
    json_text,
    open_atomic,
    open_regular,
    read_json,
    table_row,
    table_text,
    to_json,
    write_atomic,
)
from headstart.model import label_rows
from headstart.model.label_predictions import MultiLabelPredictions
from headstart.model.model import Model
from headstart.model.prediction_rows import arrow_columns, csv_rows, json_objects, table_columns
from headstart.model.predictions import Predictions

FORMS = (".csv", ".jsonl", ".parquet")
PIECE = re.compile(r"(\d{10})-(\d{10})-(\d+)\.\w+")  # the inputs that it has, and how many could not be read
ROWS_OF_A_GROUP = 32_768  # of Parquet: many pieces
ABOUT = "about.json"
OTHER = "another process has written or deleted there. Predict again, one process at a time."
MAX_ABOUT_BYTES = 4096
MAX_LINE_BYTES = 2**20


@dataclass(frozen=True)
class PredictionFile:
    """A file of predictions for a dataset by a model: see the module. ``about`` tells them apart from others."""

    path: Path
    classes: tuple[str, ...]
    about: Mapping[str, str]
    is_multi_label: bool = False

    @property
    def part(self) -> Path:
        """The folder in which the file grows."""
        return self.path.with_name(f"{self.path.name}.part")

    def begin(self) -> int:
        """Begin the file, or continue it; return how many inputs have their predictions already.

        Raises OptionError where what was begun is of another model or of other inputs; nothing is changed then.
        """
        if not self.part.exists() or not foreign_files(self.part, lambda _: False):  # empty, as a full disk leaves it
            self.part.mkdir(parents=True, exist_ok=True)
            write_atomic(self.part / ABOUT, to_json(dict(self.about)))
            return 0
        try:
            about = read_json(self.part / ABOUT, MAX_ABOUT_BYTES)
        except (OSError, ValueError):
            raise OptionError(
                f"{self.part} was not begun by predict, or is damaged; move it elsewhere, or give another name."
            ) from None
        for what, value in self.about.items():
            if about.get(what) != value:
                raise OptionError(
                    f"{self.part} was begun with another {what}; delete it to begin again, or give another name."
                )
        return self._pieces()[1]

    def add(self, dataset: Dataset, predictions: Predictions, start: int) -> None:
        """Write the piece of a part of the inputs, which begins at input ``start``. Raises OptionError, OSError."""
        suffix, errors = self.path.suffix.lower(), len(predictions.quarantined)
        name = f"{start:010}-{start + len(dataset):010}-{errors}{suffix}"
        labels = predictions if isinstance(predictions, MultiLabelPredictions) else None
        if suffix == ".csv":
            rows = csv_rows(dataset, predictions) if labels is None else label_rows.csv_rows(dataset, labels)
            data = encode("".join(rows))
        elif suffix == ".jsonl":
            data = encode("".join(f"{json_text(value)}\n" for value in _objects(dataset, predictions)))
        else:
            values = (
                arrow_columns(dataset, predictions) if labels is None else label_rows.arrow_columns(dataset, labels)
            )
            data = _parquet(values)
        try:
            write_atomic(self.part / name, data)
        except FileNotFoundError:
            raise OptionError(f"{self.part} is not there any more: {OTHER}") from None

    def finish(self, count: int) -> int:
        """Join the pieces of ``count`` inputs; return the number of those that could not be read.

        Raises OptionError where pieces are gone, OSError.
        """
        pieces, end = self._pieces()
        if end != count:
            raise OptionError(f"{self.part} has the predictions of {end:,} of {count:,} inputs: {OTHER}")
        with open_atomic(self.path) as stream:
            if self.path.suffix.lower() == ".parquet":
                _join_parquet(pieces, stream)
            else:
                if self.path.suffix.lower() == ".csv":
                    columns = label_rows.table_columns if self.is_multi_label else table_columns
                    stream.write(encode(table_row([table_text(name) for name in columns(self.classes)])))
                for piece in pieces:
                    with piece.open("rb") as source:
                        shutil.copyfileobj(source, stream)
        for path in [*self.part.iterdir()]:
            if path.name == ABOUT or PIECE.fullmatch(path.name) or path.name.startswith(TEMPORARY):
                path.unlink(missing_ok=True)
        with suppress(OSError):  # it holds files of others
            self.part.rmdir()
        return sum(int(match[3]) for piece in pieces if (match := PIECE.fullmatch(piece.name)))

    def _pieces(self) -> tuple[list[Path], int]:
        """Return the pieces that follow each other from the first input on, and where the last one ends."""
        by_start = {
            int(match[1]): (path, int(match[2]))
            for path in sorted(self.part.iterdir())
            if (match := PIECE.fullmatch(path.name)) and path.suffix == self.path.suffix.lower()
        }
        pieces, end = [], 0
        while end in by_start:
            path, following = by_start.pop(end)
            pieces.append(path)
            end = following
        return pieces, end


def prediction_file(path: Path, inputs: Sequence[str], dataset: Dataset, model: Model, runtime: str) -> PredictionFile:
    """Check that predictions can be written to ``path``, and say what they are of.

    ``inputs`` are the files and folders that were named, ``runtime`` is what runs the model. Raises OptionError.
    """
    if path.suffix.lower() not in FORMS:
        raise OptionError(f"{path} cannot be written; give a name that ends in {', '.join(FORMS)}.")
    if path.suffix.lower() == ".parquet":
        _pyarrow()
    if path.is_dir():
        raise OptionError(f"{path} is a folder; give the name of a file.")
    if any(os.path.realpath(path) == os.path.realpath(name) for name in inputs):
        raise OptionError(f"{path} is one of the inputs; give another name for the predictions.")
    if os.path.lexists(path) and not _is_ours(path):
        raise OptionError(f"{path} exists and does not hold predictions of Headstart; give another name.")
    about = {"model": _model_identity(model), "set of inputs": _inputs_identity(inputs, dataset), "runtime": runtime}
    return PredictionFile(path, model.classes, about, model.is_multi_label)


def _objects(dataset: Dataset, predictions: Predictions) -> Iterator[dict[str, Any]]:
    if isinstance(predictions, MultiLabelPredictions):
        return label_rows.json_objects(dataset, predictions)
    return json_objects(dataset, predictions, len(predictions.classes))


def _is_ours(path: Path) -> bool:
    """Return whether a file holds predictions, by what it begins with: it may be replaced then."""
    headers = (table_columns(()), label_rows.table_columns(()))
    try:
        if path.suffix.lower() == ".parquet":
            columns = _pyarrow().parquet.read_schema(path).names
            return any(columns[: len(first)] == first for first in headers)
        with open_regular(path) as stream:
            line = stream.readline(MAX_LINE_BYTES)
        if path.suffix.lower() == ".csv":
            names = line.decode("utf-8").rstrip("\r\n").split(",")
            return any(names[: len(first)] == first for first in headers)
        value = json.loads(line)
        return isinstance(value, dict) and "path" in value and bool({"classes", "labels", "error"} & value.keys())
    except (OSError, ValueError):  # PyArrow's errors are ValueErrors
        return False


def _model_identity(model: Model) -> str:
    """Return a hash of all that decides what a model says of an image."""
    rule = None if model.rule is None else model.rule.to_dict()
    decides = rule if model.label_thresholds is None else model.label_thresholds.to_dict()
    value = repr((model.sha256, model.classes, model.preprocess.fingerprint, model.thresholds, decides))
    return hashlib.sha256(encode(value)).hexdigest()


def _inputs_identity(inputs: Sequence[str], dataset: Dataset) -> str:
    """Return a hash of the inputs in their order: paths, and of files their sizes and times."""
    digest = hashlib.sha256()
    for path in (*inputs, *(item.path for item in dataset.items), *(q.path for q in dataset.quarantined)):
        try:
            status = os.stat(os.path.join(dataset.folder, path))  # noqa: PTH116, PTH118  # a Path each is slow
            detail = f"{status.st_size} {status.st_mtime_ns}" if not os.path.isdir(path) else ""  # noqa: PTH112
        except (OSError, ValueError):
            detail = ""  # in an archive, a table, or missing
        digest.update(encode(f"{escape_name(path)}\0{detail}\n"))
    return digest.hexdigest()


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise missing_extra("Parquet needs PyArrow, which is not installed", "tables") from None
    return pyarrow


def _parquet(columns: Mapping[str, list[Any]]) -> bytes:
    """Return a Parquet file with the columns of ``table_columns``."""
    pyarrow = _pyarrow()
    kinds = {
        "path": pyarrow.string(),
        "class": pyarrow.string(),
        "probability": pyarrow.float64(),
        "none_of_these": pyarrow.bool_(),
        "set": pyarrow.list_(pyarrow.string()),
        "labels": pyarrow.list_(pyarrow.string()),
        "distance": pyarrow.float64(),
        "error": pyarrow.string(),
    }
    texts = {name for name, kind in kinds.items() if kind == pyarrow.string()}
    arrays, fields = [], []
    for name, values in columns.items():
        if name in texts:
            values = [None if value is None else escape_name(value) for value in values]
        elif name in ("set", "labels"):
            values = [None if value is None else [*map(escape_name, value)] for value in values]
        kind = kinds.get(name, pyarrow.bool_() if name.startswith("has_") else pyarrow.float64())
        fields.append(pyarrow.field(escape_name(name), kind))
        arrays.append(pyarrow.array(values, kind))
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(fields)), sink)
    return bytes(sink.getvalue())


def _join_parquet(pieces: Sequence[Path], stream: IO[bytes]) -> None:
    """Write the rows of all pieces as one Parquet file, many pieces a row group."""
    pyarrow = _pyarrow()
    waiting: list[Any] = []
    writer = None
    for i, piece in enumerate(pieces):
        try:
            waiting.append(pyarrow.parquet.read_table(piece))
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise ModelError(f"{piece} is damaged: {error}; delete it and predict again.") from None
        if sum(len(table) for table in waiting) >= ROWS_OF_A_GROUP or i + 1 == len(pieces):
            table = pyarrow.concat_tables(waiting)
            writer = writer or pyarrow.parquet.ParquetWriter(stream, table.schema)
            writer.write_table(table, row_group_size=max(len(table), 1))
            waiting = []
    if writer is not None:
        writer.close()
