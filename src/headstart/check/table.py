"""A table of all pictures with the findings: to edit (drop a row, change a label or a group) and to learn from."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from headstart.check.finding import Finding
from headstart.data import Dataset
from headstart.errors import OptionError

COLUMNS = ("path", "label", "split", "group", "finding", "action", "why")


def write_table(
    dataset: Dataset, findings: Sequence[Finding], groups: Mapping[str, int], file: str | os.PathLike[str]
) -> int:
    """Write the table, pictures with findings first; the number of rows. ``headstart fit FILE`` takes it as it is.

    ``groups`` are those of ``Checked``. Unreadable pictures are left out. Raises OptionError where the table could
    not name the pictures: it must lie in a folder that holds them all, and they must be files.
    """
    target = Path(os.path.abspath(file))  # noqa: PTH100  # resolve() would follow links that users put there
    if target.suffix.lower() not in (".csv", ".tsv"):
        raise OptionError(f"{file} must end in .csv, so that headstart fit takes it for a table.")
    about: dict[str, list[Finding]] = {}
    for finding in findings:
        for path in finding.files:
            about.setdefault(path, []).append(finding)
    rows = []
    for item in sorted(dataset.items, key=lambda each: (each.path not in about, each.path)):
        if item.path not in groups or item.label is None:
            continue
        relative = os.path.relpath(os.path.abspath(item.path), target.parent)  # noqa: PTH100
        if not Path(item.path).is_file() or relative.startswith(".."):
            raise OptionError(
                f"{file} cannot name {item.path}: write the table to the folder of the pictures or one above it."
            )
        told = about.get(item.path, [])
        rows.append((
            Path(relative).as_posix(), item.label, item.split, item.group or f"group {groups[item.path]}",
            "; ".join(f.kind for f in told), "; ".join(f.action for f in told), "; ".join(f.why for f in told),
        ))  # fmt: skip
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t" if target.suffix.lower() == ".tsv" else ",", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return len(rows)
