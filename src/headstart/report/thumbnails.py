"""Small pictures for the report; what is made of them is kept in the cache."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data import Dataset
from headstart.errors import ImageError
from headstart.features.cache import FeatureCache, entry_key
from headstart.features.features import Features, small_key
from headstart.images.decode import decode
from headstart.images.thumbnail import SQUARE, shrink, square_thumbnail
from headstart.machine import cores

THUMBNAIL = 144  # pixels, the longer side
QUALITY = 74
SHEET_QUALITIES = (66, 45, 25, 8)  # the first that keeps the sheet within its bytes
SHEET_BYTES = 5_000_000
THUMBNAILS_BYTES = 2_000_000
BATCH = 256
Bytes = NDArray[np.uint8]


def squares(
    dataset: Dataset,
    features: Features,
    rows: Sequence[int],
    side: int,
    cache: FeatureCache | None,
    workers: int | None,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Rows of ``features`` and the middle square [side, side, 3] of each picture, ``side`` at most 48.

    With a cache they were left there as the features were computed. A picture that can no longer be read is as its
    16 x 16 pixels tell.
    """

    def one(row: int) -> Bytes:
        try:
            image = decode(dataset.read(int(features.index[row])), at_least=(4 * SQUARE, 4 * SQUARE))
        except ImageError:
            image = features.tiny_images[row].reshape(16, 16, 3)
        return square_thumbnail(shrink(Image.fromarray(image)))

    packed = _kept(rows, features, small_key, one, cache, workers, 3 * SQUARE * SQUARE)
    for row, each in zip(rows, packed, strict=True):
        picture = Image.fromarray(each.reshape(SQUARE, SQUARE, 3))
        yield row, np.asarray(picture if side == SQUARE else picture.resize((side, side), Image.Resampling.BOX))


def thumbnails(
    dataset: Dataset, features: Features, rows: Sequence[int], cache: FeatureCache | None, workers: int | None
) -> dict[int, bytes]:
    """A JPEG, 144 pixels on the longer side and without metadata, of each row of ``features`` that can be read.

    The first rows count most: from 2 MB on there are no more.
    """

    def one(row: int) -> Bytes:
        try:
            image = decode(dataset.read(int(features.index[row])), at_least=(THUMBNAIL, THUMBNAIL))
        except ImageError:
            return np.empty(0, np.uint8)
        picture = Image.fromarray(image)
        picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
        return np.frombuffer(jpeg(picture), np.uint8)

    def key(content: bytes) -> bytes:
        return entry_key(content, "", "", "", "0", f"thumbnail:1:{THUMBNAIL}:{QUALITY}")

    packed = list(_kept(rows, features, key, one, cache, workers))
    total = np.cumsum([len(each) for each in packed])
    return {
        row: each.tobytes()
        for row, each, bytes_so_far in zip(rows, packed, total, strict=True)
        if len(each) and bytes_so_far <= THUMBNAILS_BYTES
    }


def sprite(squares: Iterable[tuple[int, NDArray[np.uint8]]], side: int, columns: int, count: int) -> bytes:
    """One JPEG of ``count`` squares, ``columns`` in a row, each at its place."""
    sheet = np.full((-(-count // columns) * side, columns * side, 3), 255, np.uint8)
    for place, picture in squares:
        top, left = (place // columns) * side, (place % columns) * side
        sheet[top : top + side, left : left + side] = picture
    whole = Image.fromarray(sheet)
    for quality in SHEET_QUALITIES if count else ():
        data = jpeg(whole, quality)
        if len(data) <= SHEET_BYTES or quality == SHEET_QUALITIES[-1]:
            return data
    return b""


def jpeg(picture: Image.Image, quality: int = QUALITY) -> bytes:
    """A picture's pixels as JPEG, nothing else."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _kept(
    rows: Sequence[int], features: Features, key: Callable[[bytes], bytes], one: Callable[[int], Bytes],
    cache: FeatureCache | None, workers: int | None, size: int | None = None,
) -> Iterator[Bytes]:  # fmt: skip
    """What ``one`` makes of each row, looked up by the content of the picture where it is known.

    With ``size`` an entry of another length is not believed.
    """
    with ThreadPoolExecutor(workers or cores()) as pool:
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            keys = [key(features.content_hashes[row].tobytes()) for row in some]
            known = cache.get_many(keys) if cache is not None else [None] * len(keys)
            fits = [k is not None and k.dtype == np.uint8 and size in (None, len(k)) for k in known]
            made = iter(list(pool.map(one, [row for row, fit in zip(some, fits, strict=True) if not fit])))
            every = [k if fit and k is not None else next(made) for k, fit in zip(known, fits, strict=True)]
            new = {key: each for key, each, fit in zip(keys, every, fits, strict=True) if not fit and len(each)}
            if cache is not None and new:
                cache.put_many(new)
            yield from every
