"""The kind of a project and the names of its classes, in a file that fits the table at any moment.

    {"multi_label":true}                                        a project that has been begun
    {"multi_label":true,"classes":["beach","dog"]}              its classes in their order
    {..., "before":["beach"],"table":"9f..."}                   while a change of both is under way

A label that the table never names is absent of all labelled images where the list has it. So after a kill between the
two files the list must be that of the table: ``table`` is the SHA-256 of the table that ``before`` belongs to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import DataError, one_line
from headstart.files import encode, open_regular, read_json, to_json, write_atomic
from headstart.studio.moves import HIDDEN
from headstart.studio.records import is_folder_name
from headstart.studio.table import table_file

CLASSES = "classes.json"
LIMIT = 64 * 2**20  # bytes


@dataclass(frozen=True)
class ClassList:
    """Whether images may have several labels, and the names of the classes; None where the folders have them."""

    multi_label: bool
    classes: tuple[str, ...] | None


def read_class_list(folder: Path) -> ClassList | None:
    """Return what a project is, None where it has not been begun. Raises DataError for a file that cannot be used."""
    file = folder / HIDDEN / CLASSES
    try:
        stored = read_json(file, LIMIT)
        is_several = stored.get("multi_label", False)
        if not isinstance(is_several, bool):
            raise ValueError("multi_label is neither true nor false")
        names = _names(stored, "classes", is_several)
        if "before" in stored and stored.get("table") == table_hash(folder):
            names = _names(stored, "before", is_several)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be used ({one_line(error)}); it says whether an image may have several labels. Correct it, "
            "or move it away, and the project is begun anew with its table."
        ) from None
    return ClassList(is_several, names)


def write_class_list(
    folder: Path, classes: Sequence[str] | None, *, multi_label: bool, before: Sequence[str] | None = None
) -> None:
    """Write what a project is. ``before`` are the classes as long as the table is what it is now. Raises OSError."""
    values: dict[str, object] = {"multi_label": multi_label}
    values |= {} if classes is None else {"classes": classes}
    values |= {} if before is None else {"before": before, "table": table_hash(folder)}
    write_atomic(folder / HIDDEN / CLASSES, to_json(values))


def table_hash(folder: Path) -> str:
    """Return the SHA-256 of the table in hexadecimal digits, "" where there is none. Raises OSError."""
    with suppress(FileNotFoundError), open_regular(table_file(folder)) as stream:
        return hashlib.sha256(stream.read()).hexdigest()
    return ""


def text_hash(text: str) -> str:
    """Return the ``table_hash`` of a table that is this text."""
    return hashlib.sha256(encode(text)).hexdigest()


def _names(stored: dict[str, Any], key: str, is_several: bool) -> tuple[str, ...] | None:
    """Return names of classes. Raises ValueError."""
    names = stored.get(key)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{key} is no list of names")
    if not is_several and not all(map(is_folder_name, names)):  # labels of several are no folders
        raise ValueError(f"{key} has a name that no folder can have")
    return tuple(dict.fromkeys(names))
