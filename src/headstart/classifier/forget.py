"""Forget images: a model that keeps features becomes the one of a fit that never had some of them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

import numpy as np

from headstart.classifier.kept_rows import labels_to_learn, present_labels
from headstart.classifier.parts import KeptModel, open_kept, refit, save_anew
from headstart.classifier.refit import AnyFitResult
from headstart.errors import OptionError
from headstart.features import cache_contents
from headstart.features.rows import FeatureRows, Source
from headstart.files import TEMPORARY, open_regular

SHA256 = re.compile(r"[0-9a-fA-F]{64}")
MAX_NAMED = 5


@dataclass(frozen=True)
class Forgotten:
    """What ``forget_images`` did: the new model, the paths that are gone, and the number of entries of the cache.

    ``notes`` are lines that the user must see; ``failed`` says what may be left in the cache, and why.
    """

    result: AnyFitResult
    folder: str
    paths: tuple[str, ...]
    cache_entries: int
    notes: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """What is named: hashes of images that have rows or could not be read, paths of others, and names of nothing."""

    hashes: frozenset[bytes]
    paths: frozenset[str]
    unknown: tuple[str, ...]


def forget_images(
    folder: Path, names: Sequence[str], output: Path | None = None, *, workers: int | None = None
) -> Forgotten:
    """Fit a model anew without some of its images, and delete what the cache of this machine holds of them.

    ``names`` are files or folders of images, which are found by their content; paths as the model has them, or their
    ends from a ``/`` on, in which ``*``, ``?`` and ``[...]`` are wildcards; or SHA-256 in hexadecimal. All copies of an
    image go with it. The model is replaced in one step, or left where it is and written to ``output``. Raises
    OptionError where no image is named, where too few would be left, and for a model that keeps no features;
    ModelError, DataError.
    """
    model = open_kept(folder, workers)
    features = model.features
    found = find_images(features, names)
    left_behind = _left_behind(folder)
    if not found.hashes and not found.paths:
        raise OptionError(
            f"No image of {folder} is named {', '.join(found.unknown[:MAX_NAMED])}; nothing was changed. Give the "
            f"file, its path as in the model, or its SHA-256.{''.join(f' {note}' for note in left_behind)}"
        )
    rows = features.rows
    is_gone = np.array([content in found.hashes for content in rows.hashes], bool)
    paths = sorted({rows.paths[i] for i in np.flatnonzero(is_gone)} | found.paths)
    left = FeatureRows(_without(features.source, found, paths), rows.select(np.flatnonzero(~is_gone)))
    is_multi_label, labels = features.source.is_multi_label, labels_to_learn(left)
    classes = [name for name in model.classes if name in labels]
    if len(classes) < (1 if is_multi_label else 2):
        what = "no label" if is_multi_label else f"{classes[0]} alone" if classes else "no class"
        raise OptionError(
            f"Without these images {folder} would have {what} to tell apart; nothing was changed. Delete the whole "
            "model to forget them."
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    before = model.forgotten
    record = {
        "images": before["images"] + len(paths),
        "times": [*before["times"], {"date": now, "images": len(paths)}],
    }
    # First, so that a run that is killed can be repeated: the images are still in the model.
    entries, failed = cache_contents.forget(sorted(found.hashes))
    result = refit(model, left, forgotten=record)
    saved = save_anew(model, result, output)
    return Forgotten(
        result, saved, tuple(paths), entries, (*_notes(model, found, result, output), *left_behind), failed
    )


def _left_behind(folder: Path) -> list[str]:
    """Return notes on what runs that were killed have left beside a model: it may hold the model as it was before."""
    beside = Path(os.path.abspath(folder)).parent.glob(f"{TEMPORARY}*")  # noqa: PTH100  # a link keeps its place
    return [
        f"{path} was left by a run that was killed, or is of one that runs now, and may hold forgotten images; "
        "delete it when none runs."
        for path in sorted(beside)
        if path.is_dir() and any(next(path.glob(form), None) for form in ("*/config.json", "*/*/config.json"))
    ]


def find_images(features: FeatureRows, names: Sequence[str]) -> _Found:
    """Find the images that ``names`` name; see ``forget_images``."""
    rows, source = features.rows, features.source
    known = {*rows.hashes, *(bytes.fromhex(image.content_hash) for image in source.unread)} - {b""}
    others = [item.path for item in source.skipped] + [image.path for image in source.unread]
    hashes: set[bytes] = set()
    paths: set[str] = set()
    unknown = []
    for name in names:
        by_content = {content for content in _contents(name) if content in known}
        by_path: set[str] = set()
        if not by_content or Path(name).is_dir():  # a file that is there says better than its name what it is
            places = [i for i, path in enumerate(rows.paths) if _is_named(path, name)]
            by_content |= {rows.content_hashes[i].tobytes() for i in places}
            by_path = {path for path in others if _is_named(path, name)}
        if not by_content and not by_path:
            unknown.append(name)
        hashes |= by_content
        paths |= by_path
    paths |= {i.path for i in source.unread if i.content_hash and bytes.fromhex(i.content_hash) in hashes}
    return _Found(frozenset(hashes), frozenset(paths), tuple(unknown))


def _contents(name: str) -> Iterator[bytes]:
    """Yield the SHA-256 that a name says, or those of the file or of all files in the folder of that name."""
    if SHA256.fullmatch(name) and not os.path.lexists(name):
        yield bytes.fromhex(name)
        return
    path = Path(name)
    files = [path] if path.is_file() else []
    if path.is_dir():
        files = [Path(folder) / file for folder, _, found in os.walk(path) for file in found]
    for file in files:
        if file.is_file() and not file.is_symlink():
            digest = hashlib.sha256()
            with open_regular(file) as stream:
                while block := stream.read(2**20):
                    digest.update(block)
            yield digest.digest()


def _is_named(path: str, name: str) -> bool:
    """Return whether a path of a model is named: it, its end from a ``/`` on, or the folder that it is in.

    >>> _is_named("photos/bees/1.jpg", "bees/*.jpg"), _is_named("photos/bees/1.jpg", "ees/1.jpg")
    (True, False)
    >>> _is_named("photos/bees/1.jpg", "photos/bees/"), _is_named("photos/bees/1.jpg", "1.jpg")
    (True, True)
    """
    pattern = PurePath(name).as_posix()
    return any(fnmatchcase(path, form) for form in (pattern, f"*/{pattern}", f"{pattern}/*", f"*/{pattern}/*"))


def _without(source: Source, found: _Found, paths: Sequence[str]) -> Source:
    """Return the source without what names the images: skipped files, unreadable images, and notes."""
    gone = {*paths}
    unread = [image for image in source.unread if image.path not in gone]
    names = set(paths) | {PurePath(path).name for path in paths}
    return replace(
        source,
        skipped=tuple(item for item in source.skipped if item.path not in gone),
        unread=tuple(i for i in unread if not i.content_hash or bytes.fromhex(i.content_hash) not in found.hashes),
        notes=tuple(note for note in source.notes if not any(name in note for name in names)),
    )


def _notes(model: KeptModel, found: _Found, result: AnyFitResult, output: Path | None) -> Iterator[str]:
    what = "label" if model.features.source.is_multi_label else "class"
    assert result.kept is not None
    present = present_labels(result.kept)
    for name in model.classes:
        if name in present and name not in result.model.classes:
            yield f"{name} is no longer a label: no training image left is known to be without it."
        elif name not in result.model.classes:
            yield f"{name} has no training images left, and is no longer a {what}."
    if found.unknown:
        more = ", ..." if len(found.unknown) > MAX_NAMED else ""
        names = ", ".join(found.unknown[:MAX_NAMED])
        yield f"{len(found.unknown)} of what was named is no image of the model: {names}{more}"
    if output is not None:
        yield f"{model.folder} itself still holds them; delete it."
    if model.has_report:
        yield "The new model has no report, which would need the images; copies of the old one elsewhere show them."
    if result.model.preprocess.sample_range is not None:
        low, high = result.model.preprocess.sample_range
        yield (
            f"The range {low:g} to {high:g} of images of more than 8 bits was measured with the forgotten ones, and "
            "stays; fit again if one of them was the brightest or the darkest."
        )
