"""Sources of image files: local folders, archives, and fsspec URLs of either."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from headstart.data.archives import ARCHIVE_SUFFIXES, BLOCK, MAX_UNPACKED, open_archive, safe_name
from headstart.data.dataset import Quarantined, Skipped
from headstart.data.other_formats import mend_of
from headstart.data.reading import NOTHING_THERE, Source, error_reason, missing_path, read_file, read_stream
from headstart.errors import DataError, ImageError
from headstart.files import open_regular
from headstart.images.decoding import is_image_name

OUTER_LINK = "link that leaves the folder"
UNREADABLE_FOLDER = "unreadable folder"
EMPTY_FOLDER = "empty folder"


def open_source(uri: str, *, follow_links: bool = False) -> Source:
    """Open the folder or archive at a path or URL. Raises DataError."""
    if "://" in uri or "::" in uri:
        return _open_remote(uri)
    if not uri:  # as a variable of a shell is that was never set: Python would take the working folder
        raise DataError("The name of the data is empty; give a folder, an archive, a table or a URL.")
    path = Path(uri)
    if os.path.isdir(path):  # noqa: PTH112  # Path's own raises for names that are too long
        return _open_folder(path, follow_links)
    if not os.path.exists(path):  # noqa: PTH110
        raise DataError(missing_path(uri, "a folder, an archive, a table or a URL"))
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return open_archive(uri, partial(open_regular, path))
    mend = mend_of(path.name) or "give a folder, a zip or tar archive, a table (.csv, .parquet, .jsonl) or a URL"
    raise DataError(f"{uri} is not a dataset; {mend}.")


def _open_folder(root: Path, follow_links: bool) -> Source:
    """List the files below a folder, and the members of archives in it where it has no images of its own.

    Links are followed while they stay inside the folder, or everywhere if wanted, and never in a circle.
    """
    listing = _Listing(root, follow_links)
    listing.run()
    names = sorted(listing.names)
    if not any(is_image_name(name) for name in names):
        archives = [name for name in names if name.lower().endswith(ARCHIVE_SUFFIXES) and "/" not in name]
        if len(archives) > 1:
            others = [name for name in names if name not in archives]
            return _join_archives(root, archives, others, listing.skipped)
    return Source(
        names,
        lambda key: read_file(f"{root}{os.sep}{names[key]}"),
        str(root),
        listing.skipped,
        notes=_folder_notes(listing.skipped),
        is_folder=True,
    )


class _Listing:
    """The files below a folder, found by walking through it; what is skipped on the way is named."""

    def __init__(self, root: Path, follow_links: bool) -> None:
        self.root, self.follow_links = root, follow_links
        self.real_root = os.path.realpath(root)
        self.names: list[str] = []
        self.skipped: list[Skipped] = []
        self.visited = {self.real_root}
        self.folders = [""]  # still to be listed, relative to the root
        self.links: list[str] = []  # to folders: listed last, so that a folder is found under its own name first

    def run(self) -> None:
        """List everything. Raises DataError if the root cannot be listed."""
        while self.folders or self.links:
            if self.folders:
                self._list(self.folders.pop())
                continue
            link = self.links.pop(0)
            real_path = os.path.realpath(self.root / link)
            if real_path in self.visited:
                self.skip(link, "link to a folder that is read anyway")
            else:
                self.visited.add(real_path)
                self.folders.append(link)

    def _list(self, folder: str) -> None:
        try:
            entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise DataError(f"Cannot list {self.root}: {error_reason(error)}.") from None
            self.skip(folder, f"{UNREADABLE_FOLDER} ({error_reason(error)})")
            return
        if folder and not entries:
            self.skip(folder, EMPTY_FOLDER)
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            is_link = entry.is_symlink()
            if is_link and not self.follow_links and not _is_inside(self.real_root, entry.path):
                self.skip(name, OUTER_LINK)
            elif _is_folder(entry):
                if is_link:
                    self.links.append(name)
                else:
                    self.visited.add(os.path.realpath(entry.path))
                    self.folders.append(name)
            elif _is_file(entry) or not is_image_name(name):
                self.names.append(name)
            else:
                self.skip(name, "not a file")

    def skip(self, name: str, reason: str) -> None:
        self.skipped.append(Skipped(f"{self.root}{os.sep}{name}", reason))


def _folder_notes(skipped: Sequence[Skipped]) -> list[str]:
    """Name skipped folders, each of which may be a whole class."""
    notes = []
    for reason, mend in (
        (OUTER_LINK, "; give --follow-links to follow it"),
        (UNREADABLE_FOLDER, "; its images are missing"),
        (EMPTY_FOLDER, ""),
    ):
        paths = [item.path for item in skipped if item.reason.startswith(reason) and not is_image_name(item.path)]
        if paths:
            more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
            notes.append(f"Skipped {', '.join(paths[:3])}{more}: {reason}{mend}.")
    return notes


def _join_archives(root: Path, names: Sequence[str], others: Sequence[str], skipped: Sequence[Skipped]) -> Source:
    """Open the archives in a folder as one source, in which each is a folder named like the archive.

    The ``others`` are files beside the archives, such as a table of the images.
    """
    beside = Source(others, lambda key: read_file(f"{root}{os.sep}{others[key]}"), str(root))
    members: dict[str, tuple[Source, int]] = {name: (beside, key) for key, name in enumerate(others)}
    quarantined: list[Quarantined] = []
    notes = _folder_notes(skipped)
    for name in names:
        source = open_archive(str(root / name), partial(open_regular, root / name))
        folder = _archive_folder(name)
        # ants.zip may hold 1.jpg or ants/1.jpg.
        is_wrapped = all(member.split("/")[0].casefold() == folder.casefold() for member in source.names)
        for key, member in enumerate(source.names):
            joined_name = member if is_wrapped else f"{folder}/{member}"
            if joined_name not in members:
                members[joined_name] = (source, key)
            elif is_image_name(member):
                quarantined.append(Quarantined(source.display_path(key), "Another archive holds a file of its name."))
        quarantined += source.quarantined
        notes += source.notes
    joined = sorted(members)

    def read(key: int) -> bytes:
        source, member = members[joined[key]]
        return source.read(member)

    return Source(joined, read, str(root), skipped, quarantined, notes)


def _archive_folder(name: str) -> str:
    """Return the folder that an archive stands for; Teachable Machine calls the one of the class ants ants-samples.zip.

    >>> _archive_folder("ants-samples.zip"), _archive_folder("train.tar.gz")
    ('ants', 'train')
    """
    suffix = max((suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)), key=len)
    return name[: -len(suffix)].removesuffix("-samples")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112


def _is_file(entry: os.DirEntry[str]) -> bool:
    # DirEntry's own method raises for a link to itself, os.path's does not.
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()  # noqa: PTH113


def _is_inside(real_root: str, path: str) -> bool:
    """Return whether a path, its links resolved, lies in the folder ``real_root``."""
    return os.path.commonpath([real_root, os.path.realpath(path)]) == real_root


def _open_remote(uri: str) -> Source:
    """Open a folder or an archive behind an fsspec URL (memory://, http://, s3://, zip://...::...)."""
    import fsspec

    try:
        if uri.split("?")[0].lower().endswith(ARCHIVE_SUFFIXES):
            return _download_archive(uri)
        file_system, root = fsspec.core.url_to_fs(uri)
        listing = file_system.find(root)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{uri} cannot be read: {NOTHING_THERE}.") from None
    except Exception as error:  # every back end of fsspec raises its own
        raise DataError(
            f"{uri} cannot be read: {error_reason(error)}; check the address, or give the URL of an archive."
        ) from None
    if not listing and uri.startswith(("http://", "https://")):  # fsspec says no more of a host that is not there
        raise DataError(f"{uri} cannot be read: {NOTHING_THERE}, or give the URL of an archive or a table.")
    start = file_system._strip_protocol(root).rstrip("/") + "/"
    paths = {path[len(start) :] if path.startswith(start) else path.rsplit("/", 1)[-1]: path for path in listing}
    names = sorted(name for name in paths if safe_name(name) == name)

    def read(key: int) -> bytes:
        try:
            with file_system.open(paths[names[key]], "rb") as stream:
                return read_stream(stream, names[key])
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"Cannot be read: {error_reason(error)}.") from None

    return Source(names, read, uri)


def is_remote_folder(uri: str) -> bool:
    """Return whether an fsspec URL is that of a folder; False where nobody can be asked.

    A page on the web is one image, whatever it links to, unless its address ends with a slash.
    """
    import fsspec

    address = uri.split("?")[0]
    if address.endswith("/") or address.startswith(("http://", "https://")):
        return address.endswith("/")
    try:
        file_system, root = fsspec.core.url_to_fs(uri)
        return bool(file_system.isdir(root))
    except Exception:  # every back end of fsspec raises its own, and reading it will say why
        return False


def _download_archive(uri: str) -> Source:
    """Open an archive behind a URL, copied once to a temporary file: many servers cannot serve parts of a file."""
    import fsspec

    options = {"block_size": 0} if uri.startswith(("http://", "https://")) else {}  # as one stream, not in ranges
    copy = tempfile.NamedTemporaryFile(prefix="headstart-")  # noqa: SIM115  # it lives as long as the source
    try:
        size = 0
        with fsspec.open(uri, "rb", **options) as stream:
            while block := stream.read(BLOCK):
                size += len(block)
                if size > MAX_UNPACKED:
                    raise DataError(f"{uri} has more than {MAX_UNPACKED:,} bytes; split it.")
                copy.write(block)
        copy.flush()
        source = open_archive(uri, lambda: Path(copy.name).open("rb"))  # noqa: SIM115  # the source closes it
    except BaseException:
        copy.close()
        raise
    weakref.finalize(source.read, copy.close)
    return source
