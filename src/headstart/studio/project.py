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
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from headstart.data.label_cells import LabelCell
from headstart.data.reading import read_file
from headstart.errors import ImageError, OptionError
from headstart.files import write_atomic
from headstart.studio.class_list import table_hash, text_hash, write_class_list
from headstart.studio.label_sets import (
    KEEP,
    PRESENT,
    names_in_cells,
    state_of,
    states_text,
    with_accepted,
    with_label_renamed,
    with_new_labels,
    with_record_states,
)
from headstart.studio.listing import path_for_label
from headstart.studio.moves import HIDDEN, TRASH, forget_moves, free_path, is_inside, make_moves, moves_between
from headstart.studio.opening import ID_LENGTH, check_folder, lock_folder, read_project
from headstart.studio.records import (
    MAX_CLASSES,
    MAX_IMAGES,
    ClassExistsError,
    ImageRecord,
    check_class_name,
    check_new_name,
)
from headstart.studio.state import (
    NotFoundError,
    NothingToUndoError,
    Records,
    StaleVersionError,
    State,
    Step,
)
from headstart.studio.table import check_readable, labels_text, table_file, write_labels

MAX_UNDO = 500  # steps


class Project:
    """A project that is open in this process, which alone may write it. Methods are safe with several threads.

    ``state`` is replaced by every change. A method that changes something takes the version that the caller has seen,
    None for one that does not depend on it, and raises StaleVersionError for another. ``multi_label`` says whether
    images may have several labels: then the classes are these labels, and no folder means one.
    """

    def __init__(self, folder: str | os.PathLike[str], version: int = 1, *, multi_label: bool | None = None) -> None:
        """Open or begin a project; ``multi_label`` is that of ``check_folder``.

        Raises OptionError where it is open already, DataError, OSError.
        """
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100  # resolve() would follow links that users put there
        self.table = table_file(self.folder)
        self._steps: list[Step] = []
        self._lock = threading.RLock()
        self.multi_label = check_folder(self.folder, multi_label)
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
            self._table_hash = table_hash(self.folder)  # of the table as this process has read or written it
            found = read_project(self.folder, version, multi_label=self.multi_label)
            self.state, self._root, self.notes = found.state, found.root, found.notes
            self._listed: tuple[str, ...] | None = found.state.classes  # the classes that are stored, None where unsure
        except BaseException:
            self._guard.close()
            raise

    def close(self) -> None:
        """Let others open the project."""
        self._guard.close()

    def read(self, record: ImageRecord) -> bytes:
        """Return the bytes of an image. Raises ImageError, also where its file has other bytes by now."""
        data = read_file(str(self.folder / record.path))
        if hashlib.sha256(data).hexdigest()[:ID_LENGTH] != record.id.partition("-")[0]:
            raise ImageError("Its file has changed since the studio was started; start it again to see what is there.")
        return data

    @property
    def word(self) -> str:
        """What the messages call a class."""
        return "label" if self.multi_label else "class"

    @property
    def undo_text(self) -> str | None:
        """What the last change was, None where there is nothing to undo."""
        return self._steps[-1].what if self._steps else None

    @property
    def trash_count(self) -> int:
        """How many files lie in the trash."""
        return sum(len(names) for _, _, names in os.walk(self.folder / TRASH))

    def add(
        self, data: bytes, suffix: str, label: str | tuple[str, ...], group: str | None
    ) -> tuple[ImageRecord, bool]:
        """Add an image to a class; return its record, and False where the same bytes were there already.

        Of several labels an image, ``label`` may be any number of them: none for one that is not labelled yet.

        Raises OptionError for an unknown class or too many images, OSError.
        """
        added, known = self.add_many([(data, suffix, label, group)])
        return (added or known)[0], bool(added)

    def add_many(
        self, images: Iterable[tuple[bytes, str, str | tuple[str, ...], str | None]], what: str = ""
    ) -> tuple[list[ImageRecord], list[ImageRecord]]:
        """Add images (bytes, ending, class, group) in one step; classes that are new begin with them.

        Returns the records of those that are new and of those whose bytes were there already.
        """
        with self._lock:
            new: Records = {}
            known, classes = [], list(self.state.classes)
            words = "labels" if self.multi_label else "classes"
            self._check(None)
            try:
                for data, suffix, label, group in images:
                    id = hashlib.sha256(data).hexdigest()[:ID_LENGTH]
                    if id in new or id in self.state.records:
                        known.append(new.get(id) or self.state.records[id])
                        continue
                    names = (label,) if isinstance(label, str) else label
                    for name in names:
                        if name not in classes:
                            classes.append(check_new_name(name, classes, self.word))
                    if len(new) + len(self.state.records) >= MAX_IMAGES or len(classes) > MAX_CLASSES:
                        raise OptionError(f"A project has at most {MAX_IMAGES:,} images and {MAX_CLASSES:,} {words}.")
                    name = f"{id[:16]}{suffix}"
                    if self.multi_label:
                        cell = LabelCell(tuple(sorted(set(names)))) if names else None
                        new[id] = ImageRecord(id, self._write_image(data, "", name), None, None, group, labels=cell)
                    else:
                        new[id] = ImageRecord(id, self._write_image(data, names[0], name), names[0], names[0], group)
                if new:
                    text = what or f"Added {_images([*new])}{f' to {names[0]}' if names else ''}"
                    known_before = self._with_new_labels(classes[len(self.state.classes) :])
                    self._commit(text, {**known_before, **new}, tuple(classes))
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

    def set_labels(self, version: int | None, ids: Sequence[str], states: Mapping[str, str], others: str = KEEP) -> int:
        """Change labels of images that may have several; return how many images that changes.

        ``states`` are "present", "absent" or "unknown" by label, and ``others`` is that of all other labels, or "keep".
        Raises NotFoundError for an image or a label that there is not.
        """
        with self._lock:
            self._check(version)
            classes = self.state.classes
            for name in states:
                if name not in classes:
                    raise NotFoundError(f"{self.word} {name}")
            records = [(r, with_record_states(r, states, others, classes)) for r in self._records_of(ids)]
            changed = {new.id: new for old, new in records if new.labels != old.labels}
            if changed:
                text = f"{states_text(states, others)}: {_images([*changed])}"
                self._commit(text, changed)
            return len(changed)

    def accept(self, version: int | None, ids: Sequence[str], name: str | None = None) -> int:
        """Note that labels were looked at and are right; return how many were not accepted before.

        Of several labels an image they are all of it, or the one called ``name``. Raises NotFoundError.
        """
        with self._lock:
            self._check(version)
            changed = [r for r in self._records_of(ids) if not r.is_accepted and r.is_labelled]
            text = f"Accepted {'the labels' if name is None else name} of {_images(changed)}"
            if self.multi_label:
                classes = self.state.classes
                if name is not None and name not in classes:
                    raise NotFoundError(f"{self.word} {name}")
                changed = [r for r in changed if name is None or name not in r.accepted]
                accepted = {r.id: with_accepted(r, name, classes) for r in changed}
                if accepted:
                    self._commit(text, accepted)
            else:
                self._change(text, changed, is_accepted=True)
            return len(changed)

    def delete(self, version: int | None, ids: Sequence[str]) -> int:
        """Move images to the trash in the project. Raises NotFoundError, OSError."""
        with self._lock:
            self._check(version)
            deleted = self._records_of(ids)
            if deleted:
                self._commit(f"Deleted {_images(deleted)}", dict.fromkeys(record.id for record in deleted))
            return len(deleted)

    def add_class(self, version: int | None, name: str) -> str:
        """Begin a class: a name, and an empty folder. Returns the name. Raises OptionError."""
        with self._lock:
            self._check(version)
            name = check_new_name(name, self.state.classes, self.word)
            if len(self.state.classes) >= MAX_CLASSES:
                raise OptionError(
                    f"A project has at most {MAX_CLASSES:,} {self.word}{'s' if self.multi_label else 'es'}."
                )
            self._make_folder(name)
            records = self._with_new_labels([name])
            what = f"New {self.word} {name}"
            self._commit(what, records, (*self.state.classes, name))
            return name

    def rename_class(self, version: int | None, name: str, to: str) -> int:
        """Give a class another name; return how many images it has. Raises OptionError, NotFoundError."""
        with self._lock:
            self._check(version)
            if name not in self.state.classes:
                raise NotFoundError(f"{self.word} {name}")
            if check_class_name(to, self.word) == name:
                raise ClassExistsError(f"The {self.word} is called {name!r} already.")
            to = check_new_name(to, [known for known in self.state.classes if known != name], self.word)
            classes = tuple(to if known == name else known for known in self.state.classes)
            known = {**self.state.records, **self.state.missing}
            if self.multi_label:
                changed = {id: with_label_renamed(r, name, to) for id, r in known.items() if r.is_labelled}
            else:
                changed = {id: replace(r, label=to) for id, r in known.items() if r.label == name}
            self._make_folder(to)
            self._commit(f"Renamed {name} to {to}", changed, classes)
            found = [r for id, r in changed.items() if id in self.state.records]
            return sum(r.label == to or state_of(r.labels, to) == PRESENT for r in found)

    def apply(self, version: int | None) -> tuple[int, list[tuple[str, str]]]:
        """Move files to the folders of their labels; return how many, and the path of each that stays, with the reason.

        Raises OSError, and then no file has moved; OptionError where images have several labels.
        """
        with self._lock:
            self._check(version)
            if self.multi_label:
                raise OptionError(
                    "An image with several labels has no one folder to be moved to; files stay where they are."
                )
            taken = {record.path for records in (self.state.records, self.state.missing) for record in records.values()}
            moved, kept = {}, []
            for record in self.state.records.values():
                if not record.is_moved:
                    continue
                if not (self.folder / record.path).is_file():
                    kept.append((record.path, "The file is not there any more."))
                    continue
                path = free_path(self.folder, path_for_label(record, self._root), taken)
                taken.add(path)
                moved[record.id] = replace(record, path=path, folder_label=record.label)
            if moved:
                self._commit(f"Moved {len(moved)} files to the folders of their labels", moved)
            return len(moved), kept

    def undo(self, version: int | None) -> str:
        """Take back the last change and return what it was. Raises NothingToUndoError, OSError."""
        with self._lock:
            self._check(version)
            if not self._steps:
                raise NothingToUndoError
            step = self._steps[-1]
            self._save(step.before, step.classes)
            self._steps.pop()
            return step.what

    def _records_of(self, ids: Sequence[str]) -> list[ImageRecord]:
        try:
            return [self.state.records[id] for id in dict.fromkeys(ids)]
        except KeyError as error:
            raise NotFoundError(f"image {error.args[0]}") from None

    def _with_new_labels(self, names: Sequence[str]) -> Records:
        """Return the images that change where labels are new: of those that are labelled they are not known."""
        if not self.multi_label or not names:
            return {}
        records, classes = {**self.state.records, **self.state.missing}, self.state.classes
        new = {id: replace(r, labels=with_new_labels(r.labels, names, classes)) for id, r in records.items()}
        return {id: record for id, record in new.items() if record.labels != records[id].labels}

    def _make_folder(self, name: str) -> None:
        """Make the folder of a class, which no label of several has."""
        if not self.multi_label:
            (self.folder / self._root / name).mkdir(parents=True, exist_ok=True)

    def _change(self, what: str, records: Sequence[ImageRecord], **values: object) -> None:
        if records:
            self._commit(what, {r.id: replace(r, **values) for r in records})  # type: ignore[arg-type]

    def _commit(
        self, what: str, changed: Mapping[str, ImageRecord | None], classes: tuple[str, ...] | None = None
    ) -> None:
        """Make a change of images, None for those that are no more, and of the classes; it can be undone."""
        state = self.state
        step = Step(what, {id: state.records.get(id) or state.missing.get(id) for id in changed}, state.classes)
        self._save(changed, state.classes if classes is None else classes)
        self._steps = [*self._steps[1 - MAX_UNDO :], step]

    def _save(self, changed: Mapping[str, ImageRecord | None], classes: tuple[str, ...]) -> None:
        """Move the files whose place changes, write the table, and only then let the change count."""
        after = self.state.after(changed, classes)
        text = self._table_text(after)
        moves = moves_between(self.folder, self.state.records, after.records, changed)
        if moves:
            make_moves(self.folder, moves)
        try:
            self._write(text, classes)
        except BaseException:
            for source, target in reversed(moves):
                (self.folder / target).rename(self.folder / source)
            forget_moves(self.folder)
            raise
        if moves:
            forget_moves(self.folder)
        self.state = after

    def _write(self, text: str, classes: tuple[str, ...]) -> None:
        """Write the table, and the names of the classes in a way that they fit it after a kill or an error between."""
        if classes != self._listed:
            self._listed = None
            is_other = text_hash(text) != self._table_hash
            before = self.state.classes if is_other else None
            write_class_list(self.folder, classes, multi_label=self.multi_label, before=before)
        write_labels(self.table, text)
        self._table_hash = text_hash(text)
        if self._listed is None:
            with suppress(OSError):  # the list fits the table as it is; the next change writes it again
                write_class_list(self.folder, classes, multi_label=self.multi_label)
                self._listed = classes

    def _table_text(self, state: State) -> str:
        everything = [*state.records.values(), *state.missing.values()]
        labels = names_in_cells(record.labels for record in everything) if self.multi_label else None
        if labels is None:  # also of rows whose files are gone, whose classes no page shows
            check_readable(self.table, sorted({r.label for r in everything if r.label}), multi_label=False)
        return labels_text(self.folder.name, everything, labels)

    def _write_image(self, data: bytes, label: str, name: str) -> str:
        """Write the file of a new image into the folder of its class, where it has one, and return its path."""
        parent = "/".join(part for part in (self._root, label) if part)
        missing = {record.path for record in self.state.missing.values()}
        path = free_path(self.folder, f"{parent}/{name}" if parent else name, missing)
        target = self.folder / path
        if not is_inside(self.folder, parent):
            raise OSError(f"The folder {parent} is a link out of the project")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data)
        return path

    def _check(self, version: int | None) -> None:
        if version is not None and version != self.state.version:
            raise StaleVersionError
        if table_hash(self.folder) not in (self._table_hash, ""):  # of one that is gone the labels are only here
            raise OptionError(
                f"{self.table.name} was changed by another program, and this change would undo that; stop the studio "
                "and start it again, which reads the table."
            )


def _images(records: Sequence[object]) -> str:
    return f"{len(records)} image{'' if len(records) == 1 else 's'}"
