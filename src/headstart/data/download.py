"""Public data sets by name: fetched, checked, unpacked; a broken download goes on where it stopped.

Bytes go to a part file beside the target, are compared with the hash that is recorded here, and are unpacked to a
temporary folder that is renamed whole. Nothing is under the target's name before everything is right.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from headstart import __version__
from headstart.errors import DataError, DownloadError, ImageError, OptionError

MAX_BYTES = 4 * 2**30
MAX_MEMBERS = 200_000
MAX_UNPACKED = 16 * 2**30
CHUNK = 2**18
REDIRECTS = 5


@dataclass(frozen=True)
class File:
    """An archive: where it is, how large, its SHA-256 (None where nobody published one), and where it goes.

    ``wrapped`` is the folder inside the archive whose contents count; ``into`` the folder of the set it fills.
    """

    url: str
    size: int | None
    sha256: str | None
    wrapped: str = ""
    into: str = ""


@dataclass(frozen=True)
class PublicSet:
    """A data set: its archives, licence, and the page that describes it."""

    files: tuple[File, ...]
    licence: str
    source: str


BUCKET = "https://storage.googleapis.com"
# Sizes and hashes: TensorFlow Datasets' url_checksums (horses-or-humans, flower-photos), PyTorch's tutorials
# (ants-bees); for cats-and-dogs-filtered a size alone is known, from the course's own notebooks.
SETS: dict[str, PublicSet] = {
    "horses-or-humans": PublicSet(
        (
            File(
                f"{BUCKET}/download.tensorflow.org/data/horse-or-human.zip", 149_574_867,
                "e2e6f70d3d549c5dd10a57165e55af253ee66ad750403f95c0fb76bb943633a9", into="train",
            ),
            File(
                f"{BUCKET}/download.tensorflow.org/data/validation-horse-or-human.zip", 11_480_187,
                "ae5fff2f4f5554791f05358108e2e05d9801b191f1896ea101402f0e7f6c32c0", into="validation",
            ),
        ),
        "CC BY 2.0, Laurence Moroney", "https://laurencemoroney.com/datasets.html",
    ),
    "cats-and-dogs-filtered": PublicSet(
        (
            File(
                f"{BUCKET}/mledu-datasets/cats_and_dogs_filtered.zip", 68_606_236, None,
                wrapped="cats_and_dogs_filtered",
            ),
        ),
        "not stated; a part of Kaggle's Dogs vs. Cats", "https://www.kaggle.com/c/dogs-vs-cats",
    ),
    "flower-photos": PublicSet(
        (
            File(
                f"{BUCKET}/download.tensorflow.org/example_images/flower_photos.tgz", 228_813_984,
                "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c", wrapped="flower_photos",
            ),
        ),
        "CC BY 2.0, the photographers named in LICENSE.txt", "https://www.tensorflow.org/datasets/catalog/tf_flowers",
    ),
    "ants-bees": PublicSet(
        (
            File(
                "https://download.pytorch.org/tutorial/hymenoptera_data.zip", 47_286_322,
                "fbc41b31d544714d18dd1230b1e2b455e1557766e13e67f9f5a7a23af7c02209", wrapped="hymenoptera_data",
            ),
        ),
        "not stated; a part of ImageNet, for research",
        "https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html",
    ),
}  # fmt: skip


def download(
    name: str, folder: str | os.PathLike[str], *, sets: Mapping[str, PublicSet] | None = None, timeout: float = 30,
    attempts: int = 5, progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, str]:  # fmt: skip
    """Fetch a public data set into ``folder`` and return the SHA-256 of each archive by URL.

    ``timeout`` in seconds is for a connection that says nothing; each of ``attempts`` goes on where the last one
    stopped. ``progress(done, total)`` counts bytes. Raises OptionError, DownloadError.
    """
    known = SETS if sets is None else sets
    target = Path(folder)
    if name not in known:
        raise OptionError(f"Unknown data set {name!r}; expected {', '.join(known)}.")
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise OptionError(f"{target} is not an empty folder; give another name for the data set.")
    chosen = known[name]
    hashes: dict[str, str] = {}
    parts = {
        file.url: target.parent / f".{name}-{hashlib.sha256(file.url.encode()).hexdigest()[:12]}.part"
        for file in chosen.files
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            for file in chosen.files:
                hashes[file.url] = _fetch(file, parts[file.url], timeout, attempts, progress)
                _unpack(parts[file.url], file, made)
            (made / "SOURCE.md").write_text(_about(name, chosen, hashes), "utf-8")
            if target.exists():
                target.rmdir()
            made.replace(target)
        for part in parts.values():
            _forget(part)
    except OSError as error:
        raise DownloadError(f"Cannot write {target}: {error.strerror or error}; is there room on the disk?") from None
    return hashes


def _about(name: str, chosen: PublicSet, hashes: Mapping[str, str]) -> str:
    lines = [f"# {name}", "", f"Source: {chosen.source}", f"Licence: {chosen.licence}", ""]
    return "\n".join([*lines, *(f"- {url}: sha256 {digest}" for url, digest in hashes.items()), ""])


def _fetch(
    file: File, part: Path, timeout: float, attempts: int, progress: Callable[[int, int | None], None] | None
) -> str:
    """Bring the archive to ``part`` and return its SHA-256. Raises DownloadError."""
    reason = "nothing arrived"
    for attempt in range(attempts):
        if attempt:
            time.sleep(min(2.0 ** (attempt - 1), 10) * min(timeout / 30, 1))
        try:
            if _receive(file, part, timeout, progress):
                return _checked(file, part)
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            error.close()
            if 300 <= error.code < 400:
                raise DownloadError(
                    f"{file.url} redirects to {error.headers.get('Location', 'nowhere')[:100]!r}; expected at most "
                    f"{REDIRECTS} redirects, to web addresses."
                ) from None
            if error.code < 500 and error.code not in (408, 416, 429):
                raise DownloadError(f"{file.url} answered {error.code} {error.reason}; has it moved?") from None
            if error.code == 416:  # what is here is not a part of what is there
                _forget(part)
            reason = f"it answered {error.code}"
        except urllib.error.URLError as error:
            reason = str(error.reason)
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise DownloadError(
                    f"{file.url} shows a certificate that is not valid here ({error.reason.verify_message}); "
                    "is the clock right, or is there a proxy between?"
                ) from None
            if not isinstance(error.reason, TimeoutError) and attempt and not part.exists():
                raise DownloadError(
                    f"{urlsplit(file.url).netloc} cannot be reached ({reason}); this machine seems to be offline: "
                    "try again with a connection, or use: headstart sample horses-or-humans DIR"
                ) from None
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
    raise DownloadError(
        f"{file.url} did not arrive in {attempts} attempts ({reason}); run the command again to go on where it stopped."
    )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow to http and https alone, never from https to http."""

    max_redirections = REDIRECTS

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            fp.close()
            raise DownloadError(f"{req.full_url} redirects to {newurl[:100]!r}; refused.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """HTTP, HTTPS and proxies; none of urllib's handlers for files, FTP or data."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler, urllib.request.HTTPSHandler, _SafeRedirects, urllib.request.ProxyHandler,
        urllib.request.HTTPErrorProcessor, urllib.request.HTTPDefaultErrorHandler, urllib.request.UnknownHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _receive(file: File, part: Path, timeout: float, progress: Callable[[int, int | None], None] | None) -> bool:
    """One connection: append what comes to ``part``. Whether everything that was promised is there."""
    note = part.with_suffix(".json")
    have, version = (part.stat().st_size, _version(note)) if part.exists() else (0, "")
    if have and have == file.size:
        return True
    request = urllib.request.Request(file.url, headers={"User-Agent": f"headstart/{__version__}"})
    if have and version:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", version)
    with _opener().open(request, timeout=timeout) as answer:
        said = answer.headers.get("Content-Range", "").replace(" ", "")
        tag = answer.headers.get("ETag", "")
        kept = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
        going_on = answer.status == 206 and said.startswith(f"bytes{have}-") and kept in ("", version)
        if answer.status == 206 and not going_on:
            _forget(part)
            return False
        done = have if going_on else 0
        length = answer.headers.get("Content-Length", "")
        promised = done + int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        total = file.size if file.size is not None else promised
        if (total or 0) > MAX_BYTES:
            raise DownloadError(f"{file.url} promises {total:,} bytes, more than the limit of {MAX_BYTES:,}; refused.")
        limit = file.size if file.size is not None else MAX_BYTES
        if not going_on:  # which version of the file this is, so that two are never glued together
            part.unlink(missing_ok=True)  # first: a kill here must not pair old bytes with a new version
            note.write_text(json.dumps({"version": kept}), "utf-8")
        with part.open("ab" if going_on else "wb") as out:
            while block := _next(answer):
                done += len(block)
                if done > limit:
                    out.close()
                    _forget(part)
                    raise DownloadError(
                        f"{file.url} sends more than the {limit:,} bytes expected; the file is not the one recorded."
                    )
                out.write(block)
                if progress is not None:
                    progress(done, total)
    return total is None or done >= total


def _next(answer: http.client.HTTPResponse) -> bytes:
    """What has come, at most CHUNK bytes. Any fault of the way is a ConnectionError, so none looks like a disk's."""
    try:
        return answer.read1(CHUNK)
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from None


def _version(note: Path) -> str:
    try:
        return str(json.loads(note.read_text("utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _checked(file: File, part: Path) -> str:
    with part.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if file.sha256 is not None and digest != file.sha256:
        _forget(part)
        raise DownloadError(
            f"{file.url} has sha256 {digest}, expected {file.sha256}; it was changed or damaged, and was deleted."
        )
    return digest


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_suffix(".json").unlink(missing_ok=True)


def _unpack(part: Path, file: File, made: Path) -> None:
    """Copy an archive's files to ``made``; its names are read with distrust, as ``datasets.sources`` does."""
    from headstart.data.sources import open_archive

    try:
        source = open_archive(part, ".zip" if urlsplit(file.url).path.lower().endswith(".zip") else ".tgz")
    except DataError as error:
        _forget(part)
        raise DownloadError(f"{file.url} is no archive that can be read ({error}); what came was deleted.") from None
    if source.quarantined:
        first = source.quarantined[0]
        _forget(part)
        raise DownloadError(f"{file.url} holds {first.path.rsplit('/', 1)[-1]}: {first.reason} Refused.")
    if len(source.names) > MAX_MEMBERS:
        _forget(part)
        raise DownloadError(f"{file.url} has more than {MAX_MEMBERS:,} members; refused.")
    count = total = 0
    for number, name in enumerate(source.names):
        inner = name.removeprefix(f"{file.wrapped}/") if file.wrapped else name
        if (file.wrapped and inner == name) or any(p.startswith((".", "__MACOSX")) for p in inner.split("/")):
            continue
        if ":" in inner:  # on Windows, below the wrapping folder, it would name a drive or a stream
            _forget(part)
            raise DownloadError(f"{file.url} holds {name[:100]!r}, which is no file name everywhere; refused.")
        place = made / file.into / inner
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            total += len(data := source.read(number))
        except ImageError as error:
            _forget(part)
            raise DownloadError(f"{file.url} is damaged: {inner}: {error}") from None
        if total > MAX_UNPACKED:
            _forget(part)
            raise DownloadError(f"{file.url} unpacks to more than {MAX_UNPACKED:,} bytes; refused.")
        place.write_bytes(data)
        count += 1
    if not count:
        _forget(part)
        raise DownloadError(f"{file.url} holds nothing under {file.wrapped!r}; it is not the archive recorded.")
