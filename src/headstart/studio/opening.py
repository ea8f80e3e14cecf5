"""Opening a project: its lock, the names of its classes, and its images as the table and the folder have them."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.data import Dataset, Item, open_dataset
from headstart.data.label_cells import LabelCell
from headstart.data.table_files import is_table
from headstart.errors import DataError, HeadstartError, OptionError, one_line, shell_word
from headstart.files import open_regular, write_atomic
from headstart.studio.class_list import ClassList, read_class_list, write_class_list
from headstart.studio.label_sets import accepted_labels, labelled_item, names_in_cells, summary_of
from headstart.studio.listing import Listing, list_folder
from headstart.studio.moves import HIDDEN, free_path, is_inside, recover_moves
from headstart.studio.records import ACCEPTED, MAX_CLASSES, MAX_IMAGES, ImageRecord
from headstart.studio.state import Records, State
from headstart.studio.table import (
    TableRow,
    TableRows,
    check_readable,
    read_label_sets,
    read_labels,
    says_several,
    table_file,
)

FOUND_TABLE = "labels-as-found.csv"
LOCK = "lock.sqlite"
ID_LENGTH = 32  # hexadecimal digits of the SHA-256
BLOCK = 2**20  # bytes that are hashed at a time

NOT_IMAGES = {"model.onnx": "a model", "parity.json": "an export", "features.json": "features"}  # by a file of theirs


def check_folder(folder: Path, multi_label: bool | None = None) -> bool:
    """Check that a folder may be a project, before anything is written or computed: it is new, or one of images.

    Returns whether its images may have several labels each: as the project was begun, else as ``multi_label`` says,
    else as its table has them, which lies beside the folder or in it. Raises OptionError for a table, a model, and
    where ``multi_label`` says otherwise than the project; DataError where what the project is cannot be read.
    """
    if folder.is_file():
        raise OptionError(f"{folder} is not a folder; give the folder of the images.")
    for name, what in NOT_IMAGES.items():
        if (folder / name).is_file():
            mend = f"headstart serve {shell_word(folder)} tries it" if what == "a model" else "give another one"
            raise OptionError(f"{folder} holds {what}, and the studio labels a folder of images; {mend}.")
    begun = read_class_list(folder)
    if begun is not None:  # whatever its table looks like
        if multi_label is not None and multi_label != begun.multi_label:
            raise OptionError(_other_kind(folder, begun))
        return begun.multi_label
    if multi_label:
        return True
    table = table_file(folder)
    place = table if table.is_file() else folder
    is_several = (table.is_file() or _has_tables(folder)) and (says_several(place) or _has_several_labels(place))
    if is_several and multi_label is False:
        raise OptionError(f"{place} has several labels an image; leave --single-label out.")
    return is_several


def _other_kind(folder: Path, begun: ClassList) -> str:
    if begun.multi_label:
        return f"{folder} is a project of several labels an image; leave --single-label out."
    return (
        f"{folder} is a project of one class an image; to begin one of several labels with its table, move "
        f"{folder / HIDDEN} elsewhere (an empty cell of the table then says that no label holds)."
    )


def _keep_found(folder: Path) -> list[str]:
    """Keep a table of other columns than the studio writes as it was found, beside those that were found before.

    Returns lines that the user must see. Raises OSError.
    """
    table = table_file(folder)
    kept = _copy_of(folder, table)
    return [f"{table} is written anew with the first change; as it was found it is kept in {kept}."]


def _copy_of(folder: Path, table: Path) -> Path:
    data = table.read_bytes()
    stem, ending = FOUND_TABLE.rsplit(".", 1)
    same = [file for file in sorted((folder / HIDDEN).glob(f"{stem}*.{ending}")) if file.read_bytes() == data]
    if same:
        return same[0]
    kept = folder / free_path(folder, f"{HIDDEN}/{FOUND_TABLE}")
    write_atomic(kept, data)
    return kept


def _has_tables(folder: Path) -> bool:
    return folder.is_dir() and any(is_table(entry.name) for entry in folder.iterdir())


def _summary(folder: Path, state: State) -> str:
    items = [labelled_item(Item(r.path, None, r.split), r.labels) for r in state.records.values()]
    return f"{folder.name} is {summary_of(items, state.classes)}."


def _has_several_labels(path: Path) -> bool:
    """Return whether a dataset has several labels an image; what cannot be read is refused by others."""
    dataset: Dataset | None = None
    with suppress(HeadstartError):
        dataset = open_dataset(path)
    return dataset is not None and dataset.is_multi_label


@dataclass(frozen=True)
class OpenedProject:
    """What a project is when it is opened: its state, where new images go, and notes."""

    state: State
    root: str
    notes: list[str]


def read_project(folder: Path, version: int, *, multi_label: bool) -> OpenedProject:
    """Read the table and the folder; what an interrupted run has left is put right first.

    Raises DataError, OptionError, OSError.
    """
    table = TableRows({}, (), ())
    if multi_label:
        table = read_label_sets(folder)
    elif os.path.lexists(table_file(folder)):
        table = read_labels(table_file(folder), folder.name)
    rows, notes = table.rows, [*table.notes]
    begun = read_class_list(folder)
    recovered = recover_moves(folder, rows)
    if recovered:
        notes.append(f"{recovered} files were moved back or on, since the last run was stopped in between.")
    listing = list_folder(folder, multi_label=multi_label)
    stored = None if begun is None else begun.classes
    names = _all_names(table, listing, stored, multi_label=multi_label)
    check_readable(table_file(folder), names, multi_label=multi_label)
    if begun is None:  # said before the images are read, which may take minutes and be interrupted
        write_class_list(folder, None, multi_label=multi_label)
    records, missing, found_notes = read_records(folder, rows, listing, multi_label=multi_label)
    notes += [*listing.notes, *found_notes]
    labels = {record.label for record in records.values() if record.label is not None}
    cells = [record.labels for record in (*records.values(), *missing.values())]
    labels |= {*names_in_cells(cells), *table.names}
    folders = () if multi_label and (rows or not labels) else listing.folders
    classes = tuple(dict.fromkeys((*(folders if stored is None else stored), *sorted(labels))))
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"{folder} has more than {MAX_CLASSES:,} {'labels' if multi_label else 'classes'}; use headstart fit."
        )
    state = State(version, records, classes, missing)
    if multi_label:
        notes.append(_summary(folder, state))
    if multi_label and begun is None and rows and not classes:
        notes.append(
            f"{table_file(folder).name} names no label, since no image has one; of those that you make now it is "
            "not known whether its images have them."
        )
    if stored is not None or multi_label:  # also what an interrupted change has left; else the folders have the classes
        write_class_list(folder, classes, multi_label=multi_label)
    notes += _keep_found(folder) if table.has_more else []
    return OpenedProject(state, listing.root, notes)


def _all_names(table: TableRows, listing: Listing, stored: tuple[str, ...] | None, *, multi_label: bool) -> list[str]:
    """Return the names of all classes, or labels, that the table may come to hold, sorted."""
    rows = table.rows.values()
    names = {row.label for row in rows} | {*names_in_cells(row.labels for row in rows), *table.names, *(stored or ())}
    if not (multi_label and rows):  # else no folder gives a label
        names |= {*(item.label for item in listing.items), *(listing.folders if stored is None else ())}
    return sorted(name for name in names if name)


def read_records(
    folder: Path, rows: Mapping[str, TableRow], listing: Listing, *, multi_label: bool = False
) -> tuple[Records, Records, list[str]]:
    """Return the images in the order of the table, those that it does not name behind them.

    Also the rows whose files are not there, by "/" and their paths, and lines that the user must see. Of several labels
    an image each begins with that of its folder, but where there is a table, whose images alone are labelled. Raises
    DataError for too many images.
    """
    listed = {item.path: item for item in listing.items}

    def is_there(path: str) -> bool:
        return path in listed or ((folder / path).is_file() and is_inside(folder, path))

    present = {path: row for path, row in rows.items() if is_there(path)}
    gone = [path for path in rows if path not in present]
    new = [path for path in listed if path not in rows]
    if len(present) + len(new) > MAX_IMAGES:
        raise DataError(f"{folder} has more than {MAX_IMAGES:,} images; use headstart fit.")
    notes = []
    if gone:
        notes.append(f"{len(gone)} files of the table are not there ({gone[0]}).")
    if rows and new:
        what = "are not labelled yet" if multi_label else "have the labels of their folders"
        notes.append(f"{len(new)} images that the table does not name {what}.")
    records: Records = {}
    for path in (*present, *new):
        item, row = listed.get(path), present.get(path)
        folder_label = None if item is None or multi_label else item.label
        try:
            id = _free_id(_file_hash(folder / path), records)
        except OSError as error:
            notes.append(f"{path} cannot be read ({one_line(error)}); it is left out.")
            gone += [] if row is None else [path]  # its label is kept
            continue
        if row is not None:
            records[id] = replace(_record_of(row, id, multi_label=multi_label), folder_label=folder_label)
        elif item is not None:
            cell = LabelCell((item.label,)) if multi_label and item.label is not None and not rows else None
            records[id] = ImageRecord(id, path, folder_label, folder_label, None, item.split, labels=cell)
    missing = {f"/{path}": _record_of(rows[path], f"/{path}", multi_label=multi_label) for path in gone}
    return records, missing, notes


def _record_of(row: TableRow, id: str, *, multi_label: bool) -> ImageRecord:
    accepted = accepted_labels(row.action) if multi_label else ()
    kept = (row.finding, row.why, row.labels, accepted)
    return ImageRecord(id, row.path, row.label, None, row.group, row.split, row.action == ACCEPTED, *kept)


def lock_folder(folder: Path) -> sqlite3.Connection:
    """Take the lock of a project, which the system lets go when the process ends. Raises OptionError."""
    guard = sqlite3.connect(folder / HIDDEN / LOCK, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        guard.execute("BEGIN EXCLUSIVE")
    except sqlite3.DatabaseError as error:
        guard.close()
        raise OptionError(
            f"{folder} is open in another studio, or cannot be locked ({error}); close that one."
        ) from None
    return guard


def _file_hash(path: Path) -> str:
    sha256 = hashlib.sha256()
    with open_regular(path) as stream:
        while block := stream.read(BLOCK):
            sha256.update(block)
    return sha256.hexdigest()[:ID_LENGTH]


def _free_id(id: str, records: Records) -> str:
    number, free = 1, id
    while free in records:
        number += 1
        free = f"{id}-{number}"
    return free
