"""The columns of a table: which of them hold the path, the label, the split and the group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.data.label_cells import cell_text, is_one_hot
from headstart.data.layout import split_name
from headstart.data.reading import ReadOptions
from headstart.data.table_files import Table, column_key
from headstart.errors import DataError, listed, shell_word
from headstart.images.decoding import is_image_name

COLUMNS = {  # names of the columns by role, in any case, with or without the lines between words
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_file"),
        *("image_name", "image_filename", "img", "img_path", "img_name", "picture", "photo", "image_id", "img_id"),
        *("id", "name", "fname", "id_code"),
    ),
    "label": (
        *("label", "labels", "class", "classes", "class_name", "classname", "class_label", "category"),
        *("category_name", "target", "species", "lbl", "label_name", "y", "choice"),
    ),
    "split": ("split", "subset", "set", "partition", "is_valid", "is_validation", "is_test", "is_train"),
    "group": ("group", "group_id", "scene"),
}
MAX_NAMED = 20  # columns


LABEL_KEYS = frozenset(map(column_key, COLUMNS["label"]))


@dataclass(frozen=True)
class Columns:
    """The name of the column of each role, empty where there is none, and the columns of one-hot labels."""

    path: str
    label: str
    split: str
    group: str
    one_hot: tuple[str, ...]


def find_columns(uri: str, table: Table, options: ReadOptions) -> Columns:
    """Return the column of each role. Raises DataError without a path, and for a column that is not there."""
    found = {role: _first(table.columns, aliases) for role, aliases in COLUMNS.items()}
    for role in COLUMNS:
        name = getattr(options, f"{role}_column")
        if name is not None:
            if name not in table.columns:
                raise DataError(f"{uri} has no column {name!r}; it has {listed(table.columns, MAX_NAMED)}.")
            found[role] = name
        same = str.lower if found[role].lower() in COLUMNS[role] else column_key
        alike = [other for other in table.columns if same(other) == same(found[role])]
        is_read = role in ("path", "split") or options.layout != "image"  # of images to predict on alone
        if name is None and found[role] and len(alike) > 1 and is_read:
            option = "--group-by of fit or evaluate" if role == "group" else f"--{role}-column"
            raise DataError(
                f"{uri} has the columns {' and '.join(map(repr, alike))}; rename one of them, or say which it is with "
                f"{option}."
            )
    if not found["path"]:
        if any(is_image_name(name) for name in table.columns):
            raise DataError(
                f"{uri} has no header: its first row is {listed(table.columns, MAX_NAMED)}; write one above, "
                "such as path,label."
            )
        unread = [name for name in table.unread if column_key(name) in map(column_key, COLUMNS["path"])]
        if unread:
            raise DataError(
                f"{uri}: the column {unread[0]!r} holds bytes or numbers; images inside a table are read from a column "
                "of bytes and path, as the Hugging Face Hub has them: write files and their paths, or such a column."
            )
        if len(table.columns) < 2 and options.layout != "image" and not uri.lower().endswith(".parquet"):
            what = f"one column, {table.columns[0]!r}" if table.columns else "an empty first line"
            raise DataError(
                f"{uri} has {what}; expected a first line that names the columns, between "
                "commas, semicolons or tabs, such as path,label."
            )
        raise DataError(
            f"{uri} has no path column; expected one of {', '.join(COLUMNS['path'])}, got "
            f"{listed(table.columns, MAX_NAMED)}; give its name with --path-column."
        )
    one_hot: tuple[str, ...] = ()
    if not found["label"]:
        structured = [name for name in table.unread if column_key(name) in LABEL_KEYS]
        if structured and options.layout != "image":
            raise DataError(
                f"{uri}: the column {structured[0]!r} holds structures; expected texts, numbers or lists of these."
            )
        rest = [name for name in table.columns if name and name not in found.values()]
        if len(rest) > 1 and is_one_hot(table.rows, rest):
            one_hot = tuple(rest)
    return Columns(**found, one_hot=one_hot)


def _first(columns: Sequence[str], aliases: Sequence[str]) -> str:
    """Return the column that is called as the first of some names, empty without one; as it is written comes first."""
    for same in (str.lower, column_key):
        by_key = {same(name): name for name in reversed(columns)}
        for alias in map(same, aliases):
            if alias in by_key:
                return by_key[alias]
    return ""


def other_columns(table: Table, columns: Columns) -> tuple[str, ...]:
    """Return the names of the columns that have no role."""
    roles = {columns.path, columns.label, columns.split, columns.group, *columns.one_hot, ""}
    return tuple(name for name in table.columns if name not in roles)


def column_notes(uri: str, table: Table, columns: Columns, options: ReadOptions) -> list[str]:
    """Name columns that have no role, and may hold the labels or the splits: nobody else would miss them."""
    rest = other_columns(table, columns)
    notes = []
    labels = [name for name in rest if column_key(name) in LABEL_KEYS - {"y"}]  # which is also a coordinate
    if not columns.label and not columns.one_hot and rest:
        notes.append(
            f"{uri} has no label column that is known by its name; give it with --label-column: {', '.join(rest)}."
        )
    elif columns.label and labels and options.label_column is None:
        notes.append(
            f"{uri}: labels are read from the column {columns.label!r}; if {' or '.join(map(repr, labels))} holds "
            "them, say so with --label-column."
        )
    splits = [] if columns.split else [name for name in rest if _holds_splits(table, name)]
    if splits:
        notes.append(
            f"{uri}: the column {splits[0]!r} seems to hold splits, and is not read; if it does, give --split-column "
            f"{shell_word(splits[0])}."
        )
    return notes


def _holds_splits(table: Table, name: str) -> bool:
    """Return whether all cells of a column are names of splits, of two or more."""
    found: set[str | None] = set()
    for row in table.rows:
        if text := cell_text(row.get(name)):
            found.add(split_name(text))
            if None in found:
                return False
    return len(found) > 1


def list_columns(options: ReadOptions) -> frozenset[str]:
    """Return the keys of the names that a column of lists must have to be read: those of labels."""
    return frozenset({*LABEL_KEYS, column_key(options.label_column or "")})


def describe(columns: Columns, separator: str | None) -> str:
    """Return how a table is read, in one line; ``separator`` is what separates several labels (None: one an image)."""
    label = f"one-hot {', '.join(columns.one_hot)}" if columns.one_hot else columns.label or "none"
    if separator is not None:
        between = f", separated by {separator!r}" if separator else ""
        label = f"{label}{between}, several an image"
    split = f", split {columns.split}" if columns.split else ""
    return f"table (path {columns.path}, label {label}{split})"
