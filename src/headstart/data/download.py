"""Public datasets by name: downloaded, verified and unpacked. An interrupted download is resumed.

Bytes go to a part file beside the target, are compared with the SHA-256 recorded here, and are unpacked to a temporary
folder, which is renamed to the target as a whole. Nothing has the target's name before everything is verified.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from headstart import __version__
from headstart.data.paced import PacedHTTPHandler, PacedHTTPSHandler
from headstart.data.public_datasets import PUBLIC_DATASETS, Archive, PublicDataset
from headstart.errors import DataError, DownloadError, ImageError, OptionError, one_line
from headstart.files import read_json, to_json, write_atomic
from headstart.machine import why_not_replaceable

logger = logging.getLogger(__name__)

MAX_BYTES = 4 * 2**30
MAX_MEMBERS = 200_000
MAX_UNPACKED = 16 * 2**30
MAX_NOTE = 2**20  # bytes of the note beside a part file
CHUNK = 2**18
REDIRECTS = 5

Progress = Callable[[int, int | None], None]


def download(
    name: str,
    folder: str | os.PathLike[str],
    *,
    datasets: Mapping[str, PublicDataset] = PUBLIC_DATASETS,
    timeout: float = 30,
    attempts: int = 5,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Download a public dataset into ``folder`` and return the SHA-256 of each archive by URL.

    A connection that sends nothing for ``timeout`` seconds, or behind its first seconds less than 1,024 bytes a second,
    is closed; each of ``attempts`` resumes where the previous
    one stopped. ``progress(received, total)`` counts bytes. Raises OptionError, DownloadError.
    """
    target = Path(folder)
    if name not in datasets:
        raise OptionError(f"Unknown dataset {name!r}; expected {', '.join(datasets)}.")
    if target.is_dir() and any(target.iterdir()):
        raise OptionError(f"{target} is not an empty folder; give another name for the dataset.")
    if reason := why_not_replaceable(target):
        raise OptionError(f"Cannot write the dataset to {target}: {reason}; give another name.")
    dataset = datasets[name]
    hashes: dict[str, str] = {}
    parts = {
        archive.url: target.parent / f".{name}-{hashlib.sha256(archive.url.encode()).hexdigest()[:12]}.part"
        for archive in dataset.archives
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
            unpacked = Path(temporary) / "unpacked"
            unpacked.mkdir()
            for archive in dataset.archives:
                part = parts[archive.url]
                hashes[archive.url] = _fetch(archive, part, timeout, attempts, progress)
                _unpack(archive, part, unpacked)
            (unpacked / "SOURCE.md").write_text(_source_note(name, dataset, hashes), "utf-8")
            if target.exists():
                target.rmdir()
            unpacked.replace(target)
        for part in parts.values():
            _discard(part)
    except OSError as error:
        raise DownloadError(
            f"Cannot write {target}: {error.strerror or error}; is there enough space on the disk?"
        ) from None
    return hashes


def _source_note(name: str, dataset: PublicDataset, hashes: Mapping[str, str]) -> str:
    lines = [f"# {name}", "", f"Source: {dataset.source}", f"Licence: {dataset.licence}", ""]
    return "\n".join([*lines, *(f"- {url}: sha256 {digest}" for url, digest in hashes.items()), ""])


def _fetch(archive: Archive, part: Path, timeout: float, attempts: int, progress: Progress | None) -> str:
    """Download an archive to ``part`` and return its SHA-256. Raises DownloadError."""
    reason = "nothing arrived"
    for attempt in range(attempts):
        if attempt:
            logger.info("%s: %s; attempt %d of %d", archive.url, reason, attempt + 1, attempts)
            time.sleep(min(2.0 ** (attempt - 1), 10) * min(timeout / 30, 1))
        try:
            if _receive(archive, part, timeout, progress):
                logger.info("%s downloaded, %d bytes", archive.url, part.stat().st_size)
                return _verify(archive, part)
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the part file is not a part of what the server has
                _discard(part)
            reason = _http_reason(archive.url, error)
        except urllib.error.URLError as error:
            is_offline = not isinstance(error.reason, TimeoutError) and attempt > 0 and not part.exists()
            reason = _connection_reason(archive.url, error, is_offline)
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            reason = one_line(error)
    raise DownloadError(
        f"{archive.url} could not be downloaded in {attempts} attempts ({reason}); run the command again to resume."
    )


def _http_reason(url: str, error: urllib.error.HTTPError) -> str:
    """Return the reason of an answer after which another attempt may succeed. Raises DownloadError for others."""
    if 300 <= error.code < 400:
        raise DownloadError(
            f"{url} redirects to {error.headers.get('Location', 'nowhere')[:100]!r}; expected at most "
            f"{REDIRECTS} redirects, to web addresses."
        ) from None
    if error.code < 500 and error.code not in (408, 416, 429):
        raise DownloadError(f"{url} answered {error.code} {error.reason}; has it moved?") from None
    return f"it answered {error.code}"


def _connection_reason(url: str, error: urllib.error.URLError, is_offline: bool) -> str:
    """Return the reason of an error after which another attempt may succeed. Raises DownloadError for others."""
    if isinstance(error.reason, ssl.SSLCertVerificationError):
        raise DownloadError(
            f"{url} has a certificate that is not valid on this machine ({error.reason.verify_message}); "
            "is the clock right, or is there a proxy in between?"
        ) from None
    if is_offline:
        raise DownloadError(
            f"{urlsplit(url).netloc} cannot be reached ({error.reason}); this machine seems to be offline: "
            "try again with a connection, or use: headstart sample horses-or-humans DIR"
        ) from None
    return str(error.reason)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only, never from https to http."""

    max_redirections = REDIRECTS

    def http_error_302(self, req, fp, code, msg, headers):  # type: ignore[no-untyped-def]
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError as error:  # of urlsplit, or of the encoding of a host's name
            fp.close()
            raise DownloadError(
                f"{req.full_url} redirects to what is no web address ({one_line(error, 100)}); refused."
            ) from None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            fp.close()
            raise DownloadError(f"{req.full_url} redirects to {newurl[:100]!r}; refused.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Build an opener of HTTP, HTTPS and proxies, without urllib's handlers for files, FTP and data."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        PacedHTTPHandler,
        PacedHTTPSHandler,
        _SafeRedirects,
        urllib.request.ProxyHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _receive(archive: Archive, part: Path, timeout: float, progress: Progress | None) -> bool:
    """Receive what one connection sends, appended to ``part``, and return whether the archive is complete.

    A note beside ``part`` holds the version of the file that the server announced (its ETag or Last-Modified), so that
    parts of two versions are never joined.
    """
    note = part.with_suffix(".json")
    received, version = (part.stat().st_size, _read_version(note)) if part.exists() else (0, "")
    if received and received == archive.size:
        return True
    request = urllib.request.Request(archive.url, headers={"User-Agent": f"headstart/{__version__}"})
    if received and version:
        request.add_header("Range", f"bytes={received}-")
        request.add_header("If-Range", version)
    with _opener().open(request, timeout=timeout) as response:
        new_version = _announced_version(response)
        resumed = _starts_at(response, received) and new_version in ("", version)
        if response.status == 206 and not resumed:
            _discard(part)
            return False
        if not resumed:
            received = 0
        total = archive.size if archive.size is not None else _announced_size(response, received)
        if (total or 0) > MAX_BYTES:
            raise DownloadError(
                f"{archive.url} announces {total:,} bytes, more than the limit of {MAX_BYTES:,}; refused."
            )
        if not resumed:
            part.unlink(missing_ok=True)  # first: a kill here must not pair old bytes with a new version
            write_atomic(note, to_json({"version": new_version}))
        limit = archive.size if archive.size is not None else MAX_BYTES
        with part.open("ab" if resumed else "wb") as out:
            while block := _read_block(response):
                received += len(block)
                if received > limit:
                    out.close()
                    _discard(part)
                    raise DownloadError(
                        f"{archive.url} sends more than the {limit:,} bytes expected; it is not the recorded file."
                    )
                out.write(block)
                if progress is not None:
                    progress(received, total)
    return total is None or received >= total


def _announced_version(response: http.client.HTTPResponse) -> str:
    """Return the strong ETag of the file, otherwise its Last-Modified, which may be empty."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _starts_at(response: http.client.HTTPResponse, offset: int) -> bool:
    """Return whether a partial response starts at byte ``offset``."""
    content_range = response.headers.get("Content-Range", "").replace(" ", "")
    return response.status == 206 and content_range.startswith(f"bytes{offset}-")


def _announced_size(response: http.client.HTTPResponse, offset: int) -> int | None:
    """Return the size of the whole file, of which the response begins at ``offset``; None if it is not announced."""
    length = response.headers.get("Content-Length", "")
    return offset + int(length) if re.fullmatch("[0-9]{1,18}", length) else None


def _read_block(response: http.client.HTTPResponse) -> bytes:
    """Read what has arrived, at most CHUNK bytes.

    An error of the network becomes a ConnectionError, so that none is taken for one of the disk.
    """
    try:
        return response.read1(CHUNK)
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from None


def _read_version(note: Path) -> str:
    try:
        return str(read_json(note, MAX_NOTE)["version"])
    except (OSError, ValueError, KeyError):
        return ""


def _verify(archive: Archive, part: Path) -> str:
    """Return the SHA-256 of ``part``. Raises DownloadError if it is not the recorded one."""
    with part.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if archive.sha256 is not None and digest != archive.sha256:
        _discard(part)
        raise DownloadError(
            f"{archive.url} has sha256 {digest}, expected {archive.sha256}; it was changed or damaged, and was deleted."
        )
    return digest


def _discard(part: Path) -> None:
    """Delete a part file and its note."""
    part.unlink(missing_ok=True)
    part.with_suffix(".json").unlink(missing_ok=True)


def _unpack(archive: Archive, part: Path, folder: Path) -> None:
    """Copy the files of an archive to ``folder``. Raises DownloadError, and deletes ``part``, if it cannot be used."""
    try:
        _copy_members(archive, part, folder / archive.subfolder)
    except DownloadError:
        _discard(part)
        raise


def _copy_members(archive: Archive, part: Path, folder: Path) -> None:
    from headstart.data.archives import open_archive

    suffix = ".zip" if urlsplit(archive.url).path.lower().endswith(".zip") else ".tgz"
    try:
        source = open_archive(f"{part}{suffix}", lambda: part.open("rb"))
    except DataError as error:
        raise DownloadError(f"{archive.url} is not an archive that can be read ({error}); it was deleted.") from None
    if source.quarantined:
        first = source.quarantined[0]
        raise DownloadError(f"{archive.url} holds {first.path.rsplit('/', 1)[-1]}: {first.reason} Refused.")
    if len(source.names) > MAX_MEMBERS:
        raise DownloadError(f"{archive.url} has more than {MAX_MEMBERS:,} members; refused.")
    prefix = f"{archive.root}/" if archive.root else ""
    count = size = 0
    for key, name in enumerate(source.names):
        path = name.removeprefix(prefix)
        if not name.startswith(prefix) or any(p.startswith((".", "__MACOSX")) for p in path.split("/")):
            continue
        if ":" in path:  # on Windows, below the root, it would name a drive or a stream
            raise DownloadError(f"{archive.url} holds {name[:100]!r}, which is not a valid file name; refused.")
        try:
            data = source.read(key)
        except ImageError as error:
            raise DownloadError(f"{archive.url} is damaged: {path}: {error}") from None
        size += len(data)
        if size > MAX_UNPACKED:
            raise DownloadError(f"{archive.url} unpacks to more than {MAX_UNPACKED:,} bytes; refused.")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        count += 1
    if not count:
        raise DownloadError(f"{archive.url} holds nothing under {archive.root!r}; it is not the recorded archive.")
