"""Zip and tar archives as sources. Members are read in place; no member is ever unpacked to the disk.

Names of members are never used as paths of this machine: they only name the class and the image.
"""

from __future__ import annotations

import stat
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable, Container, Sequence
from typing import IO, Any

from headstart.data.dataset import Quarantined
from headstart.data.reading import Source, error_reason, read_stream
from headstart.errors import DataError, ImageError
from headstart.images.decoding import MAX_BYTES, is_image_name

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_MEMBERS = 5_000_000
MAX_UNPACKED = 64 * 2**30  # bytes of a compressed tar, which is decompressed once so that it can be read at random
BLOCK = 2**20  # bytes that are decompressed at a time
# What zipfile, tarfile and the decompressors raise for malformed bytes.
MALFORMED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, RuntimeError)

OpenStream = Callable[[], IO[bytes]]


def open_archive(uri: str, open_stream: OpenStream) -> Source:
    """Open a zip archive, or a tar archive plain or compressed by gzip, bzip2 or xz. Raises DataError.

    ``open_stream`` opens the file; it is called again for each thread that reads a zip. The ending of ``uri``, which
    is also shown in messages, tells a zip from a tar.
    """
    streams: list[IO[bytes]] = []  # closed when the source is no longer used

    def open_tracked() -> IO[bytes]:
        stream = open_stream()
        streams.append(stream)
        return stream

    try:
        if uri.split("?")[0].lower().endswith(".zip"):
            source = _open_zip(uri, open_tracked)
        else:
            source = _open_tar(uri, open_tracked(), streams)
    except BaseException as error:
        _close(streams)
        if isinstance(error, MALFORMED):
            raise _unreadable(uri, error) from None
        raise
    weakref.finalize(source.read, _close, streams)
    return source


def safe_name(name: str) -> str | None:
    """Return a member's name as a relative path with '/', or None if it points outside the archive."""
    name = name.replace("\\", "/")
    parts = name.split("/")
    is_drive = len(parts[0]) == 2 and parts[0][1] == ":"
    if name.startswith("/") or ".." in parts or "\0" in name or is_drive:
        return None
    return "/".join(part for part in parts if part not in ("", "."))


def _open_zip(uri: str, open_stream: OpenStream) -> Source:
    """List a zip archive. Each thread has an open file of its own, so that threads read side by side."""
    local = threading.local()

    def archive() -> zipfile.ZipFile:
        if not hasattr(local, "archive"):
            local.archive = zipfile.ZipFile(open_stream())
        opened: zipfile.ZipFile = local.archive
        return opened

    members: dict[str, zipfile.ZipInfo] = {}
    quarantined: list[Quarantined] = []
    infos = archive().infolist()
    _check_count(len(infos), uri)
    for info in infos:
        if info.is_dir():
            continue
        name = safe_name(info.filename)
        reason = _zip_problem(info, name, members)
        if name is not None and reason is None:
            members[name] = info
        elif is_image_name(info.filename):
            quarantined.append(Quarantined(f"{uri}/{info.filename}", reason or ""))
    names = sorted(members)

    def read(key: int) -> bytes:
        try:
            with archive().open(members[names[key]]) as stream:
                return read_stream(stream, names[key])
        except ImageError:
            raise
        except Exception as error:  # zlib.error, BadZipFile, NotImplementedError, RuntimeError, ...
            raise ImageError(f"Cannot be read from the archive: {error_reason(error)}.") from None

    return Source(names, read, uri, quarantined=quarantined)


def _zip_problem(info: zipfile.ZipInfo, name: str | None, names: Container[str]) -> str | None:
    """Return why a member with the safe name ``name`` is refused, if it is; ``names`` are those before it."""
    if name is None:
        return "Its path points outside the archive."
    if info.flag_bits & 1:
        return "It is encrypted."
    if stat.S_ISLNK(info.external_attr >> 16):
        return "It is a link."
    if info.file_size > MAX_BYTES:
        return f"It has {info.file_size:,} bytes, more than the limit of {MAX_BYTES:,}."
    if name in names:
        return "Its name occurs more than once."
    return None


def _open_tar(uri: str, stream: IO[bytes], streams: list[IO[bytes]]) -> Source:
    """List a tar archive by the offsets of its members. A decompressed copy is added to ``streams``."""
    plain = _decompress(uri, stream, streams)
    plain.seek(0)
    lock = threading.Lock()
    members: dict[str, tuple[int, int]] = {}
    quarantined: list[Quarantined] = []
    with tarfile.open(fileobj=plain, mode="r:") as archive:
        for count, member in enumerate(archive):
            _check_count(count, uri)
            archive.members = []  # type: ignore[attr-defined]  # otherwise a million members stay in memory
            if member.isdir():
                continue
            name = safe_name(member.name)
            reason = _tar_problem(member, name)
            if name is not None and reason is None:
                members[name] = (member.offset_data, member.size)  # of equal names the last counts, as for tar
            elif is_image_name(member.name):
                quarantined.append(Quarantined(f"{uri}/{member.name}", reason or ""))
    names = sorted(members)

    def read(key: int) -> bytes:
        offset, size = members[names[key]]
        with lock:
            plain.seek(offset)
            data = plain.read(size)
        if len(data) < size:
            raise ImageError("Cannot be read from the archive: it was cut off.")
        return data

    return Source(names, read, uri, quarantined=quarantined)


def _tar_problem(member: tarfile.TarInfo, name: str | None) -> str | None:
    """Return why a member with the safe name ``name`` is refused, if it is."""
    if not member.isreg() or member.sparse is not None:
        return "It is a link or a device, not a file."
    if name is None:
        return "Its path points outside the archive."
    if member.size > MAX_BYTES:
        return f"It has {member.size:,} bytes, more than the limit of {MAX_BYTES:,}."
    return None


def _decompress(uri: str, stream: IO[bytes], streams: list[IO[bytes]]) -> IO[bytes]:
    """Return a plain tar: the stream itself, or a decompressed copy of it.

    A compressed tar cannot be read at random, so it is decompressed once into an unnamed temporary file, which the
    system removes with the process.
    """
    import bz2
    import gzip
    import lzma

    openers: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    start = stream.read(6)
    stream.seek(0)
    decompressor = next((opener for magic, opener in openers.items() if start.startswith(magic)), None)
    if decompressor is None:
        return stream  # a plain tar, whatever its name
    plain = tempfile.TemporaryFile(prefix="headstart-")  # noqa: SIM115  # it lives as long as the source
    streams.append(plain)
    size = 0
    try:
        with decompressor(stream) as decompressed:
            while block := decompressed.read(BLOCK):
                size += len(block)
                if size > MAX_UNPACKED:
                    raise DataError(f"{uri} unpacks to more than {MAX_UNPACKED:,} bytes; give the folder instead.")
                plain.write(block)
    except lzma.LZMAError as error:
        raise _unreadable(uri, error) from None
    return plain


def _check_count(count: int, uri: str) -> None:
    if count > MAX_MEMBERS:
        raise DataError(f"{uri} has more than {MAX_MEMBERS:,} members; split it.")


def _unreadable(uri: str, error: BaseException) -> DataError:
    return DataError(f"{uri} cannot be read as an archive: {error_reason(error)}; is it complete?")


def _close(streams: Sequence[IO[bytes]]) -> None:
    for stream in streams:
        stream.close()
