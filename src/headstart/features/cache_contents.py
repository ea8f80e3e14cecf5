"""What the cache folder holds, and clearing it. Everything there can be made or fetched again, but imported backbones.

Only files and folders that are named as Headstart names them are counted and deleted: the folder may be anyone's.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headstart.backbones import store
from headstart.errors import OptionError
from headstart.features.cache import VERSION, FeatureCache
from headstart.files import TEMPORARY, sweep_unfinished
from headstart.machine import cache_folder

HEX32, HEX64 = "[0-9a-f]{32}", "[0-9a-f]{64}"
DAY = 86_400  # seconds


@dataclass(frozen=True)
class Kind:
    """A kind of content: what it is, the folder it is in ("" for the cache folder itself), and how it is named."""

    name: str
    what: str
    folder: str
    pattern: str


OF_SQLITE = r"\.sqlite(-wal|-shm|-journal|\.damaged-[\d-]+)?"
FEATURES = Kind(
    "features", "entries of features, thumbnails and activation maps", "", rf"features-v{VERSION}{OF_SQLITE}"
)
OLD_FEATURES = Kind(
    "old-features", "features of earlier versions, not used", "", rf"features-v(?!{VERSION}\.)\d+{OF_SQLITE}"
)
BACKBONES = Kind("backbones", "prepared backbones", "backbones", HEX32)
KINDS = (
    FEATURES,
    OLD_FEATURES,
    BACKBONES,
    Kind("hub", "downloads from the Hugging Face Hub", "hub", rf"{HEX32}(\.json)?"),
    Kind("toolchains", "converters of headstart export", "toolchains", r"[a-z0-9_-]+-[0-9a-f]{16}"),
    Kind("web", "ONNX Runtime for web pages", "", r"onnxruntime-web-[\d.]+"),
    Kind("speeds", "speeds measured on this machine", "speeds", r"[^/]+\.json"),
    Kind("checks", "graphs that passed their check", "checked_graphs", rf"[^/]+-{HEX64}"),
)


@dataclass(frozen=True)
class Content:
    """What there is of a kind: entries, their bytes on the disk, and for backbones how many were imported by name.

    ``notes`` say what kept the entries from being counted, and what was done about it.
    """

    kind: Kind
    entries: int
    bytes: int
    imported: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cleared:
    """What was deleted of a kind, how many imported backbones were kept, and what could not be deleted, and why."""

    kind: Kind
    entries: int
    bytes: int
    kept: int = 0
    failed: tuple[str, ...] = ()


def contents() -> tuple[Content, ...]:
    """Return what the cache folder holds, by kind. Of the features each image counts once for each network."""
    return tuple(_count_features(kind) if kind is FEATURES else _count(kind) for kind in KINDS)


def _count_features(kind: Kind) -> Content:
    """Count the entries in the database, then measure it: one that is damaged is moved aside and begun anew."""
    entries, notes = 0, []
    if cache_folder() / FeatureCache.file_name() in _paths(kind):
        with FeatureCache() as cache:
            entries, notes = cache.count(), cache.notes
    return Content(kind, entries, sum(map(_size, _paths(kind))), notes=tuple(notes))


def _count(kind: Kind) -> Content:
    paths = list(_paths(kind))
    return Content(kind, len(paths), sum(map(_size, paths)), len(_imported()) if kind is BACKBONES else 0)


def clear(names: Sequence[str], unused_days: int = 0) -> tuple[Cleared, ...]:
    """Delete what there is of kinds, by name, or of all with "all"; imported backbones are kept.

    With ``unused_days``, 0 or more, only what was not used for so many days; of all but the features, what was not
    changed for as long. Raises OptionError for an unknown kind.
    """
    known = {kind.name: kind for kind in KINDS}
    for name in names:
        if name not in known and name != "all":
            raise OptionError(f"Unknown kind {name!r}; expected {', '.join(known)} or all.")
    kinds = KINDS if "all" in names else [kind for kind in KINDS if kind.name in names]
    before = max(-1, time.time() - unused_days * DAY)  # earlier there is nothing, and SQLite has 64 bits
    return tuple(_clear_features(kind, before) if kind is FEATURES else _clear(kind, before) for kind in kinds)


def forget(content_hashes: Iterable[bytes]) -> tuple[int, tuple[str, ...]]:
    """Delete all features, thumbnails and maps of images with these SHA-256, and count entries; and what failed, why.

    Caches of earlier versions and damaged ones, in which no image can be looked up, are deleted whole.
    """
    failed = [reason for path in list(_paths(OLD_FEATURES)) for reason in _delete(path)]
    entries, more = _delete_entries(lambda cache: cache.forget(content_hashes))
    return entries, (*failed, *more)


def _clear_features(kind: Kind, before: float) -> Cleared:
    """Delete entries in the database, which other processes may have open, and the copies of damaged ones."""
    size = sum(map(_size, _paths(kind)))
    entries, failed = _delete_entries(lambda cache: cache.clear(int(before)))
    return Cleared(kind, entries, max(0, size - sum(map(_size, _paths(kind)))), failed=failed)


def _delete_entries(delete: Callable[[FeatureCache], int]) -> tuple[int, tuple[str, ...]]:
    """Let ``delete`` delete entries of the database, and count them; then delete the copies of damaged databases.

    One that turns out to be damaged is moved aside as it is opened, and deleted with them. Returns what failed, too.
    """
    entries, failed = 0, list[str]()
    if (cache_folder() / FeatureCache.file_name()).is_file():
        with FeatureCache() as cache:
            entries = delete(cache)
            failed += cache.notes
    for path in list(_paths(FEATURES)):
        if ".damaged-" in path.name:
            reasons = _delete(path)
            failed = [note for note in failed if reasons or path.name not in note] + reasons
    return entries, tuple(failed)


def _clear(kind: Kind, before: float) -> Cleared:
    kept = _imported() if kind is BACKBONES else set()
    entries, size, failed = 0, 0, []
    if folder := _folder(kind):
        with suppress(OSError):
            sweep_unfinished(folder)
    for path in list(_paths(kind)):
        if path in kept or path.lstat().st_mtime > before:
            continue
        bytes_there = _size(path)
        errors = _delete(path)
        failed += errors
        if not errors:
            entries, size = entries + 1, size + bytes_there
    return Cleared(kind, entries, size, len(kept), tuple(failed))


def _imported() -> set[Path]:
    """The folders of the backbones that were imported under a name: their originals may be gone."""
    return {entry.folder for entry in store.entries() if entry.name}


def _folder(kind: Kind) -> Path | None:
    """Return the folder of a kind, None where there is none. A link in the cache folder is not followed."""
    folder = cache_folder() / kind.folder
    return folder if folder.is_dir() and not (kind.folder and folder.is_symlink()) else None


def _paths(kind: Kind) -> Iterator[Path]:
    """Yield the paths of a kind, but no links."""
    folder = _folder(kind)
    for path in sorted(folder.iterdir()) if folder else ():
        if re.fullmatch(kind.pattern, path.name) and not path.is_symlink():
            yield path


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder. What vanishes meanwhile counts as nothing."""
    try:
        if not path.is_dir():
            return path.lstat().st_size
    except OSError:
        return 0
    return sum(_size(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)


def _delete(path: Path) -> list[str]:
    """Delete a file or a folder, which nobody sees half deleted. Returns why it could not be deleted."""
    hidden = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        path.replace(hidden)
        if hidden.is_dir():
            shutil.rmtree(hidden)
        else:
            hidden.unlink()
    except OSError as error:
        return [f"{path.name} could not be deleted: {error.strerror or error}"]
    return []
