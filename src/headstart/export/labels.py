"""``labels.txt``: the classes of an export, a line each, in the order of the probabilities.

Where an image may have several labels, ``thresholds.txt`` has in its lines from which probability on each holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headstart.export.about import About
from headstart.files import encode, escape_name


def write_labels(about: About, folder: Path) -> None:
    """Write ``labels.txt`` and, of several labels an image, ``thresholds.txt``."""
    (folder / "labels.txt").write_bytes(encode(labels_text(about)))
    if about.label_thresholds is not None:
        numbers = "".join(f"{value!r}\n" for value in about.label_thresholds.thresholds)
        (folder / "thresholds.txt").write_text(numbers, "utf-8")


def labels_text(about: About) -> str:
    """Return the content of ``labels.txt``."""
    return "\n".join(as_lines(about.classes)) + "\n"


def as_lines(names: Sequence[str]) -> list[str]:
    """Return names as lines of a text: what would end a line is escaped."""
    return ["".join(map(_escape_line_end, escape_name(name))) for name in names]


def _escape_line_end(character: str) -> str:
    if character.splitlines() == [character]:
        return character
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
