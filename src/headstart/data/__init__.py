"""Labelled pictures, wherever they lie: folders, archives, tables, URLs, or Python lists.

model.py     Dataset, Item, Quarantined: what every source becomes
layout.py    class and split names from a listing of paths
sources.py   folders, zip and tar archives, fsspec URLs: list names, read bytes
table.py     CSV, Parquet and JSON-lines tables
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import SPLITS, Dataset, Item, Quarantined, Reader, concatenate
from headstart.data.folder_names import normalise
from headstart.errors import DataError, ImageError

__all__ = ["SPLITS", "Dataset", "Item", "Quarantined", "as_dataset", "concatenate", "from_images", "open_dataset"]

TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")


def open_dataset(uri: str | os.PathLike[str], *, group_column: str | None = None) -> Dataset:
    """The data set at a path or an fsspec URL.

    Folders and archives (zip, tar) hold ``class/picture`` or ``train|validation|test/class/picture``; tables
    (CSV, Parquet, JSON lines) have a path and a label column and maybe a split and a group column; a folder
    with pictures right in it, and nothing else, is an unlabelled set. ``group_column`` names a table's group
    column. Raises DataError when nothing usable is there.
    """
    from headstart.data.folder_names import from_listing
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
    pictures: Sequence[str | os.PathLike[str] | bytes | NDArray[np.uint8]],
    labels: Sequence[object] | None = None,
    groups: Sequence[object] | None = None,
) -> Dataset:
    """A data set from paths, file bytes or arrays [height, width, 3] uint8, with labels and groups beside them.

    What cannot be opened is found later and quarantined. Raises DataError when the lengths differ.
    """
    if isinstance(pictures, str | bytes):
        raise DataError("Expected a list of pictures, got a single one; put it in a list.")
    for name, values in (("labels", labels), ("groups", groups)):
        if values is not None and len(values) != len(pictures):
            raise DataError(f"{len(pictures)} pictures but {len(values)} {name}; give one for each picture.")
    names = [os.fspath(p) if isinstance(p, str | os.PathLike) else f"picture {i}" for i, p in enumerate(pictures)]
    items = tuple(
        Item(
            name,
            None if labels is None else normalise(str(labels[i])),
            "train",
            None if groups is None else str(groups[i]),
        )
        for i, name in enumerate(names)
    )

    def read(index: int) -> bytes | NDArray[np.uint8]:
        picture = pictures[index]
        if isinstance(picture, np.ndarray):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
                raise ImageError(
                    f"An array of {picture.dtype} {picture.shape} is no picture; expected uint8 [height, width, 3]."
                )
            return picture
        if isinstance(picture, bytes):
            return picture
        from headstart.data.sources import read_file

        return read_file(names[index])

    return Dataset("pictures", items, _classes(labels or ()), {}, (), Reader(read), tuple(range(len(items))))


def _classes(labels: Sequence[object]) -> tuple[str, ...]:
    """The names of the classes in the order in which NumPy and scikit-learn sort the labels: 2 before 10, as numbers.

    scikit-learn hands numbers to an estimator that it validates, and takes its columns to be in their order.
    """
    try:
        ordered = sorted(set(labels))  # type: ignore[type-var]
    except TypeError:  # labels of kinds that cannot be compared
        ordered = sorted(set(labels), key=str)
    return tuple(dict.fromkeys(normalise(str(label)) for label in ordered))
