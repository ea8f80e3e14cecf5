"""Zip and tar archives as sources. Members are read in place; no member is ever unpacked to the disk.

Names of members are never used as paths of this machine: they only name the class and the image.
"""

from __future__ import annotations

import bz2
import lzma
import stat
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable, Container, Sequence
from copy import copy
from typing import IO, Any

from headstart.data.dataset import Quarantined
from headstart.data.reading import Source, error_reason, read_stream
from headstart.errors import DataError, ImageError
from headstart.images.decoding import MAX_BYTES, is_image_name

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_MEMBERS = 5_000_000
MAX_UNPACKED = 64 * 2**30  # bytes of a compressed tar, which is decompressed once so that it can be read at random
BLOCK = 2**20  # bytes that are decompressed at a time
LZMA_HEADER = 9  # bytes: version, length of the properties, properties
# What zipfile, tarfile and the decompressors raise for malformed bytes.
MALFORMED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, RuntimeError)

COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")  # gzip, bzip2, xz
OTHER_ARCHIVES = (b"7z\xbc\xaf'\x1c", b"Rar!\x1a\x07", b"\x28\xb5\x2f\xfd")
UTF_8 = 0x800  # the flag of a zip's member whose name is UTF-8

OpenStream = Callable[[], IO[bytes]]


def open_archive(uri: str, open_stream: OpenStream) -> Source:
    """Open a zip archive, or a tar archive plain or compressed by gzip, bzip2 or xz. Raises DataError.

    ``open_stream`` opens the file; it is called again for each thread that reads a zip. The first bytes tell a zip from
    a tar, and the ending of ``uri``, which is also shown in messages, where they do not.
    """
    streams: list[IO[bytes]] = []  # closed when the source is no longer used

    def open_tracked() -> IO[bytes]:
        stream = open_stream()
        streams.append(stream)
        return stream

    try:
        stream = open_tracked()
        start = stream.read(512)
        stream.seek(0)
        _check_start(uri, start)
        if not _is_tar(start) and (start.startswith(b"PK") or uri.split("?")[0].lower().endswith(".zip")):
            source = _open_zip(uri, open_tracked)
        else:
            source = _open_tar(uri, stream, streams)
    except BaseException as error:
        _close(streams)
        if isinstance(error, MALFORMED) and not isinstance(error, DataError):
            raise _unreadable(uri, error) from None
        raise
    weakref.finalize(source.read, _close, streams)
    return source


def _is_tar(start: bytes) -> bool:
    """Return whether a file that begins so is a tar archive, plain or compressed."""
    return start.startswith(COMPRESSED) or start[257:262] == b"ustar"


def _check_start(uri: str, start: bytes) -> None:
    """Raise DataError for a file that is no archive at all: pages of errors and of logins are saved as such."""
    if not start:
        raise DataError(f"{uri} is empty; expected an archive. Download or copy it again.")
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise DataError(f"{uri} is a web page, not an archive; download the archive itself, in a browser if need be.")
    if start.startswith(OTHER_ARCHIVES):
        raise DataError(f"{uri} is a 7z, rar or zstd archive, whatever its name; pack the images as zip or tar.")


def safe_name(name: str) -> str | None:
    """Return a member's name as a relative path with '/', or None if it has none or points outside the archive."""
    name = name.replace("\\", "/")
    parts = name.split("/")
    is_drive = len(parts[0]) == 2 and parts[0][1] == ":"
    if name.startswith("/") or ".." in parts or "\0" in name or is_drive:
        return None
    return "/".join(part for part in parts if part not in ("", ".")) or None


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
    doubted = ""
    for info in infos:
        if info.filename.endswith("/"):  # not is_dir, which fails for an empty name
            continue
        given = _zip_name(info)
        name = safe_name(given or info.filename)
        doubted = doubted or ("" if given else info.filename)
        reason = _zip_problem(info, name, members)
        if name is not None and reason is None:
            members[name] = info
        elif is_image_name(info.filename):
            quarantined.append(Quarantined(f"{uri}/{given or info.filename}", reason or ""))
    names = sorted(members)
    notes = [f"The names in {uri} are not UTF-8, and were read as CP437: check names with accents ({doubted})."]

    def read(key: int) -> bytes:
        try:
            return _unpack(archive(), members[names[key]])
        except ImageError:
            raise
        except Exception as error:  # zlib.error, BadZipFile, NotImplementedError, RuntimeError, ...
            raise ImageError(f"Cannot be read from the archive: {error_reason(error)}.") from None

    return Source(names, read, uri, quarantined=quarantined, notes=notes if doubted else ())


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name of a member, empty where its encoding is not known and CP437 is as good as any.

    By the standard a name without the flag is CP437, as zipfile reads it; macOS writes UTF-8 without the flag.
    """
    if info.flag_bits & UTF_8 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return ""


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of a member, never more than its header claims, which is limited.

    zipfile lets bzip2 and LZMA unpack all that they hold before it looks at that number, so these are unpacked here.
    """
    if info.compress_type not in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with archive.open(info) as stream:
            return read_stream(stream, info.filename, info.file_size)
    packed = copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    packed.CRC = None  # type: ignore[assignment]  # zipfile then does not compare it with that of the packed bytes
    with archive.open(packed) as stream:
        data = read_stream(stream, info.filename, info.compress_size)
    if info.compress_type == zipfile.ZIP_BZIP2:
        unpacked = bz2.BZ2Decompressor().decompress(data, info.file_size)
    else:
        unpacked = _lzma(data).decompress(data[LZMA_HEADER:], info.file_size)
    if zlib.crc32(unpacked) != info.CRC:
        raise ImageError("Cannot be read from the archive: its checksum differs.")
    return unpacked


def _lzma(data: bytes) -> lzma.LZMADecompressor:
    """Return the decompressor of a member whose packed bytes these are (APPNOTE.TXT of zip, section 5.8)."""
    properties, dictionary = data[4], int.from_bytes(data[5:LZMA_HEADER], "little")
    if data[2:4] != b"\5\0" or dictionary > MAX_BYTES:
        raise ImageError("Cannot be read from the archive: it needs too much memory.")
    filters = {"id": lzma.FILTER_LZMA1, "dict_size": dictionary}
    filters |= {"lc": properties % 9, "lp": properties // 9 % 5, "pb": properties // 45}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[filters])


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
    import gzip

    openers: dict[bytes, Callable[..., Any]] = dict(zip(COMPRESSED, (gzip.open, bz2.open, lzma.open), strict=True))
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
