"""Labelled images from folders, archives, tables, URLs, or Python lists.

dataset.py        Dataset, Item, Quarantined: the form that every source takes
sources.py        local folders, archives, and fsspec URLs of either
archives.py       zip and tar archives, read in place
reading.py        files read within limits
folder_names.py   class and split names from a listing of paths
tables.py         CSV, Parquet and JSON-lines tables
download.py       public datasets by name
rendered/         a sample dataset, rendered on this machine
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import SPLITS, Dataset, Item, Quarantined, concatenate
from headstart.data.folder_names import from_listing, to_nfc
from headstart.data.reading import read_file
from headstart.errors import DataError, ImageError

__all__ = ["SPLITS", "Dataset", "Item", "Quarantined", "as_dataset", "concatenate", "from_images", "open_dataset"]

TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")


def open_dataset(uri: str | os.PathLike[str], *, group_column: str | None = None) -> Dataset:
    """Open the dataset at a path or an fsspec URL.

    Folders and archives (zip, tar) hold ``class/image`` or ``train|validation|test/class/image``; tables (CSV,
    Parquet, JSON lines) have a path and a label column and optionally a split and a group column; a folder with
    images right in it, and nothing else, is an unlabelled set. ``group_column`` is the name of a table's group column.
    Raises DataError if nothing usable is there.
    """
    from headstart.data.sources import open_source
    from headstart.data.tables import from_table

    text = os.fspath(uri)
    if text.split("?")[0].lower().endswith(TABLES):
        return from_table(text, group_column)
    if group_column is not None:
        raise DataError(f"{text} is not a table, so it has no column {group_column!r}; group by 'auto' or 'none'.")
    return from_listing(text, open_source(text))


def as_dataset(
    images: Any,
    labels: Sequence[object] | None = None,
    groups: Sequence[object] | None = None,
    *,
    group_column: str | None = None,
) -> Dataset:
    """Turn what a user has into a dataset: a dataset, the path or URL of one, or a list for ``from_images``.

    Raises DataError.
    """
    if isinstance(images, Dataset):
        return images
    if isinstance(images, str | os.PathLike):
        return open_dataset(images, group_column=group_column)
    return from_images(list(images), None if labels is None else list(labels), None if groups is None else list(groups))


def from_images(
    images: Sequence[str | os.PathLike[str] | bytes | NDArray[np.uint8]],
    labels: Sequence[object] | None = None,
    groups: Sequence[object] | None = None,
) -> Dataset:
    """Build a dataset from paths, file bytes or arrays [height, width, 3] uint8, with one label and group for each.

    An image that cannot be read raises ImageError only when it is read. Raises DataError if the lengths differ or
    a label is None.
    """
    if isinstance(images, str | bytes):
        raise DataError("Expected a list of images, got a single one; put it in a list.")
    for name, values in (("labels", labels), ("groups", groups)):
        if values is not None and len(values) != len(images):
            raise DataError(f"{len(images)} images but {len(values)} {name}; give one for each image.")
    if labels is not None and any(label is None for label in labels):
        missing = next(i for i, label in enumerate(labels) if label is None)
        raise DataError(f"Image {missing} has no label (None); leave unlabelled images out.")
    items = []
    for i, image in enumerate(images):
        path = os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {i}"
        label = None if labels is None else to_nfc(str(labels[i]))
        group = None if groups is None else str(groups[i])
        items.append(Item(path, label, "train", group, key=i))

    def read(key: int) -> bytes | NDArray[np.uint8]:
        image = images[key]
        if isinstance(image, bytes):
            return image
        if isinstance(image, np.ndarray):
            return _check_array(image)
        return read_file(items[key].path)

    return Dataset("images", tuple(items), _sorted_classes(labels or ()), {}, (), read)


def _check_array(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an array unchanged if it is an image. Raises ImageError."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ImageError(f"An array of {image.dtype} {image.shape} is not an image; expected uint8 [height, width, 3].")
    return image


def _sorted_classes(labels: Sequence[object]) -> tuple[str, ...]:
    """Return the names of the classes in the order in which NumPy and scikit-learn sort the labels: 2 before 10.

    scikit-learn passes numbers to an estimator that it validates, and expects its columns in their order.
    """
    try:
        ordered = sorted(set(labels))  # type: ignore[type-var]
    except TypeError:  # labels of types that cannot be compared
        ordered = sorted(set(labels), key=str)
    return tuple(dict.fromkeys(to_nfc(str(label)) for label in ordered))
