"""Images out of archives: Teachable Machine's projects (.tm) and samples, and zips of class folders.

A ``.tm`` is a zip of the samples of all classes and a JSON of settings; a sample zip holds those of one class. Members
are read in place by the rules of ``data.archives``, and none of their names becomes a path: they only name a class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from headstart.data.archives import open_archive
from headstart.data.layout import from_listing
from headstart.errors import DataError, HeadstartError, OptionError
from headstart.files import open_regular
from headstart.studio.image_files import suffix_of
from headstart.studio.project import Project
from headstart.studio.records import check_class_name

MAX_MEMBERS = 20_000
MAX_BYTES = 4 * 2**30  # of all images of an archive, unpacked
SETTINGS = "manifest.json"  # of Teachable Machine: how it trains
NUMBERED = re.compile(r"(.+?)[-_!. ]+\d+")  # the name of a sample that lies in no folder: its class and a number


@dataclass(frozen=True)
class ImportResult:
    """How many images an archive added, how many were there already, their classes, and what was refused, and why."""

    added: int
    already: int
    classes: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


def import_archive(project: Project, file: Path, label: str | None = None) -> ImportResult:
    """Add the images of a zip to a project in one step, which undo takes back.

    Images in folders are of the class of their folder; others of ``label``, or, without one, of the class that their
    numbered names give. Where images may have several labels such names give none: most are those of a camera, and with
    a label of that name every other one would be said to be absent. Raises DataError for what is no zip or has no
    images, OptionError for a name of a class that cannot be used, OSError.
    """
    source = open_archive("the archive.zip", partial(open_regular, file))
    if len(source.names) > MAX_MEMBERS:
        raise DataError(f"The archive has more than {MAX_MEMBERS:,} files; split it.")
    dataset = from_listing("the archive", source)
    refused = [(_name(image.path), image.reason) for image in dataset.quarantined]
    skipped = [(_name(file.path), file.reason) for file in dataset.skipped if file.reason != "hidden"]
    refused += [(name, reason) for name, reason in skipped if name != SETTINGS]
    classes: dict[str, None] = {}

    def images() -> Iterator[tuple[bytes, str, tuple[str, ...], str | None]]:
        size = 0
        for i, item in enumerate(dataset.items):
            try:
                name = label or item.label or ("" if project.multi_label else _numbered_class(item.path))
                names = (
                    (name if name in project.state.classes else check_class_name(name, project.word),) if name else ()
                )
                data = dataset.read(i)
                assert isinstance(data, bytes)
                size += len(data)
                suffix = suffix_of(data)
            except HeadstartError as error:
                refused.append((_name(item.path), str(error)))
                continue
            if size > MAX_BYTES:
                raise DataError(f"The archive unpacks to more than {MAX_BYTES:,} bytes; split it.")
            classes.update(dict.fromkeys(names))
            yield data, suffix, names, None

    new, known = project.add_many(images(), f"Imported the images of {label or 'an archive'}")
    return ImportResult(len(new), len(known), tuple(classes), tuple(refused))


def _numbered_class(path: str) -> str:
    """Return the class that the name of a sample gives. Raises OptionError."""
    match = NUMBERED.fullmatch(PurePosixPath(path).stem)
    if match is None:
        raise OptionError("The image lies in no class folder; give the class of the archive.")
    return match[1]


def _name(path: str) -> str:
    return path.removeprefix("the archive.zip/")
