"""Opening a project: its lock, the names of its classes, and its images as the table and the folder have them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from headstart.check.table import COLUMNS
from headstart.data import Dataset, open_dataset
from headstart.data.table_files import is_table, read_table
from headstart.errors import DataError, HeadstartError, OptionError, one_line
from headstart.files import open_regular, read_json
from headstart.studio.listing import Listing
from headstart.studio.moves import HIDDEN, is_inside
from headstart.studio.records import ACCEPTED, MAX_CLASSES, MAX_IMAGES, ImageRecord, is_folder_name
from headstart.studio.table import TableRow, table_file

CLASSES = "classes.json"
LOCK = "lock.sqlite"
ID_LENGTH = 32  # hexadecimal digits of the SHA-256
BLOCK = 2**20  # bytes that are hashed at a time

NOT_IMAGES = {"model.onnx": "a model", "parity.json": "an export", "features.json": "features"}  # by a file of theirs

Records = dict[str, ImageRecord]


def check_folder(folder: Path) -> None:
    """Check that a folder may be a project, before anything is written or computed: it is new, or one of images.

    Raises OptionError for a table, a model, and for images that have several labels each.
    """
    if folder.is_file():
        _refuse_several_labels(folder, str(folder))
        raise OptionError(f"{folder} is not a folder; give the folder of the images.")
    for name, what in NOT_IMAGES.items():
        if (folder / name).is_file():
            mend = f"headstart serve {folder} tries it" if what == "a model" else "give another one"
            raise OptionError(f"{folder} holds {what}, and the studio labels a folder of images; {mend}.")
    table = table_file(folder)
    if table.is_file() and not _is_of_studio(table):
        _refuse_several_labels(table, str(table))
    if folder.is_dir() and any(is_table(entry.name) for entry in folder.iterdir()):
        _refuse_several_labels(folder, f"{folder}, by the table in it,")


def _is_of_studio(table: Path) -> bool:
    """Return whether the studio, or a check, wrote a table: then each of its labels is one class, whatever its name."""
    try:
        return set(COLUMNS) <= set(read_table(str(table)).columns)
    except HeadstartError:
        return False


def _refuse_several_labels(path: Path, name: str) -> None:
    """Raise OptionError where a dataset has several labels an image; what cannot be read is refused by others."""
    dataset: Dataset | None = None
    with suppress(HeadstartError):
        dataset = open_dataset(path)
    if dataset is not None and dataset.is_multi_label:
        raise OptionError(
            f"{name} has several labels an image, and the studio gives each image one class; write the labels into "
            "the table and fit it (headstart fit TABLE -o model)."
        )


def read_records(
    folder: Path, rows: Mapping[str, TableRow], listing: Listing
) -> tuple[Records, tuple[TableRow, ...], list[str]]:
    """Return the images in the order of the table, those that it does not name behind them.

    Also the rows whose files are not there, and lines that the user must see. Raises DataError for too many images.
    """
    listed = {item.path: item for item in listing.items}

    def is_there(path: str) -> bool:
        return path in listed or ((folder / path).is_file() and is_inside(folder, path))

    present = {path: row for path, row in rows.items() if is_there(path)}
    missing = tuple(row for path, row in rows.items() if path not in present)
    new = [path for path in listed if path not in rows]
    if len(present) + len(new) > MAX_IMAGES:
        raise DataError(f"{folder} has more than {MAX_IMAGES:,} images; use headstart fit.")
    notes = []
    if missing:
        notes.append(f"{len(missing)} files of the table are not there ({missing[0].path}).")
    if rows and new:
        notes.append(f"{len(new)} images that the table does not name have the labels of their folders.")
    records: Records = {}
    for path in (*present, *new):
        item, row = listed.get(path), present.get(path)
        folder_label = None if item is None else item.label
        try:
            id = _free_id(_file_hash(folder / path), records)
        except OSError as error:
            notes.append(f"{path} cannot be read ({one_line(error)}); it is left out.")
            missing += () if row is None else (row,)  # its label is kept
            continue
        if row is not None:
            is_accepted = row.action == ACCEPTED
            records[id] = ImageRecord(
                *(id, path, row.label, folder_label, row.group, row.split, is_accepted, row.finding, row.why)
            )
        elif item is not None:
            records[id] = ImageRecord(id, path, folder_label, folder_label, None, item.split)
    return records, missing, notes


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


def stored_classes(file: Path) -> list[str] | None:
    """Return the names of the classes in their order, None where none are stored or they cannot be used."""
    with suppress(OSError, ValueError):
        names = read_json(file, 2**20).get("classes")
        if isinstance(names, list) and all(isinstance(name, str) and is_folder_name(name) for name in names):
            return names[:MAX_CLASSES]
    return None


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
