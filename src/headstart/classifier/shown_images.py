"""The images behind rows that workers have computed, read again: those few that a report shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset, ReadOptions, open_dataset
from headstart.data.dataset import ReadImage
from headstart.errors import DataError, ImageError
from headstart.features.extractor import content_hash
from headstart.features.rows import Rows
from headstart.scale.addresses import expand_braces

ReadPath = Callable[[str], bytes | NDArray[np.uint8]]
OPENED = 8  # archives that are kept open
NOT_AGAIN = (
    "The archives are not fetched a second time for the report: it shows the 16 x 16 pixels that are kept of each "
    "image, and has no class activation maps."
)


def is_fetched(uri: str) -> bool:
    """Return whether what lies at ``uri`` is fetched as a whole before an image of it is read."""
    return "://" in uri or "::" in uri


def shown_images(uri: str, reading: ReadOptions, listed: Dataset | None, rows: Rows) -> ReadImage:
    """Return what reads an image by the number of its row, as it was when the row was computed.

    ``listed`` are all images of the data at ``uri``, None where that is a pattern of archives: of those on this machine
    the one that holds the image is opened, and of those elsewhere none. What it returns raises ImageError for what
    cannot be read, and for what has changed.
    """
    if listed is None:
        read_path = _unread if is_fetched(uri) else _reader_of_pattern(uri, reading)
    else:
        read_path = _reader_of_listing(listed)

    def read(row: int) -> bytes | NDArray[np.uint8]:
        if row < 0:
            raise ImageError("It could not be read when its features were computed.")
        source = read_path(rows.paths[row])
        if content_hash(source) != rows.content_hashes[row].tobytes():
            raise ImageError("It has changed since its features were computed.")
        return source

    return read


def _unread(path: str) -> bytes | NDArray[np.uint8]:
    raise ImageError(f"{path} is not fetched again.")


def _reader_of_listing(listed: Dataset) -> ReadPath:
    places = {item.path: i for i, item in enumerate(listed.items)}

    def read(path: str) -> bytes | NDArray[np.uint8]:
        if path not in places:
            raise ImageError("It is no longer there.")
        return listed.read(places[path])

    return read


def _reader_of_pattern(uri: str, reading: ReadOptions) -> ReadPath:
    addresses = {*expand_braces(uri)}

    @lru_cache(OPENED)
    def reader_of(address: str) -> ReadPath:
        return _reader_of_listing(open_dataset(address, reading))

    def read(path: str) -> bytes | NDArray[np.uint8]:
        ends = (i for i, character in enumerate(path) if character == "/")
        address = next((path[:end] for end in ends if path[:end] in addresses), None)
        if address is None:
            raise ImageError("It is of none of the archives.")
        try:
            return reader_of(address)(path)
        except DataError as error:
            raise ImageError(str(error)) from None

    return read
