"""The table of a project's labels: the format of the fix list that ``headstart check`` writes and ``fit`` reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart.check.table import COLUMNS
from headstart.data.dataset import SPLITS
from headstart.data.layout import to_nfc
from headstart.data.table_files import read_table
from headstart.errors import DataError
from headstart.files import from_table_text, table_path, table_row, table_text, unescape_name, write_atomic
from headstart.studio.records import ACCEPTED, ImageRecord, is_folder_name


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


def table_file(folder: Path) -> Path:
    """Return where the labels of a project are kept: beside its folder."""
    return folder.parent / f"{folder.name}-labels.csv"


def write_labels(file: Path, folder_name: str, records: Iterable[ImageRecord]) -> None:
    """Write the table whole: it is on the disk before this returns, and a kill leaves the old one or the new one.

    Raises OSError.
    """
    lines = [table_row(COLUMNS)]
    for record in records:
        cells = [table_path(f"{folder_name}/{record.path}"), table_text(record.label or ""), record.split]
        cells += [table_text(record.group or ""), record.finding, ACCEPTED if record.is_accepted else "", record.why]
        lines.append(table_row(cells))
    write_atomic(file, "".join(lines))


def read_labels(file: Path, folder_name: str) -> dict[str, TableRow]:
    """Return the rows of a table by path, in their order. Raises DataError for anything that is not such a table.

    Paths must lie in the project's folder; a path that is named twice counts as its last row.
    """
    table = read_table(str(file))
    if not {"path", "label"} <= set(table.columns):
        raise DataError(f"{file} has no columns path and label; move it away, or write it by headstart check.")
    rows: dict[str, TableRow] = {}
    for number, row in enumerate(table.rows, start=2):
        path = _relative(_cell(row, "path"), folder_name)
        if path is None:
            raise DataError(f"{file}, row {number}: the path is not in {folder_name}/; correct or move the table.")
        split = _cell(row, "split") or "train"
        if split not in SPLITS:
            raise DataError(f"{file}, row {number}: unknown split {split!r}; expected {', '.join(SPLITS)}.")
        label = to_nfc(from_table_text(_cell(row, "label")))
        if label and not is_folder_name(label):
            raise DataError(f"{file}, row {number}: the label {label!r} cannot be the name of a folder; give another.")
        group = from_table_text(_cell(row, "group"))
        cells = (_cell(row, name) for name in ("finding", "action", "why"))
        rows[path] = TableRow(path, label or None, split, group or None, *cells)
    return rows


def _cell(row: Mapping[str, object], name: str) -> str:
    return str(row.get(name) or "").strip()


def _relative(path: str, folder_name: str) -> str | None:
    """Return the path within the project's folder, None for one outside it."""
    parts = unescape_name(path).split("/")
    parts = parts[1:] if parts[:1] == ["."] else parts
    is_inside = len(parts) > 1 and parts[0] == folder_name and not {"", ".", ".."} & set(parts)
    return "/".join(parts[1:]) if is_inside and "\0" not in path else None
