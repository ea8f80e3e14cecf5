"""What lies in a project's folder: the images, the label that each folder gives, and where new images go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.data.dataset import Dataset, Item, paths_by_reason
from headstart.data.layout import from_listing, to_nfc
from headstart.data.sources import open_source
from headstart.errors import DataError, OptionError
from headstart.studio.records import ImageRecord

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


def list_folder(folder: Path, *, multi_label: bool = False) -> Listing:
    """List the images of a folder as ``fit`` would read them; right in the folder, they have no label.

    Where images may have several labels, those in no class folder are listed too, without one. Raises DataError where
    the folder cannot be listed, OptionError for a layout that studio does not work on.
    """
    source = open_source(str(folder))
    if not source.is_folder:
        raise OptionError(f"{folder} holds archives; unpack them, or import them into an empty project.")
    prefix, text = f"{source.root.rstrip('/')}/", str(folder)
    dataset = None
    with suppress(DataError):  # no images, or none in a class folder
        dataset = from_listing(text, source, "auto")
    if dataset is not None and dataset.layout == NOT_FOR_STUDIO:
        raise OptionError(f"{folder} is laid out as {NOT_FOR_STUDIO}; put the splits first (train/class/image).")
    items = [] if dataset is None else [_below(item, prefix) for item in dataset.items]
    root = _class_root(items)
    if multi_label:
        with suppress(DataError):
            dataset = replace(from_listing(text, source, "image"), notes=())
            known = {item.path: item for item in items}
            items = [known.get(item.path, item) for item in (_below(item, prefix) for item in dataset.items)]
    if dataset is None:
        return Listing((), "", _folders(folder, ""), tuple(source.notes))
    return Listing(tuple(items), root, _folders(folder, root), (*dataset.notes, *_passed_over(dataset)))


def _below(item: Item, prefix: str) -> Item:
    return replace(item, path=item.path.removeprefix(prefix))


def label_position(path: str, label: str) -> int | None:
    """Return which part of a path is the folder of a label, None where none is."""
    parts = path.split("/")[:-1]
    return next((i for i, part in enumerate(parts) if to_nfc(part) == label), None)


def path_for_label(record: ImageRecord, root: str) -> str:
    """Return the path of an image in the folder of its label; ``root`` is that of ``Listing``."""
    parts, label = record.path.split("/"), str(record.label)
    position = None if record.folder_label is None else label_position(record.path, record.folder_label)
    if position is None:
        return "/".join(part for part in (root, label, parts[-1]) if part)
    return "/".join((*parts[:position], label, *parts[position + 1 :]))


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
