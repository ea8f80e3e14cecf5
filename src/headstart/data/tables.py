"""Datasets that a table lists: which columns hold the path, the label, the split and the group, and what they mean."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from posixpath import dirname
from typing import TYPE_CHECKING

from headstart.data.dataset import Dataset, Item, Skipped, paths_by_reason
from headstart.data.label_cells import (
    MISSING_IN_R,
    NO,
    UNKNOWN,
    YES,
    LabelCell,
    LabelColumns,
    cell_text,
    check_numbers,
    check_single,
    columns_of,
    find_separator,
    is_missing_text,
    label_names,
)
from headstart.data.layout import split_name, to_nfc
from headstart.data.reading import ReadOptions, Source
from headstart.data.table_columns import (
    Columns,
    column_notes,
    describe,
    find_columns,
    list_columns,
    other_columns,
)
from headstart.data.table_files import Row, Table, column_key, read_table
from headstart.data.table_paths import DiskFiles, MemberFiles
from headstart.errors import DataError, ImageError
from headstart.files import HALF, from_table_text
from headstart.images.decoding import is_image_name

if TYPE_CHECKING:
    from headstart.data.fetch import Fetcher

NO_PATH = "no path"
NO_LABEL = "no label"
ONLY_NA = f"{NO_LABEL} but {MISSING_IN_R}"
ELSEWHERE = "address of a file elsewhere"
IF_TRUE = {  # columns of yes and no, and the split of the rows that say yes
    "isvalid": "validation",
    "isvalidation": "validation",
    "istest": "test",
    "istrain": "train",
    "istraining": "train",
}


def from_table(uri: str, options: ReadOptions) -> Dataset:
    """Build the dataset that a table lists, which is a file or behind an address.

    Paths are relative to the table, or to the working folder, and must stay there; ids without an ending are looked
    for below the folder of the table. Columns are found by name, in any case, unless ``options`` give them. Raises
    DataError.
    """
    return from_rows(uri, read_table(uri, lists=list_columns(options)), DiskFiles(uri, options.follow_links), options)


def from_member(source: Source, name: str, options: ReadOptions) -> Dataset:
    """Build the dataset that a table in an archive lists, in the same way; it names files of the archive alone.

    Raises DataError.
    """
    key = source.names.index(name)
    uri = source.display_path(key)
    table = read_table(uri, lambda: io.BytesIO(source.read(key)), lists=list_columns(options))
    return from_rows(uri, table, MemberFiles(uri, source, name), options)


def from_rows(uri: str, table: Table, files: DiskFiles | MemberFiles, options: ReadOptions) -> Dataset:
    """Build the dataset that the rows of a table list, whose images are found by ``files``. Raises DataError."""
    if not table.rows:
        raise DataError(f"The table {uri} has no rows; expected a path and a label in each.")
    columns = find_columns(uri, table, options)
    if options.layout == "image":  # to predict on: rows without a label are inputs as well
        columns = replace(columns, label="", one_hot=())
    label_columns = columns_of(uri, table, columns.label, columns.one_hot)
    separator = find_separator(label_columns, table.rows, options)
    rows = _read_rows(uri, table, files, columns, _RowReader(label_columns, separator, options.fetch))
    skipped, items = rows.skipped, rows.items
    if not items:
        by_reason = paths_by_reason(skipped)
        counts = ", ".join(f"{len(paths)} {reason}" for reason, paths in by_reason.items())
        mend = "give --fetch to read https addresses" if ELSEWHERE in by_reason else "check its columns"
        first = f"; the first is {skipped[0].path}" if skipped else ""
        raise DataError(f"No row of {uri} names an image and its label ({counts}{first}); {mend}.")
    notes = (*table.notes, *_skipped_notes(uri, skipped))
    labels: Counter[str] = Counter(item.label for item in items if item.label is not None)
    names: tuple[str, ...] = ()
    if separator is not None:
        names, items = _with_labels(label_columns, items, rows.cells)
        if options.multi_label is None and options.label_separator is None:
            notes = (*notes, *_doubted_notes(uri, label_columns, rows.cells))
    elif options.layout != "image":
        notes = (*notes, *check_single(uri, labels), *column_notes(uri, table, columns, options))
    if table.images is None and options.layout != "image":
        notes = (*notes, *_repeated_notes(uri, items))
    readers = rows.readers
    return Dataset(
        uri,
        tuple(items),  # in the order of the rows, so that predictions can be put beside them
        tuple(sorted(labels)),
        tuple(skipped),
        (),
        lambda key: readers[key](),
        "" if table.images is not None else files.folder,
        describe(columns, separator),
        notes,
        label_names=names,
        other_columns=other_columns(table, columns),
    )


@dataclass(frozen=True)
class _RowReader:
    """How a row is read: its labels, what separates several of them (None: one an image), and addresses."""

    labels: LabelColumns
    separator: str | None
    fetch: bool


@dataclass(frozen=True)
class _Rows:
    """The rows of a table that are images, with a reader and, where it is multi-label, a cell each; and the others."""

    items: list[Item] = field(default_factory=list)
    readers: list[Callable[[], bytes]] = field(default_factory=list)
    cells: list[LabelCell] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def _read_rows(uri: str, table: Table, files: DiskFiles | MemberFiles, columns: Columns, reader: _RowReader) -> _Rows:
    fetcher = _new_fetcher() if reader.fetch else None
    rows = _Rows()
    for index, row in enumerate(table.rows):
        number = index + 2  # the header is row 1
        path = cell_text(row.get(columns.path))
        label, cell = None, None
        if reader.separator is None:
            label = reader.labels.single(number, row)
        else:
            cell = reader.labels.several(number, row, reader.separator)
        reason = "" if path else NO_PATH
        if path and label is None and cell is None:
            reason = ONLY_NA if columns.label and cell_text(row.get(columns.label)) == MISSING_IN_R else NO_LABEL
        is_address = table.images is None and "://" in path
        if not reason and is_address:
            reason = _address_problem(path, fetcher)
        if reason:
            rows.skipped.append(Skipped(path or f"{uri}, row {number}", reason))
            continue
        split = _split(uri, number, columns.split, row)
        if table.images is not None:
            rows.readers.append(_stored_image(table.images, index))
        elif is_address and fetcher is not None:
            rows.readers.append(partial(fetcher.read, path))
        else:
            path, read = files.locate(path, number)
            if not is_image_name(path):
                rows.skipped.append(Skipped(path, files.problem(path)))
                continue
            rows.readers.append(read)
        group = from_table_text(cell_text(row.get(columns.group))) if columns.group else ""
        label = to_nfc(label) if label else None
        group = "" if is_missing_text(group) else group
        _check_texts(uri, number, (path, label, group, *(() if cell is None else (*cell.present, *cell.unknown))))
        rows.items.append(Item(path, label, split, group or None, key=len(rows.readers) - 1, folder=dirname(path)))
        if cell is not None:
            rows.cells.append(cell)
    return rows


def _check_texts(uri: str, number: int, texts: Iterable[str | None]) -> None:
    """Raise DataError for half a character, which JSON may escape, and no file of a model could hold."""
    for text in texts:
        if text and not text.isascii() and HALF.search(text):
            raise DataError(f"{uri}, row {number}: {text!r} holds half a character of UTF-16; correct that text.")


def _with_labels(
    columns: LabelColumns, items: Sequence[Item], cells: Sequence[LabelCell]
) -> tuple[tuple[str, ...], list[Item]]:
    """Return the names of the labels of a multi-label table, and its items with their labels. Raises DataError."""
    names = label_names(columns, cells)
    check_numbers(columns.uri, names)
    labelled = [
        replace(item, labels=tuple(sorted(cell.present)), unknown=cell.unknown, is_rest_unknown=cell.rest)
        for item, cell in zip(items, cells, strict=True)
    ]
    return names, labelled


def _new_fetcher() -> Fetcher:
    from headstart.data.fetch import Fetcher  # few tables need its imports

    return Fetcher()


def _address_problem(address: str, fetcher: Fetcher | None) -> str:
    """Return why the file behind an address is not read, empty where it is."""
    if fetcher is None:
        return ELSEWHERE
    return "" if address.lower().startswith("https://") else "address that is not https"


def _stored_image(images: Callable[[int], bytes | None], row: int) -> Callable[[], bytes]:
    def read() -> bytes:
        data = images(row)
        if not data:
            raise ImageError("The table holds no bytes for it.")
        return bytes(data)

    return read


def _split(uri: str, number: int, column: str, row: Row) -> str:
    """Return the split of a row. A column such as fastai's is_valid says whether a row is of that split."""
    text = cell_text(row.get(column)) if column else ""
    if not text:
        return "train"
    key = column_key(column)
    if key in IF_TRUE:
        of_yes = IF_TRUE[key]
        if text.lower() in YES:
            return of_yes
        if text.lower() in NO:
            return "validation" if of_yes == "train" else "train"
        raise DataError(f"{uri}, row {number}: {text!r} in the column {column} is neither true nor false.")
    split = split_name(text)
    if split is None:
        raise DataError(f"{uri}, row {number}: unknown split {text!r}; expected train, validation or test.")
    return split


def _skipped_notes(uri: str, skipped: Sequence[Skipped]) -> list[str]:
    """Name the rows that were skipped."""
    notes = []
    for reason, paths in paths_by_reason(skipped).items():
        rows, more = "row" if len(paths) == 1 else "rows", ", ..." if len(paths) > 1 else ""
        mend = "; to read https addresses, give --fetch" if reason == ELSEWHERE else ""
        mend = f"; if that is a class, give it another name than {MISSING_IN_R}" if reason == ONLY_NA else mend
        notes.append(f"{len(paths)} {rows} of {uri} skipped: {reason} ({paths[0]}{more}){mend}.")
    return notes


def _repeated_notes(uri: str, items: Sequence[Item]) -> list[str]:
    """Name images that stand in several rows, as those of several observers do."""
    labels: dict[str, list[object]] = {}
    for item in items:
        labels.setdefault(item.path, []).append((item.label, item.labels, item.unknown))
    repeated = {path: found for path, found in labels.items() if len(found) > 1}
    if not repeated:
        return []
    contrary = [path for path, found in repeated.items() if len({*found}) > 1]
    images = "1 image stands" if len(repeated) == 1 else f"{len(repeated)} images stand"
    labelled = f", {len(contrary)} of them with different labels" if contrary else ""
    if len(repeated) == 1 and contrary:
        labelled = " with different labels"
    named = contrary or [*repeated]
    example = f"{named[0]}{', ...' if len(named) > 1 else ''}"
    return [f"{images} in several rows of {uri}{labelled} ({example}); each row counts as an image: keep one of each."]


def _doubted_notes(uri: str, columns: LabelColumns, cells: Sequence[LabelCell]) -> list[str]:
    """Say what an empty cell means, where a table of one class an image is multi-label for a doubted label alone."""
    doubted = next((cell.unknown[0] for cell in cells if cell.unknown), "")
    empty = sum(not (cell.present or cell.unknown or cell.rest) for cell in cells)
    if not columns.label or not doubted or not empty or any(len(cell.present) > 1 for cell in cells):
        return []
    return [
        f"{uri} is read as several labels an image, since a cell has {UNKNOWN + doubted!r}, a label that is not known; "
        f"so an empty cell ({empty} of {len(cells)} rows) says that an image has none of the labels. If each image has "
        f"one class, write {UNKNOWN} alone where it is in doubt."
    ]
