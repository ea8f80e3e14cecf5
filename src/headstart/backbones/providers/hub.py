"""``hf:ORG/NAME``: an ONNX model repository on the Hugging Face Hub, prepared once, pinned to a commit.

huggingface_hub speaks the protocol. The listing of a commit says of every file how large it is and its hash; nothing
that differs is used. What arrived of a file stays until it is whole, so that a broken download goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from headstart.backbones.backbone import Backbone, InputOptions, provider
from headstart.backbones.input_config import MAX_DESCRIPTION, hub_description, read_json
from headstart.backbones.providers.framework import one_line, quiet
from headstart.backbones.providers.onnx_file import MAX_FILE, VERSION, convert, locations, parsed, read_stored
from headstart.backbones.store import folder_of
from headstart.errors import BackboneError, OptionError
from headstart.machine import cache_folder

ID = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w./-]{1,200}))?(?:\?file=(.{1,300}))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
QUANTISED = re.compile(r"quant|int8|uint8|fp16|float16|bf16|q4|q8|bnb|_o[1-4]\b", re.I)
USUAL = ("onnx/model.onnx", "model.onnx")
DESCRIPTIONS = ("preprocessor_config.json", "config.json")
TIMEOUT = 30.0  # seconds for a listing
MAX_LISTED = 100_000

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Named:
    """A parsed id: repository, revision (a branch, tag or commit) and the graph's file, "" for the usual one."""

    repository: str
    revision: str
    file: str

    def pinned(self, commit: str) -> str:
        """The full id of a commit."""
        return f"hf:{self.repository}@{commit}" + (f"?file={self.file}" if self.file else "")


@dataclass(frozen=True)
class Listed:
    """A file of a commit: its size in bytes and hash: SHA-256 (64 digits), or git's of small files (40)."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Snapshot:
    """A commit of a repository: its files by name, and its licence."""

    commit: str
    files: Mapping[str, Listed]
    licence: str


@provider("hf")
def _load(rest: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    return load_hub(rest, options, taps)


def load_hub(
    rest: str, options: InputOptions, taps: tuple[str, ...] = (), *, renew: bool = False,
    progress: Progress | None = None,
) -> Backbone:  # fmt: skip
    """The backbone ``hf:REST``. A branch stays at the commit it had when first used; ``renew`` asks the hub again.

    ``progress(done, total)`` counts bytes. Raises BackboneError, OptionError.
    """
    if options.weights:
        raise OptionError("A repository of the hub holds its own weights; leave --weights out.")
    named = parse(rest)
    note = _note(named)
    commit = named.revision if COMMIT.fullmatch(named.revision) else "" if renew else _noted(note)
    if commit and (found := _kept(named, commit, options, taps)) is not None:
        return found
    with quiet():
        snapshot = _listing(named, commit or named.revision)
        found = _kept(named, snapshot.commit, options, taps)
        if found is None:
            found = _prepared(named, snapshot, options, taps, progress)
    if named.revision != snapshot.commit:
        note.parent.mkdir(parents=True, exist_ok=True)
        written = note.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps({"commit": snapshot.commit}), "utf-8")
        written.replace(note)
    return found


def parse(rest: str) -> Named:
    """Repository, revision and file of what follows ``hf:`` in an id. Raises OptionError.

    >>> parse("org/name@v1.0?file=onnx/model_fp16.onnx")
    Named(repository='org/name', revision='v1.0', file='onnx/model_fp16.onnx')
    """
    match = ID.fullmatch(rest)
    if match is None or ".." in rest or "--" in match[1] or (match[3] and not _inside(match[3])):
        raise OptionError(f"hf:{rest} names no repository; expected hf:ORG/NAME, hf:ORG/NAME@REVISION or ?file=PATH.")
    return Named(match[1], match[2] or "main", match[3] or "")


def _inside(name: str) -> bool:
    """Whether a file's name stays in the folder it is put in, on every system."""
    parts = name.split("/")
    return name.isprintable() and not any(c in name for c in "\\:") and all(p.strip(". ") for p in parts)


def _kept(named: Named, commit: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone | None:
    usual = read_stored(_place(named, commit, options, ()), named.pinned(commit))
    if usual is not None and {*taps} <= {tap.name for tap in usual.taps}:
        return usual
    return read_stored(_place(named, commit, options, taps), named.pinned(commit)) if taps else None


def _place(named: Named, commit: str, options: InputOptions, taps: tuple[str, ...]) -> Path:
    """Where it is kept: under its full id, or under a hash of that and of what else was asked for."""
    if options == InputOptions() and not taps:
        return folder_of(named.pinned(commit))
    settings = json.dumps([VERSION, named.pinned(commit), asdict(options), sorted(taps)], sort_keys=True)
    return cache_folder() / "backbones" / hashlib.sha256(settings.encode()).hexdigest()[:32]


def _note(named: Named) -> Path:
    key = hashlib.sha256(f"{named.repository}@{named.revision}".encode()).hexdigest()[:32]
    return cache_folder() / "hub" / f"{key}.json"


def _noted(note: Path) -> str:
    try:
        commit = str(json.loads(note.read_text("utf-8"))["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return commit if COMMIT.fullmatch(commit) else ""


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None  # huggingface_hub reads it at import alone


@contextmanager
def _told(named: Named) -> Iterator[None]:
    """Faults of the way and of the hub, each as one line."""
    from huggingface_hub import errors

    id_, where = f"hf:{named.repository}", _endpoint() or "huggingface.co"
    try:
        yield
    except errors.GatedRepoError:
        raise BackboneError(f"{id_} is gated: accept its terms on its page, and set HF_TOKEN to your token.") from None
    except errors.RevisionNotFoundError:
        raise BackboneError(
            f"{id_} has no revision {named.revision!r}; expected a branch, a tag or the 40 digits of a commit."
        ) from None
    except errors.RepositoryNotFoundError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            told = f"{where} refuses {id_} (status {error.response.status_code}): it is private or not there; "
            raise BackboneError(f"{told}check the name, and set HF_TOKEN to a token that may read it.") from None
        raise BackboneError(f"{where} has no repository {named.repository!r}; check the name after hf:.") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        if status in (401, 403):
            raise BackboneError(
                f"{where} refuses {id_} (status {status}); set HF_TOKEN to a token that may read it."
            ) from None
        raise BackboneError(f"{where} answered {status} for {id_}; expected its files: try again later.") from None
    except BackboneError:
        raise
    except Exception as error:  # of the system, of httpx, a body of another length: what the hub says may be anything
        raise BackboneError(_broken(id_, where, error)) from None


def _broken(id_: str, where: str, error: Exception) -> str:
    kind = type(error).__name__
    if "Timeout" in kind:
        return f"{where} said nothing in time while {id_} was fetched; run the command again to go on."
    if "Connect" in kind:
        return f"{where} cannot be reached for {id_} ({one_line(error, 80)}); check the connection and HF_ENDPOINT."
    return f"{id_} did not arrive from {where} ({kind}: {one_line(error, 120)}); run the command again to go on."


def _listing(named: Named, revision: str) -> Snapshot:
    from huggingface_hub import HfApi

    if _offline():
        return _cached(named, revision)
    with _told(named):
        api = HfApi(endpoint=_endpoint(), token=os.environ.get("HF_TOKEN") or None)
        info = api.model_info(named.repository, revision=revision, files_metadata=True, timeout=TIMEOUT)
    files: dict[str, Listed] = {}
    for sibling in (info.siblings or [])[:MAX_LISTED]:
        name, lfs = sibling.rfilename, sibling.lfs
        digest, size = (lfs.sha256, lfs.size) if lfs else (sibling.blob_id, sibling.size)
        if not isinstance(name, str) or type(size) is not int or not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?",
                                                                               str(digest)):  # fmt: skip
            continue  # without a size and a hash it is not used
        if _inside(name):
            files[name] = Listed(name, size, str(digest))
    commit = str(info.sha)
    if not COMMIT.fullmatch(commit) or (COMMIT.fullmatch(revision) and commit != revision):
        raise BackboneError(
            f"The hub answers for hf:{named.repository} with commit {commit[:60]!r}; expected {revision}."
        )
    card = info.card_data
    licence = str((card.get("license") if card else None) or "unknown")
    return Snapshot(commit, files, licence[:100])


def _hub_cache() -> Path:
    """The folder that huggingface_hub keeps repositories in, as the environment says now."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder)
    if folder := os.environ.get("HF_HOME"):
        return Path(folder) / "hub"
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _cached(named: Named, revision: str) -> Snapshot:
    """What huggingface_hub's own cache holds of a revision."""
    repository = _hub_cache() / f"models--{named.repository.replace('/', '--')}"
    commit = revision
    if not COMMIT.fullmatch(revision):
        try:
            commit = (repository / "refs" / revision).read_text("utf-8").strip()
        except (OSError, ValueError):
            commit = ""
    folder = repository / "snapshots" / commit
    if not COMMIT.fullmatch(commit) or not folder.is_dir():
        at = "" if named.revision == "main" else f"@{named.revision}"
        raise BackboneError(
            f"hf:{named.repository}{at} is not on this machine and HF_HUB_OFFLINE is set; "
            f'run "headstart backbones pull hf:{named.repository}{at}" once with a connection.'
        )
    files = {}
    for path in folder.rglob("*"):
        if path.is_file():
            name, blob = path.relative_to(folder).as_posix(), path.resolve().name
            digest = blob if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob) else ""
            files[name] = Listed(name, path.stat().st_size, digest)
    return Snapshot(commit, files, "unknown")


def _prepared(
    named: Named, snapshot: Snapshot, options: InputOptions, taps: tuple[str, ...], progress: Progress | None
) -> Backbone:
    graph, pinned = _graph(named, snapshot), f"{named.repository}@{snapshot.commit}"
    folder = cache_folder() / "hub" / hashlib.sha256(pinned.encode()).hexdigest()[:32]

    def bring(name: str, limit: int) -> Path:
        listed = snapshot.files[name]
        if listed.size > limit:
            said = f"has {listed.size:,} bytes, more than the limit of {limit:,}"
            raise BackboneError(f"{name} of hf:{named.repository} {said}.")
        return _fetch(named, snapshot.commit, listed, folder, progress)

    described = {name: read_json(bring(name, MAX_DESCRIPTION)) for name in DESCRIPTIONS if name in snapshot.files}
    path = bring(graph.name, MAX_FILE)
    content = path.read_bytes()
    left = MAX_FILE - len(content)
    for location in sorted(locations(parsed(content, path))):
        beside = (PurePosixPath(graph.name).parent / location).as_posix()
        if not location or not _inside(location) or beside not in snapshot.files:
            said = f"needs the file {location[:100]!r}, which the repository lacks"
            raise BackboneError(f"{graph.name} of hf:{named.repository} {said}.")
        bring(beside, left)
        left -= snapshot.files[beside].size
    values, where = hub_description(*(described.get(name, {}) for name in DESCRIPTIONS))
    place, full = _place(named, snapshot.commit, options, taps), named.pinned(snapshot.commit)
    recorded = {
        "id": full, "licence": snapshot.licence,
        "source": f"Hugging Face Hub, {named.repository} at {snapshot.commit}, {graph.name} (sha256 "
                  f"{hashlib.sha256(content).hexdigest()})",
    }  # fmt: skip
    recorded |= {"name": full} if place == folder_of(full) else {}
    convert(content, path, options, values, where, taps, place, recorded)
    found = read_stored(place, full)
    if found is None:
        raise BackboneError(f"The prepared graph in {place} does not read back; is the disk full or failing?")
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _graph(named: Named, snapshot: Snapshot) -> Listed:
    """The graph to use: the one asked for, in its usual place, or the only one; quantised ones last."""
    graphs = sorted(name for name in snapshot.files if name.endswith(".onnx"))
    if named.file:
        if named.file not in graphs:
            there = ", ".join(graphs[:5]) or "none"
            raise BackboneError(f"hf:{named.repository} has no ONNX file {named.file!r}; it has {there}.")
        return snapshot.files[named.file]
    if not graphs:
        raise BackboneError(
            f"hf:{named.repository} holds no ONNX file; export the network to ONNX, or look for timm:NAME of the same."
        )
    for name in USUAL:
        if name in graphs:
            return snapshot.files[name]
    plain = [name for name in graphs if not QUANTISED.search(PurePosixPath(name).name)]
    chosen = plain if len(plain) == 1 else graphs
    if len(chosen) > 1:
        raise BackboneError(
            f"hf:{named.repository} has {len(graphs)} ONNX files; name one: hf:{named.repository}?file={graphs[0]}"
        )
    return snapshot.files[chosen[0]]


def _fetch(named: Named, commit: str, listed: Listed, folder: Path, progress: Progress | None) -> Path:
    """The file in ``folder``, whole and with the hash listed, from huggingface_hub's cache or the hub."""
    target = folder / listed.name
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    snapshots = _hub_cache() / f"models--{named.repository.replace('/', '--')}" / "snapshots"
    cached = snapshots / commit / listed.name
    if target.is_file() and _matches(target, listed):
        return target
    if cached.is_file() and _matches(cached, listed):
        shutil.copyfile(cached, target)
        return target
    if _offline():
        raise BackboneError(f"{listed.name} of hf:{named.repository} is damaged in {cached.parent}; delete it there.")
    with _told(named):
        _receive(named, commit, listed, part, progress)
    if not _matches(part, listed):
        part.unlink(missing_ok=True)
        raise BackboneError(
            f"{listed.name} of hf:{named.repository} has another hash than the {listed.digest[:12]}... announced; "
            "it was changed or damaged on the way and is deleted: run the command again."
        )
    part.replace(target)
    return target


def _receive(named: Named, commit: str, listed: Listed, part: Path, progress: Progress | None) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    have = part.stat().st_size if part.is_file() else 0
    if have > listed.size:
        part.unlink()
        have = 0
    url = hf_hub_url(named.repository, listed.name, revision=commit, endpoint=_endpoint())
    headers = build_hf_headers(token=os.environ.get("HF_TOKEN") or None, library_name="headstart")
    with part.open("ab" if have else "wb") as out:
        counted: Any = _Counted(out, listed, progress)
        http_get(url, counted, resume_size=have, headers=headers, expected_size=listed.size)


class _Counted:
    """A file that tells how much it holds, and takes no more than was announced."""

    def __init__(self, out: BinaryIO, listed: Listed, progress: Progress | None) -> None:
        self._out, self._listed, self._progress = out, listed, progress
        self.tell, self.seek, self.truncate, self.flush = out.tell, out.seek, out.truncate, out.flush

    def write(self, data: bytes) -> int:
        if self._out.tell() + len(data) > self._listed.size:
            self._out.truncate(0)
            raise BackboneError(
                f"The hub sends more than the {self._listed.size:,} bytes of {self._listed.name}; refused."
            )
        count = self._out.write(data)
        if self._progress is not None:
            self._progress(self._out.tell(), self._listed.size)
        return count


def _matches(path: Path, listed: Listed) -> bool:
    """Whether a file has the size and the hash listed; offline files of no known hash need the size alone."""
    if path.stat().st_size != listed.size:
        return False
    digest = hashlib.sha256() if len(listed.digest) == 64 else hashlib.sha1(usedforsecurity=False)
    if len(listed.digest) == 40:
        digest.update(b"blob %d\0" % listed.size)  # git's way
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return not listed.digest or digest.hexdigest() == listed.digest
