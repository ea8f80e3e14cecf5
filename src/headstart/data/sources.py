"""Where bytes come from: a local folder, a zip or tar archive, an fsspec URL. Nothing is unpacked to disk.

Names inside archives are never used as paths of this machine: they only name the class and the picture.
"""

from __future__ import annotations

import difflib
import os
import stat
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from headstart.data.dataset import Quarantined
from headstart.errors import DataError, ImageError
from headstart.images.decode import MAX_BYTES, is_image_name

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, RuntimeError)
MAX_MEMBERS = 5_000_000
MAX_UNPACKED = 64 * 2**30  # of a compressed tar, which has to be unpacked once to be read at random


@dataclass(frozen=True)
class Source:
    """Names of files relative to the root, with '/', and how to read one by its number."""

    names: Sequence[str]
    read: Callable[[int], bytes] = field(repr=False)
    prefix: str
    skipped: Mapping[str, int] = field(default_factory=dict)
    quarantined: Sequence[Quarantined] = ()

    def shown(self, number: int) -> str:
        """The path to show to the user."""
        return f"{self.prefix.rstrip('/')}/{self.names[number]}"


def open_source(uri: str) -> Source:
    """The source at a path or URL. Raises DataError when nothing is there."""
    if "://" in uri or "::" in uri:
        return _remote(uri)
    path = Path(uri)
    if os.path.isdir(path):  # noqa: PTH112  # Path's own raises for names that are too long
        return _folder(path)
    if not os.path.exists(path):  # noqa: PTH110
        raise DataError(f"There is no {uri}{_nearest(path)}; give a folder, an archive, a table or a URL.")
    if path.name.lower().endswith(ARCHIVES):
        return _archive(lambda: path.open("rb"), uri)
    raise DataError(
        f"{uri} is no data set; give a folder, a zip or tar archive, a table (.csv, .parquet, .jsonl) or a URL."
    )


def open_archive(path: Path, ending: str) -> Source:
    """The archive in a file whose own name may say nothing: ``ending`` is ".zip" or ".tgz". Raises DataError."""
    return _archive(lambda: path.open("rb"), f"{path}{ending}")


def read_file(path: str) -> bytes:
    """The bytes of a local file or URL, at most ``images.MAX_BYTES``. Raises ImageError."""
    try:
        if "://" in path:
            import fsspec

            with fsspec.open(path, "rb") as stream:
                return _limited(stream, path)
        with open(path, "rb") as stream:  # noqa: PTH123  # of thousands of files a Path each is a tenth of the time
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ImageError("Not a regular file.")
            return _limited(stream, path, found.st_size)
    except ImageError:
        raise
    except Exception as error:  # fsspec's back ends raise errors of their own
        raise ImageError(f"Cannot be read: {_why(error)}.") from None


def _limited(stream: IO[bytes], name: str, expected: int = MAX_BYTES) -> bytes:
    """All bytes of a stream. Python reserves as many as are asked for, so the ``expected`` ones are asked for first."""
    data = stream.read(min(expected, MAX_BYTES) + 1)
    if len(data) > expected:  # it has grown, or its system does not say
        data += stream.read(MAX_BYTES + 1 - len(data))
    if len(data) > MAX_BYTES:
        raise ImageError(f"{PurePosixPath(name).name} has more bytes than the limit of {MAX_BYTES:,}.")
    return data


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _nearest(path: Path) -> str:
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, beside, n=1)
    return f" (did you mean {path.parent / close[0]}?)" if close else ""


def _folder(root: Path) -> Source:
    """Files below a folder. Links are followed as long as they stay in it, and never round in a circle."""
    names: list[str] = []
    skipped: dict[str, int] = {}
    home = os.path.realpath(root)
    stack, seen = [""], {home}
    while stack:
        below = stack.pop()
        try:
            entries = list(os.scandir(root / below))
        except OSError as error:
            if not below:
                raise DataError(f"Cannot list {root}: {_why(error)}.") from None
            skipped["unreadable folder"] = skipped.get("unreadable folder", 0) + 1
            continue
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if os.path.commonpath([home, target]) != home:
                    skipped["link that leaves the folder"] = skipped.get("link that leaves the folder", 0) + 1
                    continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in seen:
                    seen.add(real)
                    stack.append(name)
            elif entry.is_file() or not is_image_name(name):
                names.append(name)
            else:
                skipped["not a file"] = skipped.get("not a file", 0) + 1
    names.sort()
    return Source(names, lambda number: read_file(f"{root}{os.sep}{names[number]}"), str(root), skipped)


def _archive(reopen: Callable[[], IO[bytes]], uri: str) -> Source:
    streams: list[IO[bytes]] = []  # closed with the last use of the source

    def opened() -> IO[bytes]:
        streams.append(reopen())
        return streams[-1]

    try:
        source = _zip(opened, uri) if uri.split("?")[0].lower().endswith(".zip") else _tar(opened, uri, streams)
    except BaseException as error:
        _close(streams)
        if isinstance(error, _BROKEN):
            raise DataError(f"{uri} cannot be read as an archive: {_why(error)}; is it whole?") from None
        raise
    weakref.finalize(source.read, _close, streams)
    return source


def _close(streams: Sequence[IO[bytes]]) -> None:
    for stream in streams:
        stream.close()


def _safe(name: str) -> str | None:
    """A member's name as a relative path with '/', or None for one that tries to leave the archive."""
    name = name.replace("\\", "/")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or (len(parts[0]) == 2 and parts[0][1] == ":"):
        return None
    return "/".join(part for part in parts if part not in ("", "."))


def _zip(reopen: Callable[[], IO[bytes]], uri: str) -> Source:
    """Members of a zip. Each thread has its own open file, so reads go side by side."""
    local = threading.local()

    def archive() -> zipfile.ZipFile:
        if not hasattr(local, "zip"):
            local.zip = zipfile.ZipFile(reopen())
        opened: zipfile.ZipFile = local.zip
        return opened

    members: dict[str, zipfile.ZipInfo] = {}
    quarantined: list[Quarantined] = []
    infos = archive().infolist()
    _check_count(len(infos), uri)
    for info in infos:
        name = None if info.is_dir() else _safe(info.filename)
        if info.is_dir():
            continue
        reason = None
        if name is None:
            reason = "Its path leaves the archive."
        elif info.flag_bits & 1:
            reason = "It is encrypted."
        elif stat.S_ISLNK(info.external_attr >> 16):
            reason = "It is a link."
        elif info.file_size > MAX_BYTES:
            reason = f"It has {info.file_size:,} bytes, more than the limit of {MAX_BYTES:,}."
        elif name in members:
            reason = "Its name comes twice."
        if reason is None and name is not None:
            members[name] = info
        elif is_image_name(info.filename):
            quarantined.append(Quarantined(f"{uri}/{info.filename}", reason or ""))
    names = sorted(members)

    def read(number: int) -> bytes:
        try:
            with archive().open(members[names[number]]) as stream:
                return _limited(stream, names[number])
        except ImageError:
            raise
        except Exception as error:  # zlib.error, BadZipFile, NotImplementedError, RuntimeError, ...
            raise ImageError(f"Cannot be read from the archive: {_why(error)}.") from None

    return Source(names, read, uri, quarantined=quarantined)


def _tar(reopen: Callable[[], IO[bytes]], uri: str, streams: list[IO[bytes]]) -> Source:
    """Members of a tar, by their place in the file.

    A compressed tar cannot be read at random: it is decompressed once into an unnamed temporary file, which
    vanishes with the process. Member paths are never used.
    """
    stream = reopen()
    plain = _decompressed(stream, uri, streams)
    lock = threading.Lock()
    members: dict[str, tuple[int, int]] = {}
    quarantined: list[Quarantined] = []
    plain.seek(0)
    with tarfile.open(fileobj=plain, mode="r:") as archive:
        for count, member in enumerate(archive):
            _check_count(count, uri)
            archive.members = []  # type: ignore[attr-defined]  # else a million members stay in memory
            if member.isdir():
                continue
            name = _safe(member.name)
            if not member.isreg() or member.sparse is not None:
                reason = "It is a link or a device, not a file."
            elif name is None:
                reason = "Its path leaves the archive."
            elif member.size > MAX_BYTES:
                reason = f"It has {member.size:,} bytes, more than the limit of {MAX_BYTES:,}."
            else:
                members[name] = (member.offset_data, member.size)  # as tar does, the last of a name counts
                continue
            if is_image_name(member.name):
                quarantined.append(Quarantined(f"{uri}/{member.name}", reason))
    names = sorted(members)

    def read(number: int) -> bytes:
        offset, size = members[names[number]]
        with lock:
            plain.seek(offset)
            data = plain.read(size)
        if len(data) < size:
            raise ImageError("Cannot be read from the archive: it was cut off.")
        return data

    return Source(names, read, uri, quarantined=quarantined)


def _decompressed(stream: IO[bytes], uri: str, streams: list[IO[bytes]]) -> IO[bytes]:
    import bz2
    import gzip
    import lzma

    head = stream.read(6)
    stream.seek(0)
    opener: Any = gzip.open if head[:2] == b"\x1f\x8b" else bz2.open if head[:3] == b"BZh" else lzma.open
    if head[:2] != b"\x1f\x8b" and head[:3] != b"BZh" and head != b"\xfd7zXZ\x00":
        return stream  # a plain tar, whatever its name
    plain = tempfile.TemporaryFile(prefix="headstart-")  # noqa: SIM115  # lives as long as the data set
    streams.append(plain)
    total = 0
    try:
        with opener(stream) as packed:
            while block := packed.read(2**20):
                total += len(block)
                if total > MAX_UNPACKED:
                    raise DataError(f"{uri} unpacks to more than {MAX_UNPACKED:,} bytes; give the folder instead.")
                plain.write(block)
    except lzma.LZMAError as error:
        raise DataError(f"{uri} cannot be read as an archive: {_why(error)}; is it whole?") from None
    return plain


def _check_count(count: int, uri: str) -> None:
    if count > MAX_MEMBERS:
        raise DataError(f"{uri} has more than {MAX_MEMBERS:,} members; split it.")


def _fetched(uri: str) -> Source:
    """An archive behind a URL, copied once to a temporary file: many servers cannot serve parts of a file."""
    import fsspec

    whole = {"block_size": 0} if uri.startswith(("http://", "https://")) else {}
    copy = tempfile.NamedTemporaryFile(prefix="headstart-")  # noqa: SIM115  # lives as long as the data set
    try:
        total = 0
        with fsspec.open(uri, "rb", **whole) as stream:
            while block := stream.read(2**20):
                total += len(block)
                if total > MAX_UNPACKED:
                    raise DataError(f"{uri} has more than {MAX_UNPACKED:,} bytes; split it.")
                copy.write(block)
        copy.flush()
        source = _archive(lambda: Path(copy.name).open("rb"), uri)  # noqa: SIM115  # the source closes it
    except BaseException:
        copy.close()
        raise
    weakref.finalize(source.read, copy.close)
    return source


def _remote(uri: str) -> Source:
    """A folder or an archive behind an fsspec URL (memory://, http://, s3://, zip://...::...)."""
    import fsspec

    try:
        if uri.split("?")[0].lower().endswith(ARCHIVES):
            return _fetched(uri)
        system, root = fsspec.core.url_to_fs(uri)
        listing = system.find(root)
    except (DataError, ImportError):
        raise
    except Exception as error:  # every fsspec back end raises its own
        raise DataError(f"{uri} cannot be read: {_why(error)}; check the address, or give an archive's URL.") from None
    start = system._strip_protocol(root).rstrip("/") + "/"
    full = {path[len(start) :] if path.startswith(start) else path.rsplit("/", 1)[-1]: path for path in listing}
    names = sorted(name for name in full if _safe(name) == name)

    def read(number: int) -> bytes:
        try:
            with system.open(full[names[number]], "rb") as stream:
                return _limited(stream, names[number])
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"Cannot be read: {_why(error)}.") from None

    return Source(names, read, uri)
