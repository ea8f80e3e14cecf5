"""Groups that people know: by a column, by folders, by file names, or by the time at which images were taken."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from posixpath import basename, splitext

from headstart.data import Dataset, Item
from headstart.data.layout import to_nfc
from headstart.errors import ImageError, OptionError
from headstart.images.capture import Capture, read_capture

BURST_SECONDS = 10.0  # between an image and the next of a burst, by default
MAX_NAME = 255  # characters of a file name that is looked at
MAX_PATTERN = 200
FORMS = "auto, none, folder, name:PATTERN, exif, exif:SECONDS, or the name of a table's column"
PARTS = {"*": ".*?", "#": "[0-9]++"}  # of a pattern: any text, as little as possible; digits, all that follow
UNNAMED = {  # what images do that get no group
    "folder": "lie in no folder below that of the class",
    "name": "do not fit the pattern",
    "exif": "have no EXIF time",
}


@dataclass(frozen=True)
class GroupBy:
    """How images are grouped: ``kind`` is "auto", "none", "column", "folder", "name" or "exif".

    ``column`` is the name of a column, ``pattern`` that of file names with the expression that it stands for, and
    ``seconds`` the longest time between two images of a burst.
    """

    kind: str
    column: str | None = None
    pattern: str = ""
    expression: re.Pattern[str] | None = None
    seconds: float = BURST_SECONDS

    @property
    def method(self) -> str:
        """What the groups come from, as people read it."""
        methods = {"name": f"file names {self.pattern}", "exif": f"EXIF times, {self.seconds:g} s"}
        return methods.get(self.kind, self.kind)


def parse_group_by(text: str) -> GroupBy:
    """Parse what ``--group-by`` may be. Raises OptionError."""
    if text in ("auto", "none", "folder"):
        return GroupBy(text)
    kind, _, argument = text.partition(":")
    if kind == "name" and argument:
        return GroupBy("name", pattern=argument, expression=compile_pattern(argument))
    if text == "exif":
        return GroupBy("exif")
    if kind == "exif":
        try:
            seconds = float(argument)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise OptionError(f"{text!r} gives no time between images; expected exif:SECONDS, such as exif:10.")
        return GroupBy("exif", seconds=seconds)
    if not text or text == "name:":
        raise OptionError(f"{text!r} says nothing to group by; expected {FORMS}.")
    return GroupBy("column", column=text)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the expression of a pattern for file names; its groups 1 and 2 are empty and lie at the two braces.

    ``*`` is any text, as little as possible, ``#`` one digit or more, all else itself; what braces enclose names the
    group. Each part is taken where it first fits and never elsewhere (as in ``fnmatch``), so that the time is bounded
    by the product of the lengths of pattern and name, whatever they are. Raises OptionError.

    >>> expression = compile_pattern("{horse#}-*")
    >>> match = expression.fullmatch("horse01-0")
    >>> match.string[match.start(1) : match.start(2)]
    'horse01'
    """
    braces = [character for character in pattern if character in "{}"]
    if braces != ["{", "}"] or len(pattern) > MAX_PATTERN:
        raise OptionError(
            f"The pattern {pattern[:MAX_PATTERN]!r} cannot be used; put braces around the one part of a file name that "
            f"names the group, such as {{*}}-#, in at most {MAX_PATTERN} characters."
        )
    pieces = [""]  # the text before the first star, then each star with what follows it
    for character in pattern:
        part = "()" if character in "{}" else PARTS.get(character, re.escape(character))
        if character == "*":
            pieces.append(part)
        else:
            pieces[-1] += part
    *inner, last = pieces
    return re.compile("".join(f"(?>{piece})" for piece in inner) + last, re.DOTALL)


def group_names(dataset: Dataset, indices: Sequence[int], by: GroupBy) -> list[str | None]:
    """Return the name of the group of each image of a dataset at ``indices`` [n], None where it has none.

    The files are read again only for their EXIF data, and not decoded.
    """
    items = [dataset.items[i] for i in indices]
    if by.kind == "folder":
        return [item.folder or None for item in items]
    if by.kind == "name":
        return [_name_by_pattern(item, by) for item in items]
    if by.kind == "exif":
        return burst_names([_capture(dataset, i) for i in indices], by.seconds)
    return [item.group for item in items]


def name_groups(dataset: Dataset, by: GroupBy) -> Dataset:
    """Return a dataset whose images have the names of their groups: those that it gives itself for "auto".

    Raises OptionError for a column that is not there, and where no image has a folder or fits the pattern.
    """
    if by.kind == "auto":
        return dataset
    names = [None] * len(dataset) if by.kind == "none" else group_names(dataset, range(len(dataset)), by)
    if by.kind not in ("none", "exif") and len(dataset) and all(name is None for name in names):
        raise OptionError(why_unnamed(by, dataset.items[0].path))
    items = (replace(item, group=name) for item, name in zip(dataset.items, names, strict=True))
    return replace(dataset, items=tuple(items))


def unnamed_notes(dataset: Dataset, by: GroupBy, instead: str = "each of them counts by itself") -> list[str]:
    """Say of how many images of ``name_groups`` a folder, a pattern or EXIF data name no group, and what they do."""
    unnamed = sum(item.group is None for item in dataset.items)
    if by.kind not in UNNAMED or not unnamed:
        return []
    return [f"{unnamed} of {len(dataset)} images {UNNAMED[by.kind]}; {instead}."]


def why_unnamed(by: GroupBy, path: str) -> str:
    """Return why no image, of which the first is at ``path``, has a group, and what to do."""
    if by.kind == "folder":
        return f"No image lies in a folder below that of its class ({path}, ...); group by auto, or by name:PATTERN."
    if by.kind == "name":
        return f"No file name without its ending fits the pattern {by.pattern!r} (the first is {path}); correct it."
    return f"The data have no column {by.column!r} to group by; use auto, none, folder, name:PATTERN or exif."


def _name_by_pattern(item: Item, by: GroupBy) -> str | None:
    assert by.expression is not None
    name = to_nfc(splitext(basename(item.path))[0])
    match = by.expression.fullmatch(name) if len(name) <= MAX_NAME else None
    return (name[match.start(1) : match.start(2)] or None) if match else None


def _capture(dataset: Dataset, index: int) -> Capture | None:
    try:
        return read_capture(dataset.read(index))
    except ImageError:  # the file has changed since its features were computed
        return None


def burst_names(captures: Sequence[Capture | None], seconds: float) -> list[str | None]:
    """Return the name of the burst of each capture [n].

    A burst ends where the camera's next image was taken more than ``seconds`` later.
    """
    names: list[str | None] = [None] * len(captures)
    known = [(capture.camera, capture.seconds, i) for i, capture in enumerate(captures) if capture is not None]
    burst, last = 0, ("", -math.inf)
    for camera, time, i in sorted(known):
        burst += camera != last[0] or time - last[1] > seconds
        names[i], last = f"burst {burst}", (camera, time)
    return names
