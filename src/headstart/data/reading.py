"""Files of a source listed by name and read within limits, and errors in one line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from headstart.data.dataset import Quarantined, Skipped
from headstart.errors import ImageError, one_line
from headstart.files import open_regular
from headstart.images.decoding import MAX_BYTES

NOTHING_THERE = "there is nothing, or no way to it; check the address"  # behind an address


@dataclass(frozen=True)
class Source:
    """Files of a folder, an archive or a URL: their names relative to its root, with '/', and how to read them.

    ``read(key)`` returns the bytes of the file ``names[key]``; it raises ImageError and may be called from several
    threads at once. ``root`` is the path or URL to show before a name; ``is_folder`` says that the names are files of a
    local folder. ``skipped``, ``quarantined`` and ``notes`` are
    as in ``Dataset``.
    """

    names: Sequence[str]
    read: Callable[[int], bytes] = field(repr=False)
    root: str
    skipped: Sequence[Skipped] = ()
    quarantined: Sequence[Quarantined] = ()
    notes: Sequence[str] = ()
    is_folder: bool = False

    def display_path(self, key: int) -> str:
        """Return the path of a file to show to people."""
        return f"{self.root.rstrip('/')}/{self.names[key]}"


@dataclass(frozen=True)
class ReadOptions:
    """How a dataset is read.

    ``layout`` of a folder or archive is one of ``LAYOUTS``; with ``follow_links`` links that leave the folder are
    followed. The columns of a table are found by their names unless they are given: ``path_column``, ``label_column``,
    ``split_column`` and ``group_column``. ``classes`` is a file with the class and its new name in each row, by which
    classes are renamed, merged and, where the name is empty, left out. With ``fetch`` images behind https addresses in
    a table are read.

    Whether the images of a table have one label or several is found from its cells (``data.label_cells``), unless
    ``multi_label`` says so: True for several labels, False to refuse them. ``label_separator`` is the text between the
    labels of a cell, where it is not found: a comma.
    """

    layout: str = "auto"
    follow_links: bool = False
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    classes: str | None = None
    fetch: bool = False
    multi_label: bool | None = None
    label_separator: str | None = None


def read_file(path: str) -> bytes:
    """Read the bytes of a local file or URL, at most ``MAX_BYTES``. Raises ImageError."""
    try:
        if "://" in path:
            import fsspec

            with fsspec.open(path, "rb") as stream:
                return read_stream(stream, path)
        with open_regular(path) as stream:
            return read_stream(stream, path, os.fstat(stream.fileno()).st_size)
    except ImageError:
        raise
    except Exception as error:  # fsspec's back ends raise errors of their own
        raise ImageError(f"Cannot be read: {error_reason(error)}.") from None


def read_stream(stream: IO[bytes], name: str, expected_size: int = MAX_BYTES) -> bytes:
    """Read all bytes of a stream, at most ``MAX_BYTES``. Raises ImageError for more.

    Python reserves as much memory as is requested, so only the expected size is requested first.
    """
    data = stream.read(min(expected_size, MAX_BYTES) + 1)
    if len(data) > expected_size:  # the file has grown, or its file system does not report sizes
        data += stream.read(MAX_BYTES + 1 - len(data))
    if len(data) > MAX_BYTES:
        raise ImageError(f"{PurePosixPath(name).name} has more bytes than the limit of {MAX_BYTES:,}.")
    return data


def error_reason(error: BaseException) -> str:
    """Return the reason of an error in one line, without the file names that Python adds to those of the system."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)


def missing_path(path: str, expected: str) -> str:
    """Return the message that a path does not exist: the most similar name beside it, and what was expected."""
    target = Path(path)
    try:
        siblings = [entry.name for entry in target.parent.iterdir()]
    except OSError:
        siblings = []
    similar = difflib.get_close_matches(target.name, siblings, n=1)
    suggestion = f" (did you mean {target.parent / similar[0]}?)" if similar else ""
    return f"There is no {path}{suggestion}; give {expected}."
