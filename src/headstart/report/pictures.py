"""Small pictures for the report, and the looks that the checks want, from one decoding; both are kept in the cache."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.cache import Cache, entry_key
from headstart.check.looks import Looks, measure
from headstart.datasets import Dataset
from headstart.errors import ImageError
from headstart.features import Features
from headstart.images import decode
from headstart.runtime import cores

THUMBNAIL = 144  # pixels, the longer side
QUALITY = 74
SHEET_QUALITIES = (66, 45, 25, 8)  # the first that keeps the sheet within its bytes
SHEET_BYTES = 5_000_000
THUMBNAILS_BYTES = 2_000_000
BATCH = 256
Bytes = NDArray[np.uint8]


def small_pictures(
    dataset: Dataset, features: Features, wanted: Collection[int], side: int, cache: Cache | None, workers: int | None
) -> tuple[Looks, dict[int, NDArray[np.uint8]]]:
    """The looks of the n pictures of ``features``, and the middle squares [side, side, 3] of the rows that are wanted.

    A picture that can no longer be read is as its 16 x 16 pixels tell.
    """

    def one(row: int) -> Bytes:
        try:
            height, width, sharp, image = measure(dataset.read(int(features.index[row])))
        except ImageError:
            image = features.pixels[row].reshape(16, 16, 3)
            height, width, sharp = side, side, 1.0
        head = np.array([height, width, sharp], np.float64).view(np.uint8)
        return np.concatenate([head, _square(image, side).reshape(-1)])

    rows = range(len(features.index))
    numbers, squares = np.empty((len(rows), 3)), {}
    packed = _kept(rows, features, f"looks:1:{side}", one, cache, workers, 24 + 3 * side * side)
    for row, each in zip(rows, packed, strict=True):
        numbers[row] = each[:24].view(np.float64)
        if row in wanted:
            squares[row] = each[24:].reshape(side, side, 3)
    return Looks(numbers[:, :2].astype(np.int64), numbers[:, 2]), squares


def thumbnails(
    dataset: Dataset, features: Features, rows: Sequence[int], cache: Cache | None, workers: int | None
) -> dict[int, bytes]:
    """A JPEG, 144 pixels on the longer side and without metadata, of each row of ``features`` that can be read.

    The first rows count most: from 2 MB on there are no more.
    """

    def one(row: int) -> Bytes:
        try:
            source = dataset.read(int(features.index[row]))
            image = source if isinstance(source, np.ndarray) else decode(source, at_least=(THUMBNAIL, THUMBNAIL))
        except ImageError:
            return np.empty(0, np.uint8)
        picture = Image.fromarray(image)
        picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
        return np.frombuffer(jpeg(picture), np.uint8)

    packed = list(_kept(rows, features, f"thumbnail:1:{THUMBNAIL}:{QUALITY}", one, cache, workers))
    total = np.cumsum([len(each) for each in packed])
    return {
        row: each.tobytes()
        for row, each, bytes_so_far in zip(rows, packed, total, strict=True)
        if len(each) and bytes_so_far <= THUMBNAILS_BYTES
    }


def sprite(squares: Iterable[tuple[int, NDArray[np.uint8]]], side: int, columns: int, count: int) -> bytes:
    """One JPEG of ``count`` squares, ``columns`` in a row, each at its place."""
    sheet = np.full((-(-count // columns) * side, columns * side, 3), 255, np.uint8)
    for place, square in squares:
        top, left = (place // columns) * side, (place % columns) * side
        sheet[top : top + side, left : left + side] = square
    picture = Image.fromarray(sheet)
    for quality in SHEET_QUALITIES if count else ():
        data = jpeg(picture, quality)
        if len(data) <= SHEET_BYTES or quality == SHEET_QUALITIES[-1]:
            return data
    return b""


def jpeg(picture: Image.Image, quality: int = QUALITY) -> bytes:
    """A picture's pixels as JPEG, nothing else."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    edge = min(height, width)
    left, top = (width - edge) / 2, (height - edge) / 2
    picture = Image.fromarray(image).resize(
        (side, side), Image.Resampling.BILINEAR, box=(left, top, left + edge, top + edge), reducing_gap=2.0
    )
    return np.asarray(picture)


def _kept(
    rows: Sequence[int], features: Features, name: str, one: Callable[[int], Bytes], cache: Cache | None,
    workers: int | None, size: int | None = None,
) -> Iterator[Bytes]:  # fmt: skip
    """What ``one`` makes of each row, looked up by the content of the picture where it is known.

    With ``size`` an entry of another length is not believed.
    """
    with ThreadPoolExecutor(workers or cores()) as pool:
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            keys = [entry_key(features.content[row].tobytes(), "", "", "", "0", name) for row in some]
            known = cache.get_many(keys) if cache is not None else [None] * len(keys)
            fits = [k is not None and k.dtype == np.uint8 and size in (None, len(k)) for k in known]
            made = iter(list(pool.map(one, [row for row, fit in zip(some, fits, strict=True) if not fit])))
            every = [k if fit and k is not None else next(made) for k, fit in zip(known, fits, strict=True)]
            new = {key: each for key, each, fit in zip(keys, every, fits, strict=True) if not fit and len(each)}
            if cache is not None and new:
                cache.put_many(new)
            yield from every
