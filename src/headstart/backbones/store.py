"""The store of prepared backbones, in the cache folder.

A backbone is a folder with ``backbone.onnx`` and ``backbone.json``, whose name is a hash: of the name that a user gave
(``put``, ``get``), or of the settings from which a provider prepared it (``settings_folder``). A folder is written
whole or not at all, and a graph is compared with its hash whenever it is read.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import Backbone
from headstart.backbones.scaling import Assumption, Norms
from headstart.backbones.steps import tap_from_dict, tap_to_dict, with_steps
from headstart.errors import BackboneError, HeadstartError, OptionError, untrusted
from headstart.files import TEMPORARY, read_json, replace_folder, to_json, write_atomic
from headstart.images.preprocess import Preprocess
from headstart.machine import cache_folder

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
GRAPH = "backbone.onnx"
DESCRIPTION = "backbone.json"
NORMS = "norms.onnx"  # what comes before its batch norms, where its scaling was assumed
SPEED = "speed.json"
MAX_JSON_BYTES = 2**20
ATTEMPTS = 20  # to put a backbone that other processes put too


@dataclass(frozen=True)
class Speed:
    """Images per second on this machine, with the runtime, its version and the precision that were measured."""

    images_per_second: float
    runtime: str
    version: str
    precision: str

    def to_dict(self) -> dict[str, Any]:
        """The speed as a JSON object."""
        return {
            "pictures_per_second": self.images_per_second,
            "runtime": self.runtime,
            "version": self.version,
            "precision": self.precision,
        }


@dataclass(frozen=True)
class Entry:
    """A backbone in the store, without its graph.

    ``name`` is the name that it was put under, or "" where a provider prepared it for itself. ``bytes`` is the size of
    the graph, ``stored`` the date it was written (ISO 8601, UTC), ``speed`` None until it was measured.
    """

    name: str
    id: str
    sha256: str
    licence: str
    source: str
    bytes: int
    stored: str
    folder: Path
    speed: Speed | None = None

    def to_dict(self) -> dict[str, Any]:
        """The entry as a JSON object."""
        return {
            "id": self.name or self.id,
            "what": self.source,
            "kept": bool(self.name),
            "sha256": self.sha256,
            "licence": self.licence,
            "bytes": self.bytes,
            "stored": self.stored,
            "folder": str(self.folder),
            "speed": None if self.speed is None else self.speed.to_dict(),
        }


def named_folder(name: str) -> Path:
    """Folder of the backbone that is put under ``name``. A name is never part of a path."""
    return _store() / hashlib.sha256(f"name\0{name}".encode()).hexdigest()[:32]


def settings_folder(settings: Sequence[object], content: bytes = b"") -> Path:
    """Folder of the backbone that a provider prepares from ``settings`` (JSON values) and ``content``."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(content)
    return _store() / digest.hexdigest()[:32]


def read(folder: Path, id: str) -> Backbone | None:
    """Read the backbone in a folder; None if there is none or it is damaged.

    ``id`` is its id where the description does not hold one.
    """
    graph = folder / GRAPH
    with suppress(HeadstartError), untrusted(f"{folder}", BackboneError):
        values = read_json(folder / DESCRIPTION, MAX_JSON_BYTES)
        if _sha256(graph) != values["sha256"]:
            return None
        if "norms_sha256" in values and _sha256(folder / NORMS) != values["norms_sha256"]:
            return None
        return Backbone(
            id=str(values.get("id", id)),
            graph=graph,
            sha256=values["sha256"],
            preprocess=Preprocess.from_dict(values["preprocess"]),
            taps=tuple(tap_from_dict(tap) for tap in values["taps"]),
            licence=str(values["licence"]),
            source=str(values["source"]),
            notes=tuple(values.get("notes", ())),
            batch=values.get("batch"),
            assumption=values.get("assumption") and Assumption.from_dict(values["assumption"], folder / NORMS),
            precision="int8" if values.get("precision") == "int8" else "fp32",
        )
    return None


def read_back(folder: Path, id: str) -> Backbone:
    """Read a backbone that was written just now. Raises BackboneError if there is none, or it is damaged."""
    backbone = read(folder, id)
    if backbone is None:
        raise BackboneError(f"The prepared graph in {folder} does not read back; is the disk full or failing?")
    return backbone


def write(folder: Path, graph: bytes, description: Mapping[str, Any], norms: Norms | None = None) -> None:
    """Write a graph, its description and the graph of its batch norms to ``folder``, whole or not at all.

    Raises BackboneError.
    """
    norms_graph = norms.graph if norms is not None and isinstance(norms.graph, bytes) else None
    if norms_graph is not None:
        description = {**description, "norms_sha256": hashlib.sha256(norms_graph).hexdigest()}

    def fill(new: Path) -> None:
        (new / GRAPH).write_bytes(graph)
        if norms_graph is not None:
            (new / NORMS).write_bytes(norms_graph)
        (new / DESCRIPTION).write_bytes(to_json(description, indent=1))

    try:
        replace_folder(folder, fill)
    except OSError as error:
        if not folder.exists():  # else another process has just written the same
            raise BackboneError(
                f"Cannot store the prepared graph in {folder}: {error.strerror or error}; "
                "set HEADSTART_CACHE to a writable folder."
            ) from None


def check_name(name: str) -> str:
    """Return ``name``. Raises OptionError for one that a provider has, or that is not letters, digits and ``._-``."""
    from headstart.backbones.providers import PROVIDERS

    if not NAME.fullmatch(name) or name in PROVIDERS:
        raise OptionError(
            f"{name!r} cannot name a backbone; expected up to 64 letters, digits, dots, dashes and underscores, "
            "and not the name of a provider."
        )
    return name


def put(name: str, backbone: Backbone) -> None:
    """Store a backbone under ``name``, in place of another one there. What it assumed is settled with that.

    Raises BackboneError when it cannot be read or written.
    """
    backbone = with_steps(replace(backbone, assumption=None))
    try:
        graph = backbone.graph if isinstance(backbone.graph, bytes) else backbone.graph.read_bytes()
    except OSError as error:
        raise BackboneError(f"{backbone.id} cannot be read any more ({error.strerror}); try again.") from None
    if hashlib.sha256(graph).hexdigest() != backbone.sha256:
        raise BackboneError(f"The graph of {backbone.id} is not the one that was loaded; try again.")
    description = {
        "format": 1,
        "name": name,
        "id": backbone.id,
        "licence": backbone.licence,
        "source": backbone.source,
        "sha256": backbone.sha256,
        "preprocess": backbone.preprocess.to_dict(),
        "taps": [tap_to_dict(tap) for tap in backbone.taps],
        "notes": list(backbone.notes),
        "batch": backbone.batch,
        "precision": backbone.precision,
    }
    folder = named_folder(name)
    for _ in range(ATTEMPTS):
        stored = get(name)
        if stored is not None and replace(stored, graph=b"") == replace(backbone, graph=b""):
            return
        write(folder, graph, description)
        if get(name) is not None:
            return
        time.sleep(0.05)  # another process is between its two renames
    raise BackboneError(f"{folder} does not read back; is the disk full or failing?")


def get(name: str) -> Backbone | None:
    """Read the backbone stored under ``name``; None if there is none or it is damaged.

    One that an earlier version stored gets its steps now. Raises BackboneError where its graph does not run.
    """
    folder = named_folder(name)
    description = _description(folder)
    backbone = read(folder, name) if description.get("name") == name else None
    if backbone is None or all(tap.exponents is not None for tap in backbone.taps):
        return backbone
    backbone = with_steps(backbone)
    with suppress(OSError):  # else they are measured again the next time
        description["taps"] = [tap_to_dict(tap) for tap in backbone.taps]
        write_atomic(folder / DESCRIPTION, to_json(description, indent=1))
    return backbone


def entries() -> tuple[Entry, ...]:
    """List the store, by name and id. Graphs are not read, so a listed entry may be damaged."""
    listed = []
    for folder in _store().glob("[!.]*"):
        description = _description(folder)
        try:
            graph = (folder / GRAPH).stat()
            texts = {key: str(description[key]) for key in ("id", "sha256", "licence", "source")}
        except (OSError, KeyError):
            continue
        entry = Entry(
            name=str(description.get("name", "")),
            **texts,
            bytes=graph.st_size,
            stored=datetime.fromtimestamp(graph.st_mtime, UTC).isoformat(timespec="seconds"),
            folder=folder,
            speed=_speed(folder, texts["sha256"]),
        )
        listed.append(entry)
    return tuple(sorted(listed, key=lambda entry: (not entry.name, entry.name, entry.id, entry.stored)))


def remove(name: str) -> int:
    """Delete the entry named ``name``, else all that providers prepared for the id ``name``; return the bytes freed.

    Raises OptionError if there is none, BackboneError if it cannot be deleted.
    """
    stored = entries()
    matches = [entry for entry in stored if entry.name == name]
    matches = matches or [entry for entry in stored if not entry.name and entry.id == name]
    if not matches:
        names = ", ".join(dict.fromkeys(entry.name or entry.id for entry in stored)) or "nothing"
        raise OptionError(f"The store has no backbone {name!r}; it holds {names}.")
    for entry in matches:
        hidden = entry.folder.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            entry.folder.replace(hidden)  # first, so that nobody reads a half-deleted folder
        except OSError as error:
            raise BackboneError(f"{entry.folder} cannot be deleted: {error.strerror or error}.") from None
        shutil.rmtree(hidden, ignore_errors=True)
    return sum(entry.bytes for entry in matches)


def record_speed(backbone: Backbone, speed: Speed) -> None:
    """Write how fast a backbone runs here beside its graph, or, of a built-in one, to a folder of its own.

    Raises BackboneError when it cannot be written.
    """
    sha256 = backbone.sha256
    folders = [entry.folder for entry in entries() if entry.sha256 == sha256]
    for folder in folders or [settings_folder(["speed", sha256])]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / SPEED, to_json({"sha256": sha256, **speed.to_dict()}))
        except OSError as error:
            raise BackboneError(f"{folder} cannot be written: {error.strerror or error}.") from None


def recorded_speed(sha256: str) -> Speed | None:
    """Return the speed recorded for the graph with this hash; None until it was measured here."""
    speeds = (_speed(folder, sha256) for folder in _store().glob("[!.]*"))
    return next((speed for speed in speeds if speed is not None), None)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _store() -> Path:
    return cache_folder() / "backbones"


def _description(folder: Path) -> dict[str, Any]:
    """The description of a folder's backbone, {} if there is none that can be read."""
    try:
        return read_json(folder / DESCRIPTION, MAX_JSON_BYTES)
    except (OSError, ValueError):
        return {}


def _speed(folder: Path, sha256: str) -> Speed | None:
    """The speed recorded for the graph with this hash; None if there is none that can be read."""
    try:
        values = read_json(folder / SPEED, MAX_JSON_BYTES)
        rate = float(values["pictures_per_second"])
        if values["sha256"] != sha256 or not 0 < rate < 1e9:
            return None
        return Speed(rate, str(values["runtime"]), str(values["version"]), str(values["precision"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
