"""A table of all images with their findings, to edit (remove a row, change a label or a group) and to fit on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from headstart.check.finding import Finding
from headstart.data import Dataset, Item
from headstart.data.label_cells import cell_of, check_numbers, needs_lists, unreadable_classes, unreadable_names
from headstart.errors import DataError, OptionError
from headstart.files import table_path, table_row, table_text, write_atomic
from headstart.machine import why_not_writable

COLUMNS = ("path", "label", "split", "group", "finding", "action", "why")
# Where images may have several labels: by this header a table says so also where no image has two.
SEVERAL_COLUMNS = ("path", "labels", *COLUMNS[2:])
MAX_CELL = 131_072  # characters: the limit of Python's csv, with which tables are read
MAX_NAMED = 10  # columns in a note
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def check_table_file(file: str | os.PathLike[str]) -> str:
    """Return the delimiter of a table to write, by the ending of its name.

    Raises OptionError for the ending of another kind of file, and for a file that is there: it may have been edited.
    """
    delimiter = DELIMITERS.get(Path(file).suffix.lower())
    if delimiter is None:
        raise OptionError(f"{file} must end in .csv or .tsv, so that headstart fit reads it as a table.")
    if os.path.lexists(file):
        raise OptionError(f"{file} exists, and may hold your corrections; give the table another name.")
    if reason := why_not_writable(Path(file)):
        raise OptionError(f"Cannot write {file}: {reason}; give the table another name.")
    return delimiter


def write_table(
    dataset: Dataset, findings: Sequence[Finding], groups: Mapping[str, int], file: str | os.PathLike[str]
) -> int:
    """Write the table that ``headstart fit FILE`` reads, images with findings first, and return the number of rows.

    ``groups`` are those of ``CheckResult``. Unlabelled and unreadable images are left out. Raises OptionError for any
    other ending than .csv and .tsv, and for what ``fit`` would not read back: images that are not files in the folder
    of the table or below it, names of classes or labels that mean something else in a table, and cells of more than
    ``MAX_CELL`` characters.
    """
    delimiter = check_table_file(file)
    target = Path(os.path.abspath(file))  # noqa: PTH100  # resolve() would follow links that users put there
    rows = [cells for _, cells in table_rows(dataset, findings, groups, target)]
    write_atomic(target, "".join(table_row(cells, delimiter) for cells in (header_of(dataset), *rows)))
    return len(rows)


def header_of(dataset: Dataset) -> tuple[str, ...]:
    """Return the header of the table of a dataset: ``labels`` stands in it where images may have several."""
    return SEVERAL_COLUMNS if dataset.is_multi_label else COLUMNS


def table_rows(
    dataset: Dataset, findings: Sequence[Finding], groups: Mapping[str, int], file: Path
) -> Iterator[tuple[str, list[str]]]:
    """Yield the path in the dataset, and the cells in the order of ``header_of``, of each row of a table at ``file``.

    ``file`` is an absolute path; see ``write_table``. Raises OptionError.
    """
    check_names(dataset, file)
    findings_by_path: dict[str, list[Finding]] = {}
    for finding in findings:
        for path in finding.files:
            findings_by_path.setdefault(path, []).append(finding)
    as_lists = needs_lists(dataset.label_names)
    for item in sorted(dataset.items, key=lambda item: (item.path not in findings_by_path, item.path)):
        if item.path not in groups or (item.label is None and item.labels is None):
            continue
        label = table_text(item.label) if item.label is not None else label_text(item, as_lists)
        item_findings = findings_by_path.get(item.path, [])
        row = [table_path(_name_from(file, dataset, item.path)), label, item.split]
        row.append(table_text(item.group or f"group {groups[item.path]}"))
        row.append("; ".join(finding.kind for finding in item_findings))
        row.append("; ".join(finding.action for finding in item_findings))
        row.append(table_text("; ".join(finding.why for finding in item_findings)))
        check_cells(item.path, row)
        yield item.path, row


def left_out_notes(dataset: Dataset, table: str) -> list[str]:
    """Name the columns of a dataset that ``table``, of its corrections, leaves out, and say how groups are kept."""
    names = [name for name in dataset.other_columns if name not in COLUMNS]
    if not names:
        return []
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    columns = f"column{'s' if len(names) > 1 else ''} {', '.join(names[:MAX_NAMED])}{more}"
    which = "one of them" if len(names) > 1 else "it"
    keep = f"; if {which} says which images belong together, give --group-by with its name: its groups are kept"
    has_groups = any(item.group for item in dataset.items)
    return [f"{table} leaves out the {columns} of {dataset.uri}{'' if has_groups else keep}."]


def check_cells(path: str, cells: Sequence[str]) -> None:
    """Raise OptionError where a reader of tables would refuse one of the cells of the image at ``path``."""
    longest = max(map(len, cells))
    if longest > MAX_CELL:
        raise OptionError(
            f"A cell of {path} would have {longest:,} characters, more than the {MAX_CELL:,} that a reader of tables "
            "takes; give labels shorter names, or fewer of them to the image."
        )


def check_names(dataset: Dataset, file: Path, mend: str = "") -> None:
    """Raise OptionError for names of labels, or classes, that ``fit`` would read as something else, or refuse.

    ``mend`` says how a name is changed, where that is not in a column or by --classes.
    """
    unread = unreadable_names(dataset.label_names)
    if unread:
        raise OptionError(
            f"{file} could not name the label {unread[0]!r}, which means something else; {mend or 'rename its column'}."
        )
    unread = unreadable_classes(dataset.classes)
    if unread:
        raise OptionError(
            f"{file} could not name the class {unread[0]!r}, which means something else to a reader of tables; "
            f"{mend or 'rename it, for instance by --classes'}."
        )
    try:
        check_numbers(str(file), (*dataset.classes, *dataset.label_names))
    except DataError as error:
        raise OptionError(str(error)) from None


def label_text(item: Item, as_list: bool) -> str:
    """Return the labels of an image with several as the text of a cell."""
    return cell_of(item, as_list=True) if as_list else table_text(cell_of(item))


def _name_from(file: Path, dataset: Dataset, path: str) -> str:
    """Return the path of an image relative to the folder of a file; an address stays as it is."""
    if "://" in path:
        return path
    image = Path(dataset.folder) / path
    relative = os.path.relpath(os.path.abspath(image), file.parent)  # noqa: PTH100
    if not image.is_file() or relative.startswith(".."):
        raise OptionError(f"{file} cannot name {path}: write it to the folder of the images or one above it.")
    return Path(relative).as_posix()
