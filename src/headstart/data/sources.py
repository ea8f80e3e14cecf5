"""Sources of image files: local folders, archives, and fsspec URLs of either."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections import Counter
from pathlib import Path

from headstart.data.archives import ARCHIVE_SUFFIXES, BLOCK, MAX_UNPACKED, open_archive, safe_name
from headstart.data.reading import Source, error_reason, missing_path, read_file, read_stream
from headstart.errors import DataError, ImageError
from headstart.images.decode import is_image_name


def open_source(uri: str) -> Source:
    """Open the folder or archive at a path or URL. Raises DataError."""
    if "://" in uri or "::" in uri:
        return _open_remote(uri)
    path = Path(uri)
    if os.path.isdir(path):  # noqa: PTH112  # Path's own raises for names that are too long
        return _open_folder(path)
    if not os.path.exists(path):  # noqa: PTH110
        raise DataError(missing_path(uri, "a folder, an archive, a table or a URL"))
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return open_archive(uri, lambda: path.open("rb"))
    raise DataError(
        f"{uri} is not a dataset; give a folder, a zip or tar archive, a table (.csv, .parquet, .jsonl) or a URL."
    )


def _open_folder(root: Path) -> Source:
    """List the files below a folder. Links are followed while they stay inside it, and never in a circle."""
    names: list[str] = []
    skipped: Counter[str] = Counter()
    real_root = os.path.realpath(root)
    visited = {real_root}
    pending = [""]  # folders relative to the root
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            if not folder:
                raise DataError(f"Cannot list {root}: {error_reason(error)}.") from None
            skipped["unreadable folder"] += 1
            continue
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_symlink() and not _is_inside(real_root, entry.path):
                skipped["link that leaves the folder"] += 1
            elif _is_folder(entry):
                real_path = os.path.realpath(entry.path)
                if real_path not in visited:
                    visited.add(real_path)
                    pending.append(name)
            elif _is_file(entry) or not is_image_name(name):
                names.append(name)
            else:
                skipped["not a file"] += 1
    names.sort()
    return Source(names, lambda key: read_file(f"{root}{os.sep}{names[key]}"), str(root), skipped)


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
    except Exception as error:  # every back end of fsspec raises its own
        raise DataError(
            f"{uri} cannot be read: {error_reason(error)}; check the address, or give the URL of an archive."
        ) from None
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
