"""The files that a table names: relative to it, to the working folder, or found by their names."""

from __future__ import annotations

import os
import posixpath
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from headstart.data.layout import split_name, to_nfc
from headstart.data.reading import Source, read_file
from headstart.errors import DataError, ImageError
from headstart.files import unescape_name
from headstart.images.decoding import is_image_name

MAX_FILES = 1_000_000  # that are listed to find the files of ids

Located = tuple[str, Callable[[], bytes]]  # the path to show, and how to read the file


class DiskFiles:
    """Files beside a local table, or behind the address of one. ``folder`` is that of the table."""

    def __init__(self, uri: str, follow_links: bool) -> None:
        self.uri, self.follow_links = uri, follow_links
        self.is_remote = "://" in uri
        self.folder = uri.split("?")[0].rsplit("/", 1)[0] if self.is_remote else str(Path(uri).parent)
        self._root = "" if self.is_remote else os.path.realpath(self.folder)
        self._tails = Tails(uri, lambda: islice(self._files(), MAX_FILES))

    def locate(self, path: str, number: int) -> Located:
        """Find the file of the row ``number``. Raises DataError for one outside the folder."""
        if not self.is_remote and "\0" not in path and Path(path).is_absolute():
            relative = os.path.relpath(os.path.realpath(path), self._root)
            path = path if relative.startswith("..") else Path(relative).as_posix()
        given = posixpath.normpath(path)
        name = posixpath.normpath(unescape_name(path))  # as our own tables write names of bytes that are not UTF-8
        is_inside = name != given and not self.is_remote and not name.startswith(("/", ".."))
        if is_inside and _is_file(f"{self.folder}/{name}"):
            return name, self._reader(f"{self.folder}/{name}", number, self._root)
        path = inner_path(self.uri, path, number)
        location = f"{self.folder}/{path}"
        # A name may hold a backslash, which in tables of Windows separates folders.
        if given != path and not self.is_remote and _is_file(f"{self.folder}/{given}"):
            return given, self._reader(f"{self.folder}/{given}", number, self._root)
        if self.is_remote or (is_image_name(path) and _is_file(location)):
            return path, self._reader(location, number, self._root)
        if is_image_name(path) and _is_file(path):
            return path, self._reader(path, number, os.path.realpath("."))
        matches = self._tails.find(path)
        if len(matches) == 1:
            return matches[0], self._reader(f"{self.folder}/{matches[0]}", number, self._root)
        return (path, lambda: read_file(location)) if not matches else (path, partial(_ambiguous, matches))

    def problem(self, path: str) -> str:
        """Return why a path that ``locate`` gave back is not that of an image."""
        return self._tails.problem(path)

    def _reader(self, location: str, number: int, root: str) -> Callable[[], bytes]:
        """Return how to read a file. Raises DataError for a link out of ``root``, unless links are followed."""
        is_checked = not self.is_remote and not self.follow_links
        if is_checked and os.path.commonpath([root, os.path.realpath(location)]) != root:
            raise DataError(
                f"{self.uri}, row {number}: {location} is a link out of the table's folder; give --follow-links."
            )
        return lambda: read_file(location)

    def _files(self) -> Iterator[str]:
        """Yield the files below the folder, relative to it."""
        for folder, _, names in os.walk(self.folder):
            for name in names:
                yield Path(os.path.relpath(f"{folder}/{name}", self.folder)).as_posix()


class MemberFiles:
    """Files of an archive, or of another source, beside a table that is one of them. ``folder`` is that of the table.

    Nothing but the members of the source can be named.
    """

    def __init__(self, uri: str, source: Source, table: str) -> None:
        self.uri, self._source = uri, source
        self.folder = ""
        prefix = table[: table.rfind("/") + 1]
        self._keys = {name[len(prefix) :]: key for key, name in enumerate(source.names) if name.startswith(prefix)}
        self._tails = Tails(uri, lambda: self._keys)

    def locate(self, path: str, number: int) -> Located:
        """Find the member of the row ``number``. Raises DataError for a path outside the folder."""
        name = posixpath.normpath(unescape_name(path))
        path = name if name in self._keys else inner_path(self.uri, path, number)
        if not is_image_name(path) or path not in self._keys:
            matches = self._tails.find(path)
            if len(matches) != 1:
                return path, partial(_ambiguous, matches) if matches else _missing
            path = matches[0]
        key = self._keys[path]
        return path, lambda: self._source.read(key)

    def problem(self, path: str) -> str:
        """Return why a path that ``locate`` gave back is not that of an image."""
        return self._tails.problem(path)


class Tails:
    """Files by the ends of their paths, listed when the first one is looked for.

    Of several with one name, those in a folder of the split that the table is called by are meant: Kaggle's train.csv
    means train/1.jpg, not test/1.jpg.
    """

    def __init__(self, uri: str, files: Callable[[], Iterable[str]]) -> None:
        self._files, self._split = files, split_name(posixpath.splitext(posixpath.basename(uri))[0])
        self._by_tail: dict[str, list[str]] | None = None

    def find(self, path: str) -> list[str]:
        """Return the images that a path, or the end of one, may mean."""
        if self._by_tail is None:
            self._by_tail = index_tails(self._files())
        matches = self._by_tail.get(file_key(path), [])
        if len(matches) > 1 and self._split is not None:
            of_split = [name for name in matches if any(split_name(part) == self._split for part in name.split("/"))]
            return of_split or matches
        return matches

    def problem(self, path: str) -> str:
        """Return why a path is not that of one image."""
        if len(self.find(path)) > 1:
            return "several images have this name"
        return "not an image" if posixpath.splitext(path)[1] else "no image has this name"


def _is_file(path: str) -> bool:
    """Return whether a path is that of a file; one that is too long for the system is of none."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  # ``Path.is_file`` raises for a long name
    except (OSError, ValueError):
        return False


def _ambiguous(matches: Sequence[str]) -> bytes:
    raise ImageError(
        f"Several images have this name ({', '.join(sorted(matches)[:3])}); write their paths in the table."
    )


def _missing() -> bytes:
    raise ImageError("Cannot be read: No such file in the archive.")


def inner_path(uri: str, path: str, number: int) -> str:
    """Return the normal form of a path of the row ``number``. Raises DataError for one outside the table's folder."""
    path = posixpath.normpath(path.replace("\\", "/"))
    if path.startswith(("/", "..")) or path[1:2] == ":" or "\0" in path:
        raise DataError(f"{uri}, row {number}: {path!r} is outside the table's folder; use paths inside it.")
    return path


def index_tails(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return images by their names, with and without ending, and by the ends of their paths, as ``file_key`` has it."""
    by_tail: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if is_image_name(path):
            parts = path.split("/")
            for start in range(len(parts)):
                tail = file_key("/".join(parts[start:]))
                by_tail[tail].append(path)
                by_tail[posixpath.splitext(tail)[0]].append(path)
    return by_tail


def file_key(path: str) -> str:
    """Return what names of one file have in common: case, and the forms in which Unicode writes an accent."""
    return to_nfc(path.casefold())
