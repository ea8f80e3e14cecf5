"""Inputs to predict: images, and folders, archives and tables of them, with labels or without."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import groupby

from headstart.data import Dataset, ReadOptions, concatenate, from_images, open_dataset
from headstart.data.archives import ARCHIVE_SUFFIXES
from headstart.data.sources import is_remote_folder
from headstart.data.table_files import is_table
from headstart.errors import DataError, ImageError
from headstart.images.decoding import is_image_name


def open_inputs(inputs: Sequence[str], options: ReadOptions | None = None) -> Dataset:
    """Open images, and folders, archives and tables of them, in the order given.

    Every image is an input, whatever its folder and whether a row has a label, unless ``options`` name a layout. An
    input that cannot be opened stays as one that raises ImageError when it is read. Raises OptionError.
    """
    options = options or ReadOptions()
    if options.layout == "auto":
        options = replace(options, layout="image")
    datasets: list[Dataset] = []
    for is_container, group in groupby(inputs, _is_container):
        if not is_container:
            datasets.append(from_images([*group]))
            continue
        for path in group:
            try:
                datasets.append(open_dataset(path, options))
            except DataError as error:
                datasets.append(_unreadable(path, str(error)))
    return reduce(concatenate, datasets)


def _is_container(path: str) -> bool:
    """Return whether an input holds images: storage elsewhere is asked only where a name is not that of an image."""
    if "://" not in path:
        return os.path.isdir(path) or is_table(path) or path.lower().endswith(ARCHIVE_SUFFIXES)  # noqa: PTH112
    name = path.split("?")[0]
    if is_table(name) or name.lower().endswith(ARCHIVE_SUFFIXES):
        return True
    return not is_image_name(name) and is_remote_folder(path)


def _unreadable(path: str, reason: str) -> Dataset:
    """Return a dataset of one input that cannot be read."""

    def read(_: int) -> bytes:
        raise ImageError(reason)

    return replace(from_images([path]), reader=read)
