"""Labelled images as items with a reader: the form that every source of images takes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, ImageError

SPLITS = ("train", "validation", "test")

ReadImage = Callable[[int], bytes | NDArray[np.uint8]]


@dataclass(frozen=True)
class Item:
    """One image of a dataset.

    ``path`` is shown to people. ``label`` is the name of the class (None: unlabelled), ``group`` the name of what the
    image shares with others, such as a scene (None: unknown). ``key`` is the number by which the reader of the data
    set finds the image. ``folder`` is the folder in which the image lies, relative to that of its class where there are
    class folders, and empty where it lies right in that. In a multi-label dataset ``label`` is None, and ``labels`` are
    the labels that hold of the image, ``unknown`` those of which it is not known (None and empty: unlabelled);
    ``is_rest_unknown`` says that of all others it is not known either, whichever table or model names them.
    """

    path: str
    label: str | None
    split: str
    group: str | None = None
    key: int = 0
    folder: str = ""
    labels: tuple[str, ...] | None = None
    unknown: tuple[str, ...] = ()
    is_rest_unknown: bool = False


@dataclass(frozen=True)
class Quarantined:
    """An image that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Skipped:
    """A file, folder, link or table row that was passed over, and why."""

    path: str
    reason: str


def group_numbers(names: Sequence[str | None]) -> NDArray[np.int64] | None:
    """Return the number [n] of the group of each image by its name, None where no image has one.

    An image without a name is a group of its own.
    """
    if all(name is None for name in names):
        return None
    known = {name: i for i, name in enumerate(dict.fromkeys(name for name in names if name is not None))}
    return np.array([len(known) + i if name is None else known[name] for i, name in enumerate(names)], np.int64)


def paths_by_reason(skipped: Iterable[Skipped]) -> dict[str, list[str]]:
    """Return the paths that were skipped for each reason."""
    paths: dict[str, list[str]] = {}
    for item in skipped:
        paths.setdefault(item.reason, []).append(item.path)
    return paths


@dataclass(frozen=True)
class Dataset:
    """Images with their classes.

    ``items`` are in a fixed order. ``classes`` are the names over all splits, so that a class has the same index in
    every split; they are sorted as texts ("10" before "2"), numbers of Python by value. ``skipped`` names all that was
    passed over, and ``quarantined`` the images that were refused while listing. ``reader`` returns the file's bytes, or
    the array [height, width, 3], of the item with a given key; it may be called from several threads at once.
    Paths of items are relative to ``folder``, the folder of a table; it is empty where they are complete. ``layout``
    says how the source was read, ``notes`` are lines about it that the user must see, and ``class_names`` the pairs of
    a class and its new name by which classes were renamed, merged and left out (an empty name).

    ``other_columns`` are those of a table that play no part, such as one whose name does not tell that it is a group.

    A multi-label dataset has no ``classes`` but ``label_names``, the names of its labels in the order of the columns of
    an indicator matrix: what knows of one label alone takes its images for unlabelled ones.
    """

    uri: str
    items: tuple[Item, ...]
    classes: tuple[str, ...]
    skipped: tuple[Skipped, ...] = field(repr=False)
    quarantined: tuple[Quarantined, ...]
    reader: ReadImage = field(repr=False)
    folder: str = ""
    layout: str = ""
    notes: tuple[str, ...] = ()
    class_names: tuple[tuple[str, str], ...] = ()
    label_names: tuple[str, ...] = ()
    other_columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Read the bytes of a file, or the array [height, width, 3] it was given as. Raises ImageError; thread-safe."""
        return self.reader(self.items[index].key)

    def without_images(self) -> Dataset:
        """Return the same as the pickle of a result holds it: to read an image raises ImageError."""
        return replace(self, reader=_no_image)

    @property
    def skip_counts(self) -> dict[str, int]:
        """The number of files, folders, links or rows that were skipped, by reason."""
        return {reason: len(paths) for reason, paths in paths_by_reason(self.skipped).items()}

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return bool(self.label_names)

    @property
    def label_summary(self) -> str:
        """How many labels there are, in one line: "multi-label: 5 labels, 1.7 an image, 12 images without any"."""
        labelled = [item for item in self.items if item.labels is not None]
        each = sum(len(item.labels or ()) for item in labelled) / max(1, len(labelled))
        without = sum(not item.labels for item in labelled)
        unknown = sum(
            len(self.label_names) - len(item.labels or ()) if item.is_rest_unknown else len(item.unknown)
            for item in labelled
        )
        open_ones = "1 label of an image" if unknown == 1 else f"{unknown} labels of images"
        not_known = f", {open_ones} not known" if unknown else ""
        labels, images = len(self.label_names), "image" if without == 1 else "images"
        return (
            f"multi-label: {labels} label{'' if labels == 1 else 's'}, {each:.1f} an image, {without} {images} without "
            f"any{not_known}"
        )

    def require_one_label(self, what: str) -> None:
        """Raise DataError for a multi-label dataset, which ``what`` cannot use."""
        if self.is_multi_label:
            raise DataError(
                f"{self.uri} has several labels an image ({self.label_summary}), and {what} needs one class an image."
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have images, in the order train, validation, test."""
        present = {item.split for item in self.items}
        return tuple(name for name in SPLITS if name in present)

    def split(self, name: str) -> Dataset:
        """Return the images of one split; the classes stay the same."""
        return self.select(i for i, item in enumerate(self.items) if item.split == name)

    def select(self, indices: Iterable[int]) -> Dataset:
        """Return the images at ``indices``, in that order; the classes stay the same."""
        return replace(self, items=tuple(self.items[i] for i in indices))

    def with_split(self, name: str) -> Dataset:
        """Return the same images, all of them in the split ``name``."""
        return replace(self, items=tuple(replace(item, split=name) for item in self.items))


def _no_image(_: int) -> bytes:
    raise ImageError("The pickle of a result holds no image; open the dataset again.")


def sorted_dataset(
    uri: str,
    items: Iterable[Item],
    skipped: Sequence[Skipped],
    quarantined: Sequence[Quarantined],
    reader: ReadImage,
    *,
    layout: str = "",
    notes: Sequence[str] = (),
) -> Dataset:
    """Build a dataset whose items are sorted by path and whose classes are their labels in alphabetical order."""
    by_path = tuple(sorted(items, key=lambda item: item.path))
    classes = sorted({item.label for item in by_path if item.label is not None})
    return Dataset(
        uri, by_path, tuple(classes), tuple(skipped), tuple(quarantined), reader, layout=layout, notes=tuple(notes)
    )


def concatenate(first: Dataset, *more: Dataset) -> Dataset:
    """Return the images of all datasets, one after the other, and the classes of all.

    The URI and the layout are those of the first. What was skipped or quarantined in the same source is named once.
    """
    datasets = (first, *more)
    sizes = [1 + max((item.key for item in dataset.items), default=-1) for dataset in datasets]
    offsets = list(accumulate(sizes, initial=0))  # of the keys of each, to tell them apart

    def read(key: int) -> bytes | NDArray[np.uint8]:
        i = bisect_right(offsets, key) - 1
        return datasets[i].reader(key - offsets[i])

    def joined(name: str) -> tuple[Any, ...]:
        known: set[Any] = set()  # by the datasets before; values of one may be equal, such as two rows without a label
        values: list[Any] = []
        for dataset in datasets:
            values += (new := [value for value in getattr(dataset, name) if value not in known])
            known.update(new)
        return tuple(values)

    return replace(
        first,
        items=tuple(
            replace(item, key=item.key + offset)
            for dataset, offset in zip(datasets, offsets, strict=False)
            for item in dataset.items
        ),
        reader=read,
        classes=joined("classes"),
        skipped=joined("skipped"),
        quarantined=joined("quarantined"),
        notes=joined("notes"),
        class_names=joined("class_names"),
        label_names=joined("label_names"),
        other_columns=joined("other_columns"),
    )
