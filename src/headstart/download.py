"""Public data sets by name: fetched, checked, unpacked; a broken download goes on where it stopped.

Bytes go to a part file beside the target, are compared with the hash that is recorded here, and are unpacked to a
folder beside the target that is renamed whole. Nothing has the target's name before everything is right, and
after a kill the next run goes on with what is there. One run at a time for one target.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import stat
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from headstart import __version__
from headstart.errors import DownloadError, OptionError
from headstart.images import is_picture_name

MAX_BYTES = 4 * 2**30  # of an archive
MAX_MEMBERS = 200_000
MAX_UNPACKED = 16 * 2**30
MAX_REDIRECTS = 5
CHUNK = 2**18
PAUSE = 1.0  # seconds before the second attempt; twice as long before each further one

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class File:
    """An archive (.zip, .tgz or .tar.gz) and the folder of the data set that it fills ("" for the data set itself).

    ``size`` is in bytes and ``sha256`` in lower-case hex as published; None where no figure was found.
    """

    url: str
    size: int | None
    sha256: str | None
    into: str = ""


@dataclass(frozen=True)
class PublicSet:
    """A data set: its archives, its licence, who made it, and what is in it."""

    name: str
    files: tuple[File, ...]
    licence: str
    source: str
    classes_note: str


_GOOGLE = "https://storage.googleapis.com"
_ALL = (
    PublicSet(
        "horses-or-humans",
        (  # figures: tensorflow/datasets, url_checksums/horses_or_humans.txt, which names these addresses
            File(
                f"{_GOOGLE}/download.tensorflow.org/data/horse-or-human.zip",
                149_574_867,
                "e2e6f70d3d549c5dd10a57165e55af253ee66ad750403f95c0fb76bb943633a9",
                "train",
            ),
            File(
                f"{_GOOGLE}/download.tensorflow.org/data/validation-horse-or-human.zip",
                11_480_187,
                "ae5fff2f4f5554791f05358108e2e05d9801b191f1896ea101402f0e7f6c32c0",
                "validation",
            ),
        ),
        "CC BY 2.0, https://creativecommons.org/licenses/by/2.0/",
        "Laurence Moroney, Horses or Humans, http://laurencemoroney.com/horses-or-humans-dataset",
        "horses and humans, rendered: 1,027 pictures to train, 256 for validation",
    ),
    PublicSet(
        "cats-and-dogs-filtered",
        (  # size: the length its server gave, as in several published logs; no published hash was found
            File(f"{_GOOGLE}/mledu-datasets/cats_and_dogs_filtered.zip", 68_606_236, None),
        ),
        "not stated by its publisher; a part of the Asirra photographs of Kaggle's Dogs vs. Cats, for study",
        "Google's machine learning courses, from https://www.kaggle.com/c/dogs-vs-cats",
        "cats and dogs, photographs: 2,000 to train, 1,000 for validation",
    ),
    PublicSet(
        "flower-photos",
        (  # figures: tensorflow/datasets, datasets/tf_flowers/checksums.tsv
            File(
                f"{_GOOGLE}/download.tensorflow.org/example_images/flower_photos.tgz",
                228_813_984,
                "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
            ),
        ),
        "CC BY 2.0, https://creativecommons.org/licenses/by/2.0/; LICENSE.txt names the photographers",
        "The TensorFlow Team, Flowers, https://www.tensorflow.org/datasets/catalog/tf_flowers",
        "daisy, dandelion, roses, sunflowers, tulips: 3,670 photographs, not split",
    ),
    PublicSet(
        "ants-bees",
        (  # hash: pytorch/tutorials, its own download script; size: the length its server gave, in published logs
            File(
                "https://download.pytorch.org/tutorial/hymenoptera_data.zip",
                47_286_322,
                "fbc41b31d544714d18dd1230b1e2b455e1557766e13e67f9f5a7a23af7c02209",
            ),
        ),
        "not stated by its publisher; a small part of ImageNet, whose pictures belong to their photographers",
        "PyTorch, Transfer Learning for Computer Vision Tutorial",
        "ants and bees, photographs: 245 files to train, 153 for validation; one is no photograph",
    ),
)
SETS: dict[str, PublicSet] = {one.name: one for one in _ALL}


class _Broken(Exception):
    """The connection did not bring everything; another attempt may."""


def _tell(note: str) -> None:
    print(note, file=sys.stderr)


def download(
    name: str,
    folder: str | os.PathLike[str],
    *,
    sets: Mapping[str, PublicSet] = SETS,
    sha256: str | None = None,
    timeout: float = 30,
    attempts: int = 5,
    progress: Progress | None = None,
    note: Callable[[str], None] = _tell,
) -> Path:
    """Fetch the public data set ``name`` into ``folder``, which must be missing or empty, and return the folder.

    ``sha256`` pins the archive of a set for which no hash is recorded; without it such an archive is accepted, and
    ``note`` is told so with the hash received. ``timeout`` [s] is how long a connection may say nothing; each of
    ``attempts`` per archive goes on where the last one stopped. ``progress(done, total)`` counts the bytes of an
    archive. Raises OptionError for the arguments, and DownloadError when bytes do not arrive or are not right.
    """
    target = Path(os.path.abspath(folder))  # noqa: PTH100  # resolve() would follow a link
    if name not in sets:
        raise OptionError(f"Unknown data set {name!r}; expected {', '.join(sets)}.")
    if attempts < 1 or not timeout > 0:
        raise OptionError(f"attempts is {attempts} and timeout {timeout}; expected at least 1, and more than 0 s.")
    try:
        if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise OptionError(f"{target} is there and not an empty folder; name one that does not exist.")
        wanted = _pinned(sets[name], sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        parts = [_part(target, name, file) for file in wanted.files]
        received = [
            _fetch(file, part, timeout, attempts, progress) for file, part in zip(wanted.files, parts, strict=True)
        ]
        for file, digest in zip(wanted.files, received, strict=True):
            if file.sha256 is None:
                note(
                    f"{file.url}: no published hash is known, so the bytes could not be checked; they have "
                    f"sha256 {digest}: give it to expect the same the next time."
                )
        _build(target, wanted, parts, received)
    except OSError as error:  # of the disk: what goes wrong on the way here is a DownloadError already
        raise DownloadError(
            f"Cannot write {error.filename or target}: {error.strerror or error}; free space or give another folder."
        ) from None
    for part in parts:
        _forget(part)
    return target


def _pinned(chosen: PublicSet, sha256: str | None) -> PublicSet:
    if sha256 is None:
        return chosen
    open_ones = [file for file in chosen.files if file.sha256 is None]
    if len(open_ones) != 1:
        raise OptionError(f"{chosen.name} has its hashes recorded; leave sha256 out.")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise OptionError(f"sha256 {sha256!r} is no SHA-256; expected 64 hexadecimal digits.")
    files = tuple(replace(f, sha256=sha256.lower()) if f.sha256 is None else f for f in chosen.files)
    return replace(chosen, files=files)


def _part(target: Path, name: str, file: File) -> Path:
    return target.parent / f".{name}.part-{hashlib.sha256(file.url.encode()).hexdigest()[:12]}"


def _note_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


# --- bytes over the network ------------------------------------------------------------------------------------------


def _fetch(file: File, part: Path, timeout: float, attempts: int, progress: Progress | None) -> str:
    """Bring the archive to ``part`` and return its SHA-256. Raises DownloadError."""
    if urlsplit(file.url).scheme not in ("http", "https"):
        raise DownloadError(f"{file.url} is refused; expected an address with https or http.")
    if file.size is not None and file.size > MAX_BYTES:
        raise DownloadError(f"{file.url} has {file.size:,} bytes, more than the limit of {MAX_BYTES:,}.")
    reason = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(min(PAUSE * 2 ** (attempt - 1), 10))
        try:
            _receive(file, part, timeout, progress, first=attempt == 0)
            return _checked(file, part)
        except _Broken as broken:
            reason = str(broken)
    raise DownloadError(
        f"{file.url} did not arrive in {attempts} attempts ({reason}); run the same command again to go on from there."
    )


def _receive(file: File, part: Path, timeout: float, progress: Progress | None, *, first: bool) -> None:
    """One connection: append what comes to ``part``. Raises _Broken unless the file is whole now."""
    version, total = _read_note(part)
    have = part.stat().st_size if part.exists() else 0
    if have and have == (file.size if file.size is not None else total):
        return
    if have and (not version or (file.size is not None and have > file.size)):
        _forget(part)  # what it is a part of is not known, so nothing may be glued to it
        have = 0
    headers = {"User-Agent": f"headstart/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        answer = _opener().open(urllib.request.Request(file.url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            if error.headers.get("Content-Range", "").replace(" ", "") == f"bytes*/{have}":
                return  # nothing comes after what is here
            _forget(part)
            raise _Broken("it could not go on from what is here") from None
        raise _refusal(file, error) from None
    except urllib.error.URLError as error:
        raise _unreachable(file, part, error.reason, first) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_why(error)) from None
    with answer:
        _append(answer, file, part, have, version, total, progress)


def _append(
    answer: Any, file: File, part: Path, have: int, version: str, total: int | None, progress: Progress | None
) -> None:
    """Write the body to ``part``, behind what is there if the server goes on from there, else from the start."""
    length = _number(answer.headers.get("Content-Length"))
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", answer.headers.get("Content-Range", ""))
        same = _version_of(answer.headers) in ("", version)
        if not have or not found or int(found[1]) != have or not same or _other(_number(found[2]), total):
            _forget(part)
            raise _Broken("it sent another part than asked for, or of another file")
    elif answer.status == 200:
        have, total = 0, length
        _forget(part)  # before the new note: a kill between them must not pair old bytes with a new version
        note = {"version": _version_of(answer.headers), "total": total}
        _note_of(part).write_text(json.dumps(note), "utf-8")
    else:
        raise _Broken(f"it answered {answer.status}")
    end = None if length is None else have + length
    limit = MAX_BYTES if file.size is None else file.size
    if file.size is None and (end or 0) > limit:
        _forget(part)
        raise DownloadError(f"{file.url} promises {end:,} bytes, more than the limit of {limit:,}.")
    shown = file.size if file.size is not None else total
    with part.open("ab" if have else "wb") as out:
        for block in _blocks(answer, None if end is None else end - have):
            have += len(block)
            if have > limit:
                break
            out.write(block)
            if progress is not None:
                progress(have, shown)
    if have > limit:
        _forget(part)
        raise DownloadError(f"{file.url} sends more than the {limit:,} bytes expected; it is not the file recorded.")
    whole = file.size if file.size is not None else total if total is not None else end
    if whole is not None and have < whole:
        raise _Broken(f"it ended after {have:,} of {whole:,} bytes")


def _blocks(answer: Any, length: int | None) -> Iterator[bytes]:
    """The body as it comes. ``read1`` gives what is there: a stall loses nothing that arrived before it."""
    left = length
    while left is None or left > 0:
        try:
            block = answer.read1(CHUNK if left is None else min(CHUNK, left))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _Broken(_why(error)) from None
        if not block:
            return
        if left is not None:
            left -= len(block)
        yield block


class _OneScheme(urllib.request.HTTPRedirectHandler):
    """Follow a few redirects, never to another scheme: not to file or ftp, and not from https to http."""

    max_redirections = MAX_REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
            raise urllib.error.HTTPError(newurl, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """For http and https alone; certificates and host names are verified."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        _OneScheme(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _refusal(file: File, error: urllib.error.HTTPError) -> Exception:
    """A status that will not change is a DownloadError, one that may is _Broken."""
    if 300 <= error.code < 400:
        to = str(error.headers.get("Location", "nowhere"))[:200]
        return DownloadError(
            f"{file.url} redirects to {to!r}; expected at most {MAX_REDIRECTS} redirects, to the same scheme."
        )
    if error.code >= 500 or error.code in (408, 425, 429):
        return _Broken(f"it answered {error.code}")
    return DownloadError(f"{file.url} answered {error.code}; it may have moved: look for a newer version of Headstart.")


def _unreachable(file: File, part: Path, reason: object, first: bool) -> Exception:
    """No connection at the first attempt: waiting will not help. Later, or after a silence, it may."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(f"{file.url} shows a certificate that is not valid here ({reason.verify_message}).")
    missing = isinstance(reason, ConnectionRefusedError | socket.gaierror) or (
        isinstance(reason, OSError) and not isinstance(reason, TimeoutError | ConnectionError | ssl.SSLError)
    )
    if first and missing:
        return DownloadError(
            f"{urlsplit(file.url).netloc} cannot be reached ({_why(reason)}); try again with a connection, or bring "
            f"{file.url} and save it as {part}."
        )
    return _Broken(_why(reason))


def _why(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "it fell silent"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return " ".join(str(reason).split())[:200] or type(reason).__name__


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text) else None


def _other(one: int | None, two: int | None) -> bool:
    return one is not None and two is not None and one != two


def _version_of(headers: Any) -> str:
    """What If-Range may name (RFC 9110, 13.1.5): a strong entity tag, else the date of the last change."""
    tag = str(headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(headers.get("Last-Modified", ""))


def _read_note(part: Path) -> tuple[str, int | None]:
    """Version and total length of the file that ``part`` is a part of; "" and None where they are not known."""
    try:
        note = json.loads(_note_of(part).read_text("utf-8"))
        version, total = note["version"], note["total"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "", None
    good = isinstance(version, str) and version.isprintable() and version.isascii()
    return version if good else "", total if type(total) is int else None


def _checked(file: File, part: Path) -> str:
    with part.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if file.sha256 is not None and digest != file.sha256:
        _forget(part)
        raise DownloadError(
            f"{file.url} has sha256 {digest}, expected {file.sha256}; it was changed or damaged, and is deleted."
        )
    return digest


# --- archives --------------------------------------------------------------------------------------------------------

DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError, RuntimeError,
    ValueError,
)  # fmt: skip


def _build(target: Path, chosen: PublicSet, parts: list[Path], received: list[str]) -> None:
    """Unpack everything beside ``target``, and rename it whole."""
    made = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(made, ignore_errors=True)  # what a killed run left
    try:
        whole = made / "whole"
        whole.mkdir(parents=True)
        for number, (file, part) in enumerate(zip(chosen.files, parts, strict=True)):
            unpacked = made / str(number)
            try:
                _unpack(part, file.url, unpacked)
            except DownloadError:
                _forget(part)
                raise
            _place(unpacked, whole / file.into)
        lines = [chosen.name, "", chosen.classes_note, f"Source: {chosen.source}", f"Licence: {chosen.licence}", ""]
        for file, digest in zip(chosen.files, received, strict=True):
            checked = "as recorded" if file.sha256 else "not checked: none is recorded"
            lines += [file.url, f"  sha256 {digest} ({checked})"]
        (whole / "SOURCE.txt").write_text("\n".join([*lines, ""]), "utf-8")
        if target.exists():
            target.rmdir()
        whole.rename(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _place(unpacked: Path, into: Path) -> None:
    """Move what was unpacked, without the folder that wraps it all; val becomes validation."""
    inside = list(unpacked.iterdir())
    if len(inside) == 1 and inside[0].is_dir():
        inside = list(inside[0].iterdir())
    into.mkdir(parents=True, exist_ok=True)
    for entry in inside:
        entry.rename(into / ("validation" if entry.name == "val" and entry.is_dir() else entry.name))


def _unpack(archive: Path, url: str, folder: Path) -> None:
    """Write the pictures and texts of an archive below ``folder``; raises DownloadError for anything odd in it."""
    members = _zip_members if urlsplit(url).path.lower().endswith(".zip") else _tar_members
    total, pictures = 0, 0
    folder.mkdir()
    try:
        for count, (name, reason, opened) in enumerate(members(archive)):
            if count >= MAX_MEMBERS:
                raise DownloadError(f"{url} has more than {MAX_MEMBERS:,} members; refused.")
            parts = _inside(name)
            if parts is None or reason:
                raise DownloadError(f"{url} holds {name[:200]!r}, {reason or 'a path that leaves it'}; refused.")
            if opened is None or any(part.startswith(".") or part == "__MACOSX" for part in parts):
                continue
            if not is_picture_name(name) and not name.lower().endswith(".txt"):
                continue
            pictures += is_picture_name(name)
            place = folder.joinpath(*parts)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                out = place.open("xb")
            except (FileExistsError, NotADirectoryError):
                raise DownloadError(f"{url} holds {name[:200]!r} twice; refused.") from None
            with out, opened() as stream:
                while block := stream.read(CHUNK):
                    total += len(block)
                    if total > MAX_UNPACKED:
                        raise DownloadError(f"{url} unpacks to more than {MAX_UNPACKED:,} bytes; refused.")
                    out.write(block)
    except DAMAGED as error:
        raise DownloadError(f"{url} is a damaged archive ({_why(error)}); it is deleted: try again.") from None
    if not pictures:
        raise DownloadError(f"{url} holds no pictures; it is not the archive recorded.")


Member = tuple[str, str, Callable[[], IO[bytes]] | None]  # its name, why it is refused or "", how to open it


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            reason = "a link or a device" if kind not in (0, stat.S_IFREG, stat.S_IFDIR) else ""
            reason = "encrypted" if info.flag_bits & 1 else reason
            # orig_filename: filename has been tidied for this system
            yield info.orig_filename, reason, None if info.is_dir() else lambda info=info: archive.open(info)


def _tar_members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:

            def opened(member: tarfile.TarInfo = member) -> IO[bytes]:
                stream = archive.extractfile(member)
                if stream is None:
                    raise tarfile.ReadError("a file without contents")
                return stream

            regular = member.isdir() or (member.isreg() and member.sparse is None)
            yield member.name, "" if regular else "a link or a device", None if member.isdir() else opened


def _inside(name: str) -> list[str] | None:
    """The parts of a relative path with '/' that stays where it is; None for any other."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or not name.isprintable() or "\\" in name or ":" in name:
        return None
    return [part for part in parts if part not in ("", ".")] or None
