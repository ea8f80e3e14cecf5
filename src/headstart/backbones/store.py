"""The store of prepared backbones: one folder each, under the hash of a name, with what was written about it.

A name is never part of a path, an entry is written whole or not at all, and the graph is compared with its hash
whenever it is read. Providers keep the graphs they prepared in the same place, under keys of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from headstart.backbones.backbone import PROVIDERS, Backbone
from headstart.backbones.input_config import MAX_DESCRIPTION
from headstart.backbones.providers.onnx_file import read_stored, store
from headstart.errors import BackboneError, OptionError
from headstart.machine import cache_folder

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PATIENCE = 20
SPEED = "speed.json"


@dataclass(frozen=True)
class Speed:
    """Pictures a second on this machine, and the runtime, its version and its precision that ran them."""

    pictures_per_second: float
    runtime: str
    version: str
    precision: str


@dataclass(frozen=True)
class Entry:
    """A backbone in the store: the name it was put under ("" if a provider prepared it for itself), its own id,
    hash and licence, where it came from, bytes on disk, the date (ISO 8601) it was stored, its folder, and how fast
    it ran here when that was measured (None before)."""

    name: str
    id: str
    sha256: str
    licence: str
    source: str
    bytes: int
    stored: str
    folder: Path
    speed: Speed | None = None


def check_name(name: str) -> str:
    """The name itself. Raises OptionError for one that a provider has, or that is not letters, digits and ``._-``."""
    if not NAME.fullmatch(name) or name in PROVIDERS or name == "headstart-s":
        raise OptionError(
            f"{name!r} cannot name a backbone; expected up to 64 letters, digits, dots, dashes and underscores, "
            "and no provider's name."
        )
    return name


def put(name: str, backbone: Backbone) -> None:
    """Keep a backbone under ``name``, an id of its own or a provider's; another one there is replaced.

    Raises BackboneError when it cannot be read or written.
    """
    try:
        graph = backbone.graph if isinstance(backbone.graph, bytes) else backbone.graph.read_bytes()
    except OSError as error:
        raise BackboneError(f"{backbone.id} cannot be read any more ({error.strerror}); try again.") from None
    if hashlib.sha256(graph).hexdigest() != backbone.sha256:
        raise BackboneError(f"The graph of {backbone.id} is not the one it was; try again.")
    described = {
        "format": 1, "name": name, "id": backbone.id, "licence": backbone.licence, "source": backbone.source,
        "sha256": backbone.sha256, "preprocess": backbone.preprocess.to_dict(),
        "taps": [asdict(tap) for tap in backbone.taps], "notes": list(backbone.notes), "batch": backbone.batch,
    }  # fmt: skip
    for _ in range(PATIENCE):
        found = get(name)
        if found is not None and replace(found, graph=b"") == replace(backbone, graph=b""):
            return
        store(folder_of(name), graph, described)
        if get(name) is not None:
            return
        time.sleep(0.05)  # another process is between its two renames
    raise BackboneError(f"{folder_of(name)} does not read back; is the disk full or failing?")


def get(name: str) -> Backbone | None:
    """The backbone kept under ``name``; None if there is none, or if it is damaged."""
    folder = folder_of(name)
    return read_stored(folder, name) if _described(folder).get("name") == name else None


def entries() -> tuple[Entry, ...]:
    """All that the store holds, by name and id. Graphs are not read: this is fast, and vouches for nothing."""
    found = []
    for folder in (cache_folder() / "backbones").glob("[!.]*"):
        said = _described(folder)
        try:
            graph = (folder / "backbone.onnx").stat()
            stored = datetime.fromtimestamp(graph.st_mtime, UTC).isoformat(timespec="seconds")
            name, texts = str(said.get("name", "")), {k: str(said[k]) for k in ("id", "sha256", "licence", "source")}
        except (OSError, KeyError):
            continue
        speed = _speed(folder, texts["sha256"])
        found.append(Entry(name=name, bytes=graph.st_size, stored=stored, folder=folder, speed=speed, **texts))
    return tuple(sorted(found, key=lambda entry: (not entry.name, entry.name, entry.id, entry.stored)))


def remove(name: str) -> int:
    """Delete what is kept under ``name``, or else all that a provider prepared for the id ``name``: bytes freed.

    Raises OptionError if there is nothing, BackboneError if it cannot be deleted.
    """
    known = entries()
    chosen = [entry for entry in known if entry.name == name]
    chosen = chosen or [entry for entry in known if not entry.name and entry.id == name]
    if not chosen:
        names = ", ".join(dict.fromkeys(entry.name or entry.id for entry in known)) or "nothing"
        raise OptionError(f"The store has no backbone {name!r}; it holds {names}.")
    for entry in chosen:
        gone = entry.folder.with_name(f".gone-{uuid.uuid4().hex}")
        try:
            entry.folder.replace(gone)  # first: half a folder must never be seen
        except OSError as error:
            raise BackboneError(f"{entry.folder} cannot be deleted: {error.strerror or error}.") from None
        shutil.rmtree(gone, ignore_errors=True)
    return sum(entry.bytes for entry in chosen)


def sweep(older_than: float = 86_400) -> None:
    """Delete what killed runs left behind, ``older_than`` seconds ago."""
    for left in (cache_folder() / "backbones").glob(".*"):
        try:
            if time.time() - left.stat().st_mtime > older_than:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue


def note_speed(backbone: Backbone, speed: Speed) -> None:
    """Keep how fast a backbone of the store runs here, beside it. Raises BackboneError when it cannot be written."""
    for entry in entries():
        if entry.sha256 == backbone.sha256:
            written = entry.folder / f"{SPEED}.{uuid.uuid4().hex}"
            try:
                written.write_text(json.dumps({"sha256": entry.sha256, **asdict(speed)}), "utf-8")
                written.replace(entry.folder / SPEED)
            except OSError as error:
                raise BackboneError(f"{entry.folder} cannot be written: {error.strerror or error}.") from None


def _speed(folder: Path, sha256: str) -> Speed | None:
    """The speed noted for this very graph; None if there is none, or it cannot be read."""
    try:
        said = json.loads((folder / SPEED).read_text("utf-8"))
        rate = float(said["pictures_per_second"])
        if said["sha256"] != sha256 or not 0 < rate < 1e9:
            return None
        return Speed(rate, *(str(said[key]) for key in ("runtime", "version", "precision")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def folder_of(name: str) -> Path:
    """Where what is put under ``name`` lies."""
    return cache_folder() / "backbones" / hashlib.sha256(f"name\0{name}".encode()).hexdigest()[:32]


def _described(folder: Path) -> dict[str, object]:
    try:
        path = folder / "backbone.json"
        values = json.loads(path.read_text("utf-8")) if path.stat().st_size <= MAX_DESCRIPTION else None
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
