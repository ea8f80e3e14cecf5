"""The labels in the cells of a table: one label an image, or several.

A table is multi-label where one of its rows holds several labels: a list of several, several columns with a one, or a
text whose parts, between semicolons or bars, are labels by themselves in other rows. A text such as "black|white" of
which no part is a label elsewhere is the name of one class. Commas separate labels only where that is declared, since
they are part of many names.

In a multi-label table an empty cell means that none of the labels holds. "?" means that a label is not known, and
counts neither way: in a column of a label that cell, in a text or list "?beach" that label, and "?" alone all that the
cell does not name.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headstart.data.dataset import Item
from headstart.data.layout import to_nfc
from headstart.data.reading import ReadOptions
from headstart.data.table_files import Row, Table
from headstart.errors import DataError
from headstart.files import UNDECODED, from_table_text

# What pandas, SQL and spreadsheets write for a missing value, in lower case, and R, in capitals alone.
MISSING, MISSING_IN_R = {"", "nan", "<na>", "null", "n/a", "#n/a"}, "NA"
YES, NO = {"true", "1", "1.0", "yes"}, {"false", "0", "0.0", "no"}
UNKNOWN = "?"
SEPARATORS = (";", "|")  # that are found without being declared
MAX_LABELS = 10_000
MAX_CELLS = 100_000_000  # images times labels
MAX_LISTED = 2**20  # characters of a list in JSON


@dataclass(frozen=True)
class LabelCell:
    """The labels that hold of an image and those of which it is not known; ``rest`` says that all others are not."""

    present: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    rest: bool = False


@dataclass(frozen=True)
class LabelColumns:
    """Where the labels of a table are: a column of labels, or columns with a one for each label that holds.

    ``class_names`` are the names of the numbers in the column (Hugging Face's ClassLabel), if they have any.
    """

    uri: str
    label: str
    one_hot: tuple[str, ...]
    class_names: Sequence[str] | None

    def single(self, number: int, row: Row) -> str | None:
        """Return the one label of a row, None where it is missing, "" where the table has no labels. Raises DataError.

        ``number`` is that of the row in the file.
        """
        if self.one_hot:
            names = self._ones(row)
            if len(names) > 1:
                raise _several(self.uri, number, " and ".join(names))
            return names[0] if names else None
        if not self.label:
            return ""
        value = row.get(self.label)
        if isinstance(value, list):
            if len(value) > 1:
                raise _several(self.uri, number, str(value))
            value = value[0] if value else None
        name = self._name(number, value)
        return None if name == UNKNOWN else name

    def several(self, number: int, row: Row, separator: str) -> LabelCell | None:
        """Return the labels of a row, None where nothing is known. Texts are split at ``separator``, if it is one.

        Raises DataError.
        """
        if self.one_hot:
            unknown = tuple(to_nfc(name) for name in self.one_hot if cell_text(row.get(name)) == UNKNOWN)
            known = len(unknown) < len(self.one_hot)
            return LabelCell(tuple(map(to_nfc, self._ones(row))), unknown) if known else None
        value = row.get(self.label)
        parts: list[str | None]
        if isinstance(value, list):
            parts = [self._name(number, part) for part in value]
        elif isinstance(value, str):
            listed = _json_list(value)
            text = from_table_text(value.strip())
            if text and is_missing_text(text):
                return None  # an empty cell says that no label holds
            texts = listed if listed is not None else text.split(separator) if separator else [text]
            parts = ["" if is_missing_text(part.strip()) else part.strip() for part in texts]
        elif value is None or (isinstance(value, float) and math.isnan(value)):
            return None  # of JSON and Parquet: an empty list says that no label holds
        else:
            parts = [self._name(number, value)]
        if None in parts:
            return None
        return _cell([to_nfc(part) for part in parts if part])

    def _ones(self, row: Row) -> list[str]:
        return [name for name in self.one_hot if cell_text(row.get(name)) in YES]

    def _name(self, number: int, value: object) -> str | None:
        known = self.class_names
        if known is not None and isinstance(value, int) and not isinstance(value, bool):
            if value < 0:
                return None  # the Hub's -1: not labelled
            if value >= len(known):
                raise DataError(
                    f"{self.uri}, row {number}: class {value} has no name; the table names {len(known)} classes."
                )
            return known[value]
        if isinstance(value, dict | list):
            raise DataError(f"{self.uri}, row {number}: a label is a structure; expected a text or a number.")
        text = from_table_text(cell_text(value))
        return None if is_missing_text(text) else text


def find_separator(columns: LabelColumns, rows: Sequence[Row], options: ReadOptions) -> str | None:
    """Return what separates the labels of a multi-label table ("": nothing), None where each image has one label.

    Raises DataError where several labels are refused, and where what separates them is not clear.
    """
    declared = options.label_separator
    if declared == "":
        raise DataError("An empty text separates no labels; give a comma, or whatever stands between them.")
    if options.layout == "image" or not (columns.label or columns.one_hot):
        if options.multi_label or declared:
            raise DataError(
                f"{columns.uri} has no labels; expected a column of labels, or columns with 0, 1 or ? for each label."
            )
        return None
    if columns.one_hot:
        if declared:
            raise DataError(f"{columns.uri} has a column for each label; leave the label separator out.")
        number, separator = _several_ones(columns, rows), ""
    else:
        number, separator = _several_listed(columns, rows), declared or ""
        if declared is None:
            # A label that is not known, which no class is, shows that texts hold several labels.
            is_forced = options.multi_label is True or any(_has_unknown(row.get(columns.label)) for row in rows)
            number, separator = _separator_in_use(columns, rows, number, is_forced)
    if options.multi_label is False:
        if declared or number is not None:
            what = (
                f"its labels are separated by {declared!r}"
                if number is None
                else f"row {number} has several, or one that is not known"
            )
            raise DataError(
                f"{columns.uri} is multi-label, {what}; give each image one label, or leave --single-label out."
            )
        return None
    return separator if number is not None or options.multi_label or declared else None


def needs_lists(names: Sequence[str]) -> bool:
    """Return whether cells with these labels must be lists in JSON, since a text would be taken for other labels."""
    return any(name.startswith("[") or any(separator in name for separator in SEPARATORS) for name in names)


def unreadable_names(names: Iterable[str]) -> list[str]:
    """Return labels that no cell can name, since a reader takes them for no label, or for one that is not known.

    >>> unreadable_names(["nan", "nans", "?x", " x"])
    ['nan', '?x', ' x']
    """
    return [name for name in names if is_missing_text(name) or name.startswith(UNKNOWN) or name != name.strip()]


def unreadable_classes(names: Sequence[str]) -> list[str]:
    """Return classes, of which an image has one, that no cell can name.

    Beside those of ``unreadable_names`` these are the classes that a reader takes for several labels: a list, or a text
    of which a part is a class too.

    >>> unreadable_classes(["null", "cat", "cat;dog", "black|white", '["a", "b"]'])
    ['null', 'cat;dog', '["a", "b"]']
    """
    unread, known = {*unreadable_names(names)}, {*names}

    def is_several(name: str) -> bool:
        lists = (_parts(name, separator) for separator in (*SEPARATORS, ","))
        return len(_json_list(name) or ()) > 1 or any(len(parts) > 1 and known & {*parts} for parts in lists)

    return [name for name in names if name in unread or is_several(name)]


def list_text(names: Sequence[str]) -> str:
    """Return names as a list in JSON whose letters are themselves, so that a cell is about as long as its names."""
    text = json.dumps(names, ensure_ascii=False)
    return json.dumps(names) if UNDECODED.search(text) else text  # bytes that no text has stay escapes of JSON


def cell_of(item: Item, *, as_list: bool = False) -> str:
    """Return the labels of an image as the text of a cell, or as a list in JSON, which a multi-label table may have.

    >>> cell_of(Item("a.jpg", None, "train", labels=("sunset", "beach"), unknown=("dog",)))
    'beach;sunset;?dog'
    """
    parts = [*sorted(item.labels or ()), *(f"{UNKNOWN}{name}" for name in sorted(item.unknown))]
    parts += [UNKNOWN] if item.is_rest_unknown else []
    return list_text(parts) if as_list and parts else SEPARATORS[0].join(parts)


def label_names(columns: LabelColumns, cells: Sequence[LabelCell]) -> tuple[str, ...]:
    """Return the names of all labels, sorted. Raises DataError."""
    uri = columns.uri
    in_cells = {name for cell in cells for name in (*cell.present, *cell.unknown)}
    names = sorted(in_cells.union(map(to_nfc, columns.one_hot)))
    if len(names) > MAX_LABELS:
        raise DataError(f"{uri} has {len(names):,} labels, more than the {MAX_LABELS:,} that are possible.")
    if not names:
        raise DataError(f"{uri} is read as multi-label, and no label holds of any image; check its label column.")
    if len(names) * len(cells) > MAX_CELLS:
        raise DataError(f"{uri} has {len(cells):,} images of {len(names):,} labels, more than {MAX_CELLS:,} cells.")
    return tuple(names)


def check_single(uri: str, labels: Counter[str]) -> list[str]:
    """Check labels of which each image has one, and return notes about those that look like several.

    Raises DataError for a label with a comma of which a part is a label too, and for one number in two spellings.
    """
    for label, count in labels.items():
        parts = _parts(label, ",")
        if len(parts) > 1 and any(part in labels for part in parts):
            raise DataError(
                f"{uri}: the label {label!r} (of {count} rows) seems to hold several labels, since "
                f"{next(part for part in parts if part in labels)!r} is a label too; if a comma separates labels, give "
                "--label-separator ','; if not, rename the class."
            )
    check_numbers(uri, labels)
    notes = _spaced_notes(uri, labels)
    joined = [label for label in labels if any(separator in label for separator in SEPARATORS)]
    if not joined:
        return notes
    return [
        *notes,
        f"{joined[0]!r}{f' and {len(joined) - 1} more' if len(joined) > 1 else ''} of {uri} is read as the name of one "
        "class, since no part of it is a label by itself; if it is several labels, give --multi-label.",
    ]


def _spaced_notes(uri: str, labels: Mapping[str, int]) -> list[str]:
    """Say where spaces may separate labels: each word of a label is in others, too, and one of them is a label."""
    words = Counter(word for label in labels for word in {*label.split()})
    joined = [
        label
        for label in labels
        if len(parts := label.split()) > 1
        and min(words[part] for part in parts) > 1
        and any(part in labels for part in parts)
    ]
    if not joined:
        return []
    return [
        f"{joined[0]!r}{f' and {len(joined) - 1} more' if len(joined) > 1 else ''} of {uri} is read as the name of one "
        "class; if spaces separate several labels, give --label-separator ' '."
    ]


def check_numbers(uri: str, labels: Iterable[str]) -> None:
    """Raise DataError for one number that is written in two ways."""
    numbers: dict[float, str] = {}
    for label in labels:
        value = {"true": 1.0, "false": 0.0}.get(label.lower())
        try:
            value = float(label) if value is None else value
        except ValueError:
            continue
        if value in numbers:
            raise DataError(f"{uri}: the labels {numbers[value]!r} and {label!r} may mean the same; write them alike.")
        numbers[value] = label


def is_missing_text(text: str) -> bool:
    """Return whether the text of a cell stands for a missing value.

    >>> [is_missing_text(text) for text in ("", "NaN", "NA", "na", "Na")]
    [True, True, True, False, False]
    """
    return text.lower() in MISSING or text == MISSING_IN_R


def is_one_hot(rows: Sequence[Row], names: Sequence[str]) -> bool:
    """Return whether the cells of these columns are all 0, 1 (or true, false) or "?"."""
    return all(cell_text(row.get(name)) in YES | NO | {UNKNOWN} for row in rows for name in names)


def cell_text(value: object) -> str:
    """Return the text of a cell; a whole number is written without a fraction, a missing value is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value).strip()


def _cell(parts: Sequence[str]) -> LabelCell | None:
    """Sort the parts of a cell; None where it says nothing about any label. What holds is not unknown."""
    present = tuple(dict.fromkeys(part for part in parts if not part.startswith(UNKNOWN)))
    named = (part[len(UNKNOWN) :].strip() for part in parts if part.startswith(UNKNOWN))
    unknown = tuple(dict.fromkeys(name for name in named if name and name not in present))
    rest = UNKNOWN in parts
    return None if rest and not present else LabelCell(present, unknown, rest)


def _several_ones(columns: LabelColumns, rows: Sequence[Row]) -> int | None:
    """Return the number of the first row with several ones, or with a "?", which one label an image does not have."""
    for number, row in enumerate(rows, 2):
        texts = [cell_text(row.get(name)) for name in columns.one_hot]
        if sum(text in YES for text in texts) > 1 or UNKNOWN in texts:
            return number
    return None


def _several_listed(columns: LabelColumns, rows: Sequence[Row]) -> int | None:
    """Return the number of the first row whose cell is a list of several labels, or names one that is not known."""
    for number, row in enumerate(rows, 2):
        value = row.get(columns.label)
        listed = value if isinstance(value, list) else _json_list(value) if isinstance(value, str) else None
        if listed is not None and len(listed) > 1:
            return number
        if _has_unknown(value):
            return number
    return None


def _has_unknown(value: object) -> bool:
    """Return whether a cell is a text that begins with a label that is not known."""
    text = value.strip() if isinstance(value, str) else ""
    return text.startswith(UNKNOWN) and text != UNKNOWN


def _separator_in_use(
    columns: LabelColumns, rows: Sequence[Row], listed: int | None, is_forced: bool
) -> tuple[int | None, str]:
    """Return the number of a row with several labels in a text, and what separates them; ``listed`` shows it already.

    One whose parts are no labels by themselves has several where the table ``is_forced`` to be multi-label.
    """
    first: dict[str, int] = {}
    for number, row in enumerate(rows, 2):
        value = row.get(columns.label)
        if isinstance(value, str) and _json_list(value) is None:
            first.setdefault(to_nfc(from_table_text(value.strip())), number)
    found = {
        separator: [
            number
            for text, number in first.items()
            if len(parts := _parts(text, separator)) > 1 and (is_forced or any(part in first for part in parts))
        ]
        for separator in SEPARATORS
    }
    used = {separator: numbers[0] for separator, numbers in found.items() if numbers}
    if len(used) > 1:
        places = " and ".join(f"{separator!r} in row {number}" for separator, number in used.items())
        raise DataError(f"{columns.uri} seems to separate labels by {places}; say by which: --label-separator.")
    for separator, number in used.items():
        return number, separator
    return listed, ""


def _parts(text: str, separator: str) -> list[str]:
    return [part for part in map(str.strip, text.split(separator)) if part]


def _json_list(text: str) -> list[str] | None:
    """Return the texts of a list in JSON, None where the text is none."""
    if not text.lstrip().startswith("[") or len(text) > MAX_LISTED:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(part, str | int | float) for part in value):
        return None
    return [cell_text(part) for part in value]


def _several(uri: str, number: int, labels: str) -> DataError:
    return DataError(f"{uri}, row {number} has several labels ({labels}); give each image one label.")


def columns_of(uri: str, table: Table, label: str, one_hot: tuple[str, ...]) -> LabelColumns:
    """Return where the labels of a table are."""
    names: Mapping[str, Sequence[str]] = table.class_names
    return LabelColumns(uri, label, one_hot, names.get(label))
