"""Class and split names from the paths of a folder or an archive."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from headstart.data.dataset import Dataset, Item, sorted_dataset
from headstart.data.reading import Source
from headstart.errors import DataError
from headstart.images.decode import is_image_name

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
LAYOUT = "expected class/image.jpg, or train/class/image.jpg with validation and test beside train"

PathParts = tuple[str, ...]


def to_nfc(name: str) -> str:
    """Return a name in Unicode's composed form (NFC): macOS stores 'é' as two characters, Linux as one."""
    return unicodedata.normalize("NFC", name)


def split_name(name: str) -> str | None:
    """Return train, validation or test for a name that means one of them, in any case, otherwise None."""
    return SPLIT_NAMES.get(name.lower())


def from_listing(uri: str, source: Source) -> Dataset:
    """Build the dataset that the names of a source describe. Folders that only wrap the data are ignored.

    Raises DataError if it has no images, or none in a class folder.
    """
    skipped: Counter[str] = Counter(source.skipped)
    paths: dict[int, PathParts] = {}
    for key, name in enumerate(source.names):
        parts = tuple(name.split("/"))
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            skipped["hidden"] += 1
        elif not is_image_name(name):
            skipped["not an image"] += 1
        else:
            paths[key] = parts
    if not paths:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "it is empty"
        raise DataError(f"No images in {uri} ({counts}); {LAYOUT}.")
    depth = _wrapping_depth(list(paths.values()))
    paths = {key: parts[depth:] for key, parts in paths.items()}
    if all(len(parts) == 1 for parts in paths.values()):
        # Images and no class folder: a set to predict on.
        items = [Item(source.display_path(key), None, "train", key=key) for key in paths]
    else:
        items = _labelled_items(source, paths, skipped)
    if not items:
        raise DataError(f"No image in {uri} is in a class folder; {LAYOUT}.")
    return sorted_dataset(uri, items, dict(skipped), source.quarantined, source.read)


def _labelled_items(source: Source, paths: dict[int, PathParts], skipped: Counter[str]) -> list[Item]:
    """Return the items of class/image or split/class/image; those without a class folder are added to ``skipped``."""
    items = []
    has_splits = all(len(parts) == 1 or split_name(parts[0]) is not None for parts in paths.values())
    for key, parts in paths.items():
        split = split_name(parts[0]) if has_splits else "train"
        below_split = parts[1:] if has_splits else parts
        if len(below_split) < 2 or split is None:
            skipped["no class folder"] += 1
        else:
            items.append(Item(source.display_path(key), to_nfc(below_split[0]), split, key=key))
    return items


def _wrapping_depth(paths: Sequence[PathParts]) -> int:
    """Return how many leading folders all images share that only wrap the data (flower_photos/daisy/1.jpg)."""
    depth = 0
    while True:
        # Without one more folder below it, the next folder is a class, not a wrapper.
        if any(len(parts) <= depth + 2 for parts in paths):
            return depth
        folders = {parts[depth] for parts in paths}
        if len(folders) > 1 or split_name(next(iter(folders))) is not None:
            return depth
        depth += 1
