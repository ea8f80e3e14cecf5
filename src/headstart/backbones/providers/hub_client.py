"""Repositories on the Hugging Face Hub: their ids, what a commit of one holds, and its files.

huggingface_hub speaks the protocol. The listing of a commit gives the size and the hash of every file, and nothing
that differs from them is used. A file that arrived in part stays, so that a broken download goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from headstart.errors import BackboneError, OptionError, one_line, shell_word

logger = logging.getLogger(__name__)

ID = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w./-]{1,200}))?(?:\?file=(.{1,300}))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
LISTING_TIMEOUT = 30.0  # seconds of silence
MAX_SECONDS = 120.0  # for all of a listing, or for a download beside what its size takes at MIN_RATE
MIN_RATE = 8192  # bytes a second
MAX_LISTING = 64 * 2**20  # bytes
MAX_LISTED_FILES = 100_000
BLOCK_BYTES = 2**20

LIBRARY = "headstart"
T = TypeVar("T")
Progress = Callable[[int, int | None], None]  # bytes done, and bytes in all


@dataclass(frozen=True)
class HubId:
    """A parsed id: repository, revision (a branch, tag or commit) and the graph's file, "" for the usual one."""

    repository: str
    revision: str
    file: str

    def pinned(self, commit: str) -> str:
        """The full id with a commit in place of the revision."""
        return f"hf:{self.repository}@{commit}" + (f"?file={self.file}" if self.file else "")


@dataclass(frozen=True)
class ListedFile:
    """A file of a commit.

    ``size`` is in bytes; ``digest`` is its SHA-256 (64 digits), or the hash that git gives small files (40 digits), or
    "" where it is not known.
    """

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Snapshot:
    """A commit of a repository: its files by name, and its licence."""

    commit: str
    files: Mapping[str, ListedFile]
    licence: str


def parse_id(rest: str) -> HubId:
    """Parse repository, revision and file of what follows ``hf:`` in an id. Raises OptionError.

    >>> parse_id("org/name@v1.0?file=onnx/model_fp16.onnx")
    HubId(repository='org/name', revision='v1.0', file='onnx/model_fp16.onnx')
    """
    match = ID.fullmatch(rest)
    if match is None or ".." in rest or "--" in match[1] or (match[3] and not stays_inside(match[3])):
        raise OptionError(
            f"hf:{rest} does not name a repository; expected hf:ORG/NAME, hf:ORG/NAME@REVISION or ?file=PATH."
        )
    return HubId(match[1], match[2] or "main", match[3] or "")


def stays_inside(name: str) -> bool:
    """Whether a file of this name lies in the folder that it is put in, on every operating system."""
    parts = name.split("/")
    return name.isprintable() and not any(c in name for c in "\\:") and all(part.strip(". ") for part in parts)


def list_files(id: HubId, revision: str) -> Snapshot:
    """List the files of a revision, from the hub, or where HF_HUB_OFFLINE is set from huggingface_hub's cache.

    Raises BackboneError.
    """
    if _is_offline():
        return _cached_snapshot(id, revision)
    with _readable_errors(id):
        data = _within(MAX_SECONDS, id, lambda: _receive_listing(id, revision))
    try:
        listing = json.loads(data)
    except (ValueError, RecursionError):
        listing = None
    if not isinstance(listing, dict):
        raise BackboneError(f"The hub's answer for hf:{id.repository} is no listing of files; check HF_ENDPOINT.")
    commit = str(listing.get("sha"))
    if not COMMIT.fullmatch(commit) or (COMMIT.fullmatch(revision) and commit != revision):
        raise BackboneError(f"The hub answers for hf:{id.repository} with commit {commit[:60]!r}; expected {revision}.")
    card = listing.get("cardData")
    licence = str((card.get("license") if isinstance(card, dict) else None) or "unknown")
    return Snapshot(commit, _listed_files(listing.get("siblings")), licence[:100])


def _listed_files(siblings: object) -> dict[str, ListedFile]:
    """Return the files of a listing that have a name inside the repository, a size and a hash; others are not used."""
    files: dict[str, ListedFile] = {}
    for sibling in siblings[:MAX_LISTED_FILES] if isinstance(siblings, list) else ():
        if not isinstance(sibling, dict):
            continue
        name, lfs = sibling.get("rfilename"), sibling.get("lfs")
        if isinstance(lfs, dict):
            digest, size = lfs.get("sha256"), lfs.get("size")
        else:
            digest, size = sibling.get("blobId"), sibling.get("size")
        if not isinstance(name, str) or not stays_inside(name) or not DIGEST.fullmatch(str(digest)):
            continue
        if type(size) is int and size >= 0:
            files[name] = ListedFile(name, size, str(digest))
    return files


def _receive_listing(id: HubId, revision: str) -> bytes:
    """Receive the hub's listing of a revision. Raises BackboneError beyond MAX_LISTING bytes, and what the hub does."""
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import get_session, hf_raise_for_status

    session: Any = get_session()
    url = f"{_endpoint() or ENDPOINT}/api/models/{id.repository}/revision/{quote(revision, safe='')}?blobs=true"
    options: Any = {"headers": build_hf_headers(token=_token(), library_name=LIBRARY), "timeout": LISTING_TIMEOUT}
    data = bytearray()
    # Version 0 of huggingface_hub has a session of requests, later ones one of httpx.
    has_stream = hasattr(session, "stream")
    with session.stream("GET", url, **options) if has_stream else session.get(url, stream=True, **options) as response:
        hf_raise_for_status(response)
        for block in response.iter_bytes() if has_stream else response.iter_content(BLOCK_BYTES):
            data += block
            if len(data) > MAX_LISTING:
                raise BackboneError(f"The hub's listing of hf:{id.repository} has more than {MAX_LISTING:,} bytes.")
    return bytes(data)


def _within(seconds: float, id: HubId, call: Callable[[], T]) -> T:
    """Return what a call returns within ``seconds``. Raises BackboneError where it takes longer, and what it raises.

    huggingface_hub limits the silence of a server, and one that sends a byte now and then is never silent. The thread
    of a call that is given up ends with its connection.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise BackboneError(
            f"{_endpoint() or 'huggingface.co'} sends hf:{id.repository} too slowly: it is not there after "
            f"{seconds:,.0f} seconds; run the command again to go on."
        )
    return results[0]


def fetch(id: HubId, commit: str, listed: ListedFile, folder: Path, progress: Progress | None) -> Path:
    """Get a file, whole and with the listed hash, into ``folder``, from huggingface_hub's cache or from the hub.

    Raises BackboneError.
    """
    target = folder / listed.name
    partial = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    cached = _cache_of(id) / "snapshots" / commit / listed.name
    if target.is_file() and _matches(target, listed):
        return target
    if cached.is_file() and _matches(cached, listed):
        shutil.copyfile(cached, target)
        return target
    if _is_offline():
        raise BackboneError(f"{listed.name} of hf:{id.repository} is damaged in {cached.parent}; delete it there.")
    logger.info("downloading %s of hf:%s, %d bytes", listed.name, id.repository, listed.size)
    with _readable_errors(id):
        _download(id, commit, listed, partial, progress)
    if not _matches(partial, listed):
        partial.unlink(missing_ok=True)
        raise BackboneError(
            f"{listed.name} of hf:{id.repository} has another hash than the {listed.digest[:12]}... announced; "
            "it was changed or damaged on the way and is deleted: run the command again."
        )
    partial.replace(target)
    return target


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None  # huggingface_hub reads it only when it is imported


def _token() -> str | None:
    return os.environ.get("HF_TOKEN") or None


def _cache_of(id: HubId) -> Path:
    """The folder in which huggingface_hub keeps a repository, as the environment is now."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        cache = Path(folder)
    elif folder := os.environ.get("HF_HOME"):
        cache = Path(folder) / "hub"
    else:
        from huggingface_hub.constants import HF_HUB_CACHE

        cache = Path(HF_HUB_CACHE)
    return cache / f"models--{id.repository.replace('/', '--')}"


def _cached_snapshot(id: HubId, revision: str) -> Snapshot:
    """What huggingface_hub's own cache holds of a revision. Raises BackboneError if that is nothing."""
    repository = _cache_of(id)
    commit = revision
    if not COMMIT.fullmatch(revision):
        try:
            commit = (repository / "refs" / revision).read_text("utf-8").strip()
        except (OSError, ValueError):
            commit = ""
    folder = repository / "snapshots" / commit
    if not COMMIT.fullmatch(commit) or not folder.is_dir():
        name = f"hf:{id.repository}" + ("" if id.revision == "main" else f"@{id.revision}")
        raise BackboneError(
            f"{name} is not on this machine and HF_HUB_OFFLINE is set; "
            f'run "headstart backbones pull {shell_word(name)}" once with a connection.'
        )
    files = {}
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            blob = path.resolve().name  # the file that the link leads to is named after its hash
            files[name] = ListedFile(name, path.stat().st_size, blob if DIGEST.fullmatch(blob) else "")
    return Snapshot(commit, files, "unknown")


@contextmanager
def _readable_errors(id: HubId) -> Iterator[None]:
    """Turn what huggingface_hub and the network raise into BackboneError, with a message of one line."""
    from huggingface_hub import errors

    name, host = f"hf:{id.repository}", _endpoint() or "huggingface.co"
    try:
        yield
    except BackboneError:
        raise
    except errors.GatedRepoError:
        raise BackboneError(f"{name} is gated: accept its terms on its page, and set HF_TOKEN to your token.") from None
    except errors.RevisionNotFoundError:
        raise BackboneError(
            f"{name} has no revision {id.revision!r}; expected a branch, a tag or the 40 digits of a commit."
        ) from None
    except errors.RepositoryNotFoundError as error:
        status = _status(error)
        if status in (401, 403):
            raise BackboneError(
                f"{host} refuses {name} (status {status}): it is private or does not exist; check the name, and set "
                "HF_TOKEN to a token that may read it."
            ) from None
        raise BackboneError(f"{host} has no repository {id.repository!r}; check the name after hf:.") from None
    except errors.HfHubHTTPError as error:
        status = _status(error)
        if status in (401, 403):
            raise BackboneError(
                f"{host} refuses {name} (status {status}); set HF_TOKEN to a token that may read it."
            ) from None
        raise BackboneError(
            f"{host} answered {status or 'no status'} for {name}; expected its files: try again later."
        ) from None
    except Exception as error:  # of the system, of httpx, or because of what the hub sent, which may be anything
        raise BackboneError(_transfer_error(name, host, error)) from None


def _status(error: Any) -> int | None:
    return error.response.status_code if error.response is not None else None


def _transfer_error(name: str, host: str, error: Exception) -> str:
    kind = type(error).__name__
    if "Timeout" in kind:
        return f"{host} timed out while {name} was fetched; run the command again to go on."
    if "Connect" in kind:
        return f"{host} cannot be reached for {name} ({one_line(error, 80)}); check the connection and HF_ENDPOINT."
    return f"{name} did not arrive from {host} ({kind}: {one_line(error, 120)}); run the command again to go on."


def _download(id: HubId, commit: str, listed: ListedFile, partial: Path, progress: Progress | None) -> None:
    """Download a file into ``partial``, behind what that holds already."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils.tqdm import tqdm

    received = partial.stat().st_size if partial.is_file() else 0
    if received > listed.size:
        partial.unlink()
        received = 0
    url = hf_hub_url(id.repository, listed.name, revision=commit, endpoint=_endpoint())
    headers = build_hf_headers(token=_token(), library_name=LIBRARY)
    # Without a hidden bar huggingface_hub draws one, and its disable_progress_bars would act on the whole process.
    hidden_bar: Any = tqdm(disable=True)  # type: ignore[no-untyped-call]
    with partial.open("ab" if received else "wb") as stream:
        limited: Any = _LimitedFile(stream, listed, progress)

        def receive() -> None:
            http_get(
                url, limited, resume_size=received, headers=headers, expected_size=listed.size, _tqdm_bar=hidden_bar
            )

        try:
            _within(MAX_SECONDS + listed.size / MIN_RATE, id, receive)
        finally:
            limited.is_given_up = True


class _LimitedFile:
    """A file that reports how many bytes it holds, and takes no more than were announced."""

    def __init__(self, stream: BinaryIO, listed: ListedFile, progress: Progress | None) -> None:
        self._stream = stream
        self._listed = listed
        self._progress = progress
        self.is_given_up = False
        self.tell = stream.tell
        self.seek = stream.seek
        self.truncate = stream.truncate
        self.flush = stream.flush

    def write(self, data: bytes) -> int:
        if self.is_given_up:  # another run may write this file now
            raise BackboneError(f"The download of {self._listed.name} was given up.")
        if self._stream.tell() + len(data) > self._listed.size:
            self._stream.truncate(0)
            raise BackboneError(
                f"The hub sends more than the {self._listed.size:,} bytes of {self._listed.name}; refused."
            )
        count = self._stream.write(data)
        if self._progress is not None:
            self._progress(self._stream.tell(), self._listed.size)
        return count


def _matches(path: Path, listed: ListedFile) -> bool:
    """Whether a file has the listed size and hash; where no hash is known the size alone counts."""
    if path.stat().st_size != listed.size:
        return False
    digest = hashlib.sha256() if len(listed.digest) == 64 else hashlib.sha1(usedforsecurity=False)
    if len(listed.digest) == 40:
        digest.update(b"blob %d\0" % listed.size)  # git hashes this before the content
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return not listed.digest or digest.hexdigest() == listed.digest
