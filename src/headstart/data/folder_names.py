"""Class and split names from the paths of a folder or an archive."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from headstart.data.dataset import Dataset, Item, Quarantined, Reader
from headstart.data.sources import Source
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
LAYOUT = "expected class/picture.jpg, or train/class/picture.jpg with validation and test beside train"


def normalise(name: str) -> str:
    """A name in Unicode's composed form (NFC): macOS stores 'é' as two characters, Linux as one."""
    return unicodedata.normalize("NFC", name)


def split_name(name: str) -> str | None:
    """train, validation or test for a folder name that means one of them, in any case; else None."""
    return SPLIT_NAMES.get(name.lower())


def from_listing(uri: str, source: Source) -> Dataset:
    """The data set that a source's names describe. Folders around the classes are looked through."""
    skipped: Counter[str] = Counter(source.skipped)
    found: list[tuple[int, tuple[str, ...]]] = []
    for number, name in enumerate(source.names):
        parts = tuple(name.split("/"))
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            skipped["hidden"] += 1
        elif not is_image_name(name):
            skipped["not a picture"] += 1
        else:
            found.append((number, parts))
    if not found:
        raise DataError(f"No pictures in {uri} ({_counted(skipped)}); {LAYOUT}.")
    depth = _wrapping([parts for _, parts in found])
    root = [(number, parts[depth:]) for number, parts in found]
    if all(len(parts) == 1 for _, parts in root):
        # Pictures and no class folder: a set to predict on.
        items = [(number, Item(source.shown(number), None, "train")) for number, _ in root]
    else:
        items = []
        in_splits = all(len(p) == 1 or split_name(p[0]) is not None for _, p in root)
        for number, parts in root:
            split = split_name(parts[0]) if in_splits else "train"
            inner = parts[1:] if in_splits else parts
            if len(inner) < 2 or split is None:
                skipped["no class folder"] += 1
            else:
                items.append((number, Item(source.shown(number), normalise(inner[0]), split)))
    if not items:
        raise DataError(f"No picture of {uri} lies in a class folder; {LAYOUT}.")
    return build(uri, items, dict(skipped), source.quarantined, Reader(source.read))


def build(
    uri: str,
    items: Sequence[tuple[int, Item]],
    skipped: dict[str, int],
    quarantined: Sequence[Quarantined],
    reader: Reader,
) -> Dataset:
    """A Dataset of (number, item) pairs, sorted by path."""
    ordered = sorted(items, key=lambda pair: pair[1].path)
    classes = sorted({item.label for _, item in ordered if item.label is not None})
    return Dataset(
        uri,
        tuple(item for _, item in ordered),
        tuple(classes),
        skipped,
        tuple(quarantined),
        reader,
        tuple(number for number, _ in ordered),
    )


def _wrapping(paths: Sequence[tuple[str, ...]]) -> int:
    """How many leading folders all pictures share and that only wrap the data (flower_photos/daisy/1.jpg)."""
    depth = 0
    while True:
        heads = {parts[depth] for parts in paths if len(parts) > depth + 1}
        alone = all(len(parts) > depth + 1 for parts in paths)
        deeper = all(len(parts) > depth + 2 for parts in paths)
        if not (alone and deeper and len(heads) == 1) or split_name(next(iter(heads))) is not None:
            return depth
        depth += 1


def _counted(skipped: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "it is empty"
