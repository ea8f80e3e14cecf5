"""The table of a project's labels: the format of the fix list that ``headstart check`` writes and ``fit`` reads.

A table of several labels an image that neither of them wrote, also one in the project's folder, is read once, as
``fit`` would read it; what is changed is written as the fix list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.check.table import COLUMNS, SEVERAL_COLUMNS, check_cells, check_names
from headstart.data import Dataset, ReadOptions, open_dataset
from headstart.data.class_names import similar_names_notes
from headstart.data.dataset import SPLITS
from headstart.data.label_cells import LabelCell, LabelColumns, find_separator, needs_lists, unreadable_names
from headstart.data.layout import find_tables, to_nfc
from headstart.data.sources import open_source
from headstart.data.table_files import Table, read_table
from headstart.errors import DataError, HeadstartError, OptionError
from headstart.files import from_table_text, table_path, table_row, table_text, unescape_name, write_atomic
from headstart.studio.label_sets import accepted_text, cell_text
from headstart.studio.records import ImageRecord, is_folder_name

MEND = "rename its folder, or correct the table"
MERGE = "give the images of one the other label instead"  # in the page
OWN = ({*COLUMNS}, {*SEVERAL_COLUMNS})  # what tables have that the studio and a check write
ALL_ROWS = ReadOptions(layout="image")  # also those without a label
ReadLabel = Callable[[int, Mapping[str, object]], tuple[str | None, LabelCell | None]]


@dataclass(frozen=True)
class TableRow:
    """The cells of an image; ``path`` is relative to the project's folder."""

    path: str
    label: str | None
    split: str
    group: str | None
    finding: str
    action: str
    why: str
    labels: LabelCell | None = None


@dataclass(frozen=True)
class TableRows:
    """The rows of a table by path, the names of labels that its columns give, and lines that the user must see.

    ``has_more`` says that the table beside the folder has columns that the studio would not write back.
    """

    rows: Mapping[str, TableRow]
    names: tuple[str, ...]
    notes: tuple[str, ...]
    has_more: bool = False


def table_file(folder: Path) -> Path:
    """Return where the labels of a project are kept: beside its folder."""
    return folder.parent / f"{folder.name}-labels.csv"


def labels_text(folder_name: str, records: Iterable[ImageRecord], labels: Sequence[str] | None = None) -> str:
    """Return the table as text. ``labels`` are the names of all labels where an image may have several.

    Raises OptionError for a cell that a reader of tables would refuse.
    """
    lines = [table_row(COLUMNS if labels is None else SEVERAL_COLUMNS)]
    as_lists = labels is not None and needs_lists(labels)
    for record in records:
        label = table_text(record.label or "") if labels is None else cell_text(record.labels, as_list=as_lists)
        cells = [table_path(f"{folder_name}/{record.path}"), label, record.split]
        cells += [table_text(record.group or ""), record.finding, table_text(accepted_text(record)), record.why]
        check_cells(record.path, cells)
        lines.append(table_row(cells))
    return "".join(lines)


def check_readable(file: Path, names: Sequence[str], *, multi_label: bool) -> None:
    """Raise OptionError for names of classes, or labels, that ``fit`` would read as something else, or refuse."""
    classes, labels = ((), tuple(names)) if multi_label else (tuple(names), ())
    check_names(Dataset(str(file), (), classes, (), (), lambda _: b"", label_names=labels), file, MEND)
    for name in names:
        if not (multi_label or is_folder_name(name)):
            raise OptionError(f"{file} could not name the class {name!r}, which no folder of a class may have; {MEND}.")


def says_several(file: Path) -> bool:
    """Return whether a table that the studio, or a check, wrote says that images may have several labels."""
    table = _read_ours(file)
    return table is not None and set(SEVERAL_COLUMNS) <= set(table.columns)


def write_labels(file: Path, text: str) -> None:
    """Write the table whole: it is on the disk before this returns, and a kill leaves the old one or the new one.

    Raises OSError.
    """
    write_atomic(file, text)


def read_labels(file: Path, folder_name: str) -> TableRows:
    """Return the rows of a table by path, in their order. Raises DataError for anything that is not such a table.

    Paths must lie in the project's folder; a path that is named twice counts as its last row, which a note says.
    """
    table = _read_own(file)
    columns = LabelColumns(str(file), "label", (), None)

    def label(number: int, row: Mapping[str, object]) -> tuple[str | None, None]:
        name = to_nfc(columns.single(number, row) or "")
        if name and not is_folder_name(name):
            raise ValueError(f"the label {name!r} cannot be the name of a folder; give another.")
        return name or None, None

    return _read_rows(file, table, folder_name, label)


def read_label_sets(folder: Path) -> TableRows:
    """Return the rows of a project of several labels an image: of its table, else of the tables in it, if any.

    A table that neither the studio nor a check wrote is read as ``fit`` reads it; rows without a label keep their split
    and group. Raises DataError.
    """
    file = table_file(folder)
    table = _read_ours(file) if file.is_file() else None
    if table is not None:
        columns = LabelColumns(str(file), _label_column(table), (), None)
        separator = find_separator(columns, table.rows, ReadOptions(multi_label=True)) or ""

        def label(number: int, row: Mapping[str, object]) -> tuple[None, LabelCell | None]:
            return None, columns.several(number, row, separator)

        return _read_rows(file, table, folder.name, label)
    if file.is_file():
        dataset = open_dataset(file, ReadOptions(multi_label=True))
        return replace(_rows_of(dataset, [open_dataset(file, ALL_ROWS)], folder.name), has_more=True)
    source = open_source(str(folder)) if folder.is_dir() else None
    tables = {} if source is None or not source.is_folder else find_tables(str(folder), source.names)
    if not tables:
        return TableRows({}, (), ())
    found = _rows_of(
        open_dataset(folder, ReadOptions(multi_label=True)),
        [_table_in(folder, name, split) for name, split in tables.items()],
        None,
    )
    note = f"The labels were read from the table in {folder.name}; from the first change on they are in {file.name}."
    return replace(found, notes=(*found.notes, note))


def _table_in(folder: Path, name: str, split: str | None) -> Dataset:
    """Return all rows of a table in a folder, whose paths are then relative to the folder."""
    dataset, below = open_dataset(folder / name, ALL_ROWS), name[: name.rfind("/") + 1]
    items = (replace(item, path=f"{below}{item.path}", split=split or item.split) for item in dataset.items)
    return replace(dataset, items=tuple(items))


def _rows_of(labelled: Dataset, tables: Sequence[Dataset], folder_name: str | None) -> TableRows:
    """Return the rows of ``tables``, with the labels of those that are ``labelled``.

    Their paths begin with the name of the project's folder where it is given.
    """
    names = labelled.label_names
    unread = unreadable_names(names)
    if unread:
        raise DataError(
            f"{labelled.uri} has a label called {unread[0]!r}, which a table of labels could not name, since a reader "
            "takes it for something else; rename the column."
        )
    rows: dict[str, TableRow] = {}
    for item in (*(item for table in tables for item in table.items), *labelled.items):
        path = item.path if folder_name is None else _relative(item.path, folder_name)
        if path is None:
            raise DataError(
                f"{labelled.uri} names {item.path}, which is not in {folder_name}/; correct or move the table."
            )
        cell = None if item.labels is None else LabelCell(item.labels, item.unknown, item.is_rest_unknown)
        rows[path] = TableRow(path, None, item.split, item.group, "", "", "", cell)
    paths = [item.path for table in tables for item in table.items]
    notes = [note for table in tables for note in table.notes]
    notes += [*_twice(labelled.uri, paths, "last one with a label"), *similar_names_notes(names, MERGE)]
    return TableRows(rows, names, tuple(notes))


def _twice(uri: str, paths: Sequence[str], which: str) -> list[str]:
    """Name rows of paths that others name too."""
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if not twice:
        return []
    more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
    return [f"{uri} names {twice[0]}{more} in several rows; the {which} counts, the others are dropped."]


def _read_ours(file: Path) -> Table | None:
    """Return a table that the studio, or a check, wrote, None for another."""
    with suppress(HeadstartError):
        table = read_table(str(file))
        return table if {*COLUMNS} - {"label"} <= {*table.columns} and _label_column(table) else None
    return None


def _label_column(table: Table) -> str:
    """Return the column of labels, by the first name that ``fit`` looks for; empty where there is none."""
    return next((name for name in ("label", "labels") if name in table.columns), "")


def _read_own(file: Path) -> Table:
    table = read_table(str(file))
    if not {"path", "label"} <= set(table.columns):
        raise DataError(f"{file} has no columns path and label; move it away, or write it by headstart check.")
    return table


def _read_rows(file: Path, table: Table, folder_name: str, label_of: ReadLabel) -> TableRows:
    rows: dict[str, TableRow] = {}
    paths: list[str] = []
    for number, row in enumerate(table.rows, start=2):
        path = _relative(_cell(row, "path"), folder_name)
        if path is None:
            raise DataError(f"{file}, row {number}: the path is not in {folder_name}/; correct or move the table.")
        split = _cell(row, "split") or "train"
        if split not in SPLITS:
            raise DataError(f"{file}, row {number}: unknown split {split!r}; expected {', '.join(SPLITS)}.")
        try:
            label, labels = label_of(number, row)
        except ValueError as error:
            raise DataError(f"{file}, row {number}: {error}") from None
        group, action = from_table_text(_cell(row, "group")), from_table_text(_cell(row, "action"))
        finding, why = _cell(row, "finding"), _cell(row, "why")
        paths.append(path)
        rows[path] = TableRow(path, label, split, group or None, finding, action, why, labels)
    return TableRows(rows, (), tuple(_twice(str(file), paths, "last one")), set(table.columns) not in OWN)


def _cell(row: Mapping[str, object], name: str) -> str:
    return str(row.get(name) or "").strip()


def _relative(path: str, folder_name: str) -> str | None:
    """Return the path within the project's folder, None for one outside it."""
    parts = unescape_name(path).split("/")
    parts = parts[1:] if parts[:1] == ["."] else parts
    is_inside = len(parts) > 1 and parts[0] == folder_name and not {"", ".", ".."} & set(parts)
    return "/".join(parts[1:]) if is_inside and "\0" not in path else None
