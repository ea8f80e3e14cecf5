"""A folder as a project: its labels in a table beside it, changed in steps that are on the disk before they count.

    photos/ants/1.jpg       the images, which stay where they are
    photos-labels.csv       their labels, groups and splits: the format of the fix list
    photos/.studio/         the trash, the names of the classes, the lock

Every change writes the whole table and flushes it to the disk before it is acknowledged, so that a kill at any moment
loses no label. The files themselves are moved by "apply to folders", by deleting (to the trash) and by undoing either.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.data.reading import read_file
from headstart.errors import OptionError
from headstart.files import to_json, write_atomic
from headstart.studio.listing import label_position, list_folder
from headstart.studio.moves import HIDDEN, TRASH, Move, forget_moves, free_path, is_inside, make_moves, recover_moves
from headstart.studio.opening import (
    CLASSES,
    ID_LENGTH,
    Records,
    check_folder,
    lock_folder,
    read_records,
    stored_classes,
)
from headstart.studio.records import MAX_CLASSES, MAX_IMAGES, ImageRecord, check_class_name
from headstart.studio.table import TableRow, read_labels, table_file, write_labels

MAX_UNDO = 500  # steps


class StaleVersionError(Exception):
    """A change was asked for by someone who has not seen the last one."""


class NothingToUndoError(Exception):
    """No change is left that could be undone."""


class NotFoundError(KeyError):
    """There is nothing of the name in the address or in the body of a request: "image 3f", "class ants"."""


class ClassExistsError(OptionError):
    """There is a class of a name already, up to the case of its letters: some systems have one folder for both."""


@dataclass(frozen=True)
class State:
    """What is known at one moment; never changed, only replaced. ``records`` are by id, the newest last."""

    version: int
    records: Records
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Step:
    """What a change was, and what takes it back: the records before it (None: there was none) and the classes."""

    what: str
    before: dict[str, ImageRecord | None]
    classes: tuple[str, ...]


class Project:
    """A project that is open in this process, which alone may write it. Methods are safe with several threads.

    ``state`` is replaced by every change. A method that changes something takes the version that the caller has seen,
    None for one that does not depend on it, and raises StaleVersionError for another.
    """

    def __init__(self, folder: str | os.PathLike[str], version: int = 1) -> None:
        """Open or begin a project. Raises OptionError where it is open already, DataError, OSError."""
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100  # resolve() would follow links that users put there
        self.table = table_file(self.folder)
        self.notes: list[str] = []
        self.missing: tuple[TableRow, ...] = ()  # rows whose files are not there; they stay in the table
        self._steps: list[_Step] = []
        self._lock = threading.RLock()
        check_folder(self.folder)
        parent = self.folder.parent
        if parent == self.folder or (parent.exists() and not os.access(parent, os.W_OK)):
            raise OptionError(
                f"{self.table} cannot be written, which keeps the labels; choose a folder in one of yours."
            )
        if (self.folder / HIDDEN).is_symlink():
            raise OptionError(f"{self.folder / HIDDEN} is a link; remove it, so that nothing is written elsewhere.")
        (self.folder / HIDDEN).mkdir(parents=True, exist_ok=True)
        self._guard = lock_folder(self.folder)
        try:
            self.state = self._read(version)
        except BaseException:
            self._guard.close()
            raise

    def close(self) -> None:
        """Let others open the project."""
        self._guard.close()

    def read(self, record: ImageRecord) -> bytes:
        """Return the bytes of an image. Raises ImageError."""
        return read_file(str(self.folder / record.path))

    @property
    def undo_text(self) -> str | None:
        """What the last change was, None where there is nothing to undo."""
        return self._steps[-1].what if self._steps else None

    @property
    def trash_count(self) -> int:
        """How many files lie in the trash."""
        return sum(len(names) for _, _, names in os.walk(self.folder / TRASH))

    def add(self, data: bytes, suffix: str, label: str, group: str | None) -> tuple[ImageRecord, bool]:
        """Add an image to a class; return its record, and False where the same bytes were there already.

        Raises OptionError for an unknown class or too many images, OSError.
        """
        added, known = self.add_many([(data, suffix, label, group)])
        return (added or known)[0], bool(added)

    def add_many(
        self, images: Iterable[tuple[bytes, str, str, str | None]], what: str = ""
    ) -> tuple[list[ImageRecord], list[ImageRecord]]:
        """Add images (bytes, ending, class, group) in one step; classes that are new begin with them.

        Returns the records of those that are new and of those whose bytes were there already.
        """
        with self._lock:
            new: Records = {}
            known, classes = [], list(self.state.classes)
            try:
                for data, suffix, label, group in images:
                    id = hashlib.sha256(data).hexdigest()[:ID_LENGTH]
                    if id in new or id in self.state.records:
                        known.append(new.get(id) or self.state.records[id])
                        continue
                    if label not in classes:
                        classes.append(_new_class_name(label, classes))
                    if len(new) + len(self.state.records) >= MAX_IMAGES or len(classes) > MAX_CLASSES:
                        raise OptionError(f"A project has at most {MAX_IMAGES:,} images and {MAX_CLASSES:,} classes.")
                    path = self._write_image(data, label, f"{id[:16]}{suffix}")
                    new[id] = ImageRecord(id, path, label, label, group)
                if new:
                    text = what or f"Added {_images([*new])} to {next(iter(new.values())).label}"
                    self._commit(text, {**self.state.records, **new}, tuple(classes), [*new])
            except BaseException:
                for record in new.values():
                    (self.folder / record.path).unlink(missing_ok=True)
                raise
            return list(new.values()), known

    def relabel(self, version: int | None, ids: Sequence[str], label: str) -> int:
        """Give images another label; return how many had a different one. Raises NotFoundError for an unknown image."""
        with self._lock:
            self._check(version)
            if label not in self.state.classes:
                raise OptionError(f"There is no class {label!r}; make it first.")
            changed = [record for record in self._records_of(ids) if record.label != label]
            self._change(f"Relabelled {_images(changed)} to {label}", changed, label=label, is_accepted=False)
            return len(changed)

    def accept(self, version: int | None, ids: Sequence[str]) -> int:
        """Note that labels were looked at and are right; return how many were not accepted before."""
        with self._lock:
            self._check(version)
            changed = [r for r in self._records_of(ids) if not r.is_accepted and r.label is not None]
            self._change(f"Accepted the labels of {_images(changed)}", changed, is_accepted=True)
            return len(changed)

    def delete(self, version: int | None, ids: Sequence[str]) -> int:
        """Move images to the trash in the project. Raises NotFoundError, OSError."""
        with self._lock:
            self._check(version)
            deleted = self._records_of(ids)
            records = {id: record for id, record in self.state.records.items() if id not in set(ids)}
            if deleted:
                gone = [record.id for record in deleted]
                self._commit(f"Deleted {_images(deleted)}", records, self.state.classes, gone)
            return len(deleted)

    def add_class(self, version: int | None, name: str) -> str:
        """Begin a class: a name, and an empty folder. Returns the name. Raises OptionError."""
        with self._lock:
            self._check(version)
            name = _new_class_name(name, self.state.classes)
            if len(self.state.classes) >= MAX_CLASSES:
                raise OptionError(f"A project has at most {MAX_CLASSES:,} classes.")
            (self.folder / self._root / name).mkdir(parents=True, exist_ok=True)
            self._commit(f"New class {name}", self.state.records, (*self.state.classes, name), [])
            return name

    def rename_class(self, version: int | None, name: str, to: str) -> int:
        """Give a class another name; return how many images it has. Raises OptionError, NotFoundError."""
        with self._lock:
            self._check(version)
            if name not in self.state.classes:
                raise NotFoundError(f"class {name}")
            to = check_class_name(to)
            if to == name:
                raise ClassExistsError(f"The class is called {name!r} already.")
            to = _new_class_name(to, [known for known in self.state.classes if known != name])
            changed = {id: replace(r, label=to) for id, r in self.state.records.items() if r.label == name}
            classes = tuple(to if known == name else known for known in self.state.classes)
            (self.folder / self._root / to).mkdir(parents=True, exist_ok=True)
            self._commit(f"Renamed {name} to {to}", {**self.state.records, **changed}, classes, [*changed])
            return len(changed)

    def apply(self, version: int | None) -> tuple[int, list[tuple[str, str]]]:
        """Move files to the folders of their labels; return how many, and the path of each that stays, with the reason.

        Raises OSError, and then no file has moved.
        """
        with self._lock:
            self._check(version)
            records, taken = dict(self.state.records), {record.path for record in self.state.records.values()}
            moved, kept = [], []
            for record in self.state.records.values():
                if not record.is_moved:
                    continue
                if not (self.folder / record.path).is_file():
                    kept.append((record.path, "The file is not there any more."))
                    continue
                path = free_path(self.folder, self._path_for_label(record), taken)
                taken.add(path)
                records[record.id] = replace(record, path=path, folder_label=record.label)
                moved.append(record.id)
            if moved:
                self._commit(
                    f"Moved {len(moved)} files to the folders of their labels", records, self.state.classes, moved
                )
            return len(moved), kept

    def undo(self, version: int | None) -> str:
        """Take back the last change and return what it was. Raises NothingToUndoError, OSError."""
        with self._lock:
            self._check(version)
            if not self._steps:
                raise NothingToUndoError
            step = self._steps[-1]
            records = dict(self.state.records)
            for id, before in step.before.items():
                if before is None:
                    records.pop(id, None)
                else:
                    records[id] = before
            self._save(records, step.classes, step.before)
            self._steps.pop()
            return step.what

    def _records_of(self, ids: Sequence[str]) -> list[ImageRecord]:
        try:
            return [self.state.records[id] for id in dict.fromkeys(ids)]
        except KeyError as error:
            raise NotFoundError(f"image {error.args[0]}") from None

    def _change(self, what: str, records: Sequence[ImageRecord], **values: object) -> None:
        if records:
            changed = {record.id: replace(record, **values) for record in records}  # type: ignore[arg-type]
            self._commit(what, {**self.state.records, **changed}, self.state.classes, [*changed])

    def _commit(self, what: str, records: Records, classes: tuple[str, ...], ids: Sequence[str]) -> None:
        """Make a change that can be undone. ``ids`` are the images that it is about."""
        step = _Step(what, {id: self.state.records.get(id) for id in ids}, self.state.classes)
        self._save(records, classes, ids)
        self._steps = [*self._steps[1 - MAX_UNDO :], step]

    def _save(self, records: Records, classes: tuple[str, ...], ids: Iterable[str]) -> None:
        """Move the files whose place changes, write the table, and only then let the change count."""
        moves = self._moves(records, ids)
        if moves:
            make_moves(self.folder, moves)
        try:
            if classes != self.state.classes:
                write_atomic(self.folder / HIDDEN / CLASSES, to_json({"classes": classes}))
            self._write_table(records)
        except BaseException:
            for source, target in reversed(moves):
                (self.folder / target).rename(self.folder / source)
            forget_moves(self.folder)
            raise
        if moves:
            forget_moves(self.folder)
        self.state = State(self.state.version + 1, records, classes)

    def _moves(self, records: Records, ids: Iterable[str]) -> list[Move]:
        """Return the moves by which the files of some images get from where they are to where they belong."""
        moves = []
        for id in ids:
            old, new = self.state.records.get(id), records.get(id)
            if old is not None and new is None:
                moves.append((old.path, free_path(self.folder, f"{TRASH}/{old.id}/{old.path}")))
            elif new is not None and old is None and not os.path.lexists(self.folder / new.path):
                moves.append((self._in_trash(new), new.path))
            elif old is not None and new is not None and old.path != new.path:
                moves.append((old.path, new.path))
        return moves

    def _in_trash(self, record: ImageRecord) -> str:
        """Return where a deleted file lies: the last of those with its name. Raises OSError."""
        name = f"{TRASH}/{record.id}/{record.path}"
        found = [path for path in (self.folder / name).parent.glob("*") if path.is_file()]
        if not found:
            raise FileNotFoundError(f"{record.path} is not in the trash any more")
        return max(found, key=lambda path: path.stat().st_ctime_ns).relative_to(self.folder).as_posix()

    def _write_table(self, records: Records) -> None:
        rows = [ImageRecord("", r.path, r.label, None, r.group, r.split, False, r.finding, r.why) for r in self.missing]
        write_labels(self.table, self.folder.name, [*records.values(), *rows])

    def _write_image(self, data: bytes, label: str, name: str) -> str:
        """Write the file of a new image into the folder of its class, and return its path."""
        parent = f"{self._root}/{label}" if self._root else label
        path = free_path(self.folder, f"{parent}/{name}")
        target = self.folder / path
        if not is_inside(self.folder, parent):
            raise OSError(f"The folder {parent} is a link out of the project")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data)
        return path

    def _path_for_label(self, record: ImageRecord) -> str:
        """Return the path of an image in the folder of its label."""
        parts = record.path.split("/")
        position = None if record.folder_label is None else label_position(record.path, record.folder_label)
        if position is None:
            return "/".join(part for part in (self._root, str(record.label), parts[-1]) if part)
        return "/".join((*parts[:position], str(record.label), *parts[position + 1 :]))

    def _check(self, version: int | None) -> None:
        if version is not None and version != self.state.version:
            raise StaleVersionError

    def _read(self, version: int) -> State:
        """Read the table and the folder; what an interrupted run has left is put right first."""
        rows = read_labels(self.table, self.folder.name) if os.path.lexists(self.table) else {}
        recovered = recover_moves(self.folder, rows)
        if recovered:
            self.notes.append(f"{recovered} files were moved back or on, since the last run was stopped in between.")
        listing = list_folder(self.folder)
        self._root = listing.root
        self.notes += listing.notes
        records, self.missing, notes = read_records(self.folder, rows, listing)
        self.notes += notes
        stored = stored_classes(self.folder / HIDDEN / CLASSES)
        labels = [record.label for record in records.values() if record.label is not None]
        named = listing.folders if stored is None else stored
        return State(version, records, tuple(dict.fromkeys((*named, *sorted(set(labels))))))


def _new_class_name(name: str, others: Iterable[str]) -> str:
    """Return the name of a class that is to be beside ``others``. Raises OptionError."""
    name = check_class_name(name)
    for other in others:
        if other.casefold() == name.casefold():
            raise ClassExistsError(f"There is a class {other!r} already; give another name, or relabel the images.")
    return name


def _images(records: Sequence[object]) -> str:
    return f"{len(records)} image{'' if len(records) == 1 else 's'}"
