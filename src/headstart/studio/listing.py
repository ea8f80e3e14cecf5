"""What lies in a project's folder: the images, the label that each folder gives, and where new images go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.data.dataset import Dataset, Item, paths_by_reason
from headstart.data.layout import from_listing, to_nfc
from headstart.data.sources import open_source
from headstart.errors import DataError, OptionError

NOT_FOR_STUDIO = "class/split/image"
EXPECTED = ("hidden", "about the data", "left by the system")  # reasons that no one needs to hear of


@dataclass(frozen=True)
class Listing:
    """The images of a folder, whose paths are relative to it.

    ``root`` is the folder, relative to the project's, in which new class folders are made: "" or that of the training
    images. ``folders`` are the names of class folders, empty ones too; ``notes`` are lines that the user must see.
    """

    items: tuple[Item, ...]
    root: str
    folders: tuple[str, ...]
    notes: tuple[str, ...]


def list_folder(folder: Path) -> Listing:
    """List the images of a folder as ``fit`` would read them; right in the folder, they have no label.

    Raises DataError where the folder cannot be listed, OptionError for a layout that studio does not work on.
    """
    source = open_source(str(folder))
    if not source.is_folder:
        raise OptionError(f"{folder} holds archives; unpack them, or import them into an empty project.")
    try:
        dataset = from_listing(str(folder), source, "auto")
    except DataError:  # no images, or none in a class folder
        return Listing((), "", _folders(folder, ""), tuple(source.notes))
    if dataset.layout == NOT_FOR_STUDIO:
        raise OptionError(f"{folder} is laid out as {NOT_FOR_STUDIO}; put the splits first (train/class/image).")
    prefix = f"{source.root.rstrip('/')}/"
    items = [replace(item, path=item.path.removeprefix(prefix)) for item in dataset.items]
    root = _class_root(items)
    return Listing(tuple(items), root, _folders(folder, root), (*dataset.notes, *_passed_over(dataset)))


def label_position(path: str, label: str) -> int | None:
    """Return which part of a path is the folder of a label, None where none is."""
    parts = path.split("/")[:-1]
    return next((i for i, part in enumerate(parts) if to_nfc(part) == label), None)


def _passed_over(dataset: Dataset) -> list[str]:
    skipped = [item for item in dataset.skipped if item.reason not in EXPECTED]
    return [f"{len(paths)} files passed over: {why} ({paths[0]})." for why, paths in paths_by_reason(skipped).items()]


def _class_root(items: Iterable[Item]) -> str:
    """Return the folder that holds the class folders of most training images."""
    roots: Counter[str] = Counter()
    for item in items:
        if item.split == "train" and item.label is not None:
            position = label_position(item.path, item.label)
            roots["/".join(item.path.split("/")[:position]) if position else ""] += 1
    return roots.most_common(1)[0][0] if roots else ""


def _folders(folder: Path, root: str) -> tuple[str, ...]:
    found = (entry for entry in (folder / root).iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return tuple(sorted(to_nfc(entry.name) for entry in found))
