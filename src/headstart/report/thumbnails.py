"""Small images for the report, kept in the feature cache."""

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
from headstart.features.features import Features, thumbnail_key
from headstart.images.decoding import decode
from headstart.images.thumbnail import SQUARE, TINY, shrink, square_thumbnail
from headstart.machine import cores
from headstart.report.data import SpriteSheet

THUMBNAIL = 192  # pixels of the longer side
QUALITY = 74  # of a JPEG, 1 to 95
SPRITE_QUALITIES = (66, 45, 25, 8)  # the first that keeps the sprite sheet within its limit
SPRITE_BYTES = 4_000_000
THUMBNAILS_BYTES = 2_000_000
BATCH = 256
Bytes = NDArray[np.uint8]


def tiles(
    dataset: Dataset,
    features: Features,
    rows: Sequence[int],
    side: int,
    cache: FeatureCache | None,
    workers: int | None,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield rows of ``features`` with the central square [side, side, 3] of each image, in the order of their paths.

    ``side`` is at most 48.
    With a cache the squares were stored when the features were computed. An image that can no longer be read is
    enlarged from its 16 x 16 version in ``features``.
    """

    def compute(row: int) -> Bytes:
        try:
            image = decode(dataset.read(int(features.index[row])), min_size=(4 * SQUARE, 4 * SQUARE))
        except ImageError:
            image = features.tiny_images[row].reshape(TINY, TINY, 3)
        return square_thumbnail(shrink(Image.fromarray(image)))

    rows = _by_path(dataset, features, rows)
    squares = _compute_cached(rows, features, thumbnail_key, compute, cache, workers, length=3 * SQUARE * SQUARE)
    for row, square in zip(rows, squares, strict=True):
        image = Image.fromarray(square.reshape(SQUARE, SQUARE, 3))
        yield row, np.asarray(image if side == SQUARE else image.resize((side, side), Image.Resampling.BOX))


def thumbnails(
    dataset: Dataset,
    features: Features,
    rows: Sequence[int],
    cache: FeatureCache | None,
    workers: int | None,
    max_bytes: int = THUMBNAILS_BYTES,
) -> dict[int, bytes]:
    """Return a JPEG without metadata, 192 pixels on the longer side, of each row of ``features`` that can be read.

    Rows come in order of importance: those beyond a total of ``max_bytes`` are left out.
    """

    def compute(row: int) -> Bytes:
        try:
            pixels = decode(dataset.read(int(features.index[row])), min_size=(THUMBNAIL, THUMBNAIL))
        except ImageError:
            return np.empty(0, np.uint8)
        image = Image.fromarray(pixels)
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
        return np.frombuffer(encode_jpeg(image), np.uint8)

    def key(content: bytes) -> bytes:
        return entry_key(content, "", "", "", "0", f"thumbnail:1:{THUMBNAIL}:{QUALITY}")

    in_order = _by_path(dataset, features, rows)
    jpeg_of = dict(zip(in_order, _compute_cached(in_order, features, key, compute, cache, workers), strict=True))
    jpegs = [jpeg_of[row] for row in rows]
    total = np.cumsum([len(jpeg) for jpeg in jpegs])
    return {
        row: jpeg.tobytes()
        for row, jpeg, bytes_so_far in zip(rows, jpegs, total, strict=True)
        if len(jpeg) and bytes_so_far <= max_bytes
    }


def _by_path(dataset: Dataset, features: Features, rows: Sequence[int]) -> list[int]:
    """Return rows in the order of their paths: those of one archive are then read one after the other."""
    return sorted(rows, key=lambda row: dataset.items[int(features.index[row])].path)


def sprite_sheet(
    indexed_tiles: Iterable[tuple[int, NDArray[np.uint8]]], side: int, columns: int, count: int
) -> SpriteSheet:
    """Put ``count`` tiles (index, pixels [side, side, 3]) onto one sheet, ``columns`` in a row, each at its index."""
    sheet = np.full((-(-count // columns) * side, columns * side, 3), 255, np.uint8)
    for index, pixels in indexed_tiles:
        top, left = (index // columns) * side, (index % columns) * side
        sheet[top : top + side, left : left + side] = pixels
    return SpriteSheet(side, columns, _encode_within_limit(sheet) if count else b"")


def encode_jpeg(image: Image.Image, quality: int = QUALITY) -> bytes:
    """Encode the pixels of an image as JPEG, without metadata."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _encode_within_limit(sheet: NDArray[np.uint8]) -> bytes:
    """Encode a sprite sheet with the highest of the qualities that fits the limit, or with the lowest."""
    image = Image.fromarray(sheet)
    for quality in SPRITE_QUALITIES:
        data = encode_jpeg(image, quality)
        if len(data) <= SPRITE_BYTES:
            break
    return data


def _compute_cached(
    rows: Sequence[int],
    features: Features,
    key: Callable[[bytes], bytes],
    compute: Callable[[int], Bytes],
    cache: FeatureCache | None,
    workers: int | None,
    length: int | None = None,
) -> Iterator[Bytes]:
    """Yield ``compute(row)`` for each of the distinct ``rows``, or the value cached under ``key`` of its content hash.

    With ``length``, cached values of another length are ignored; empty values are not cached.
    """
    with ThreadPoolExecutor(workers or cores()) as pool:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            keys = {row: key(features.content_hashes[row].tobytes()) for row in batch}
            cached = cache.get_many(list(keys.values())) if cache is not None else [None] * len(batch)
            values = {
                row: value
                for row, value in zip(batch, cached, strict=True)
                if value is not None and value.dtype == np.uint8 and length in (None, len(value))
            }
            missing = [row for row in batch if row not in values]
            computed = dict(zip(missing, pool.map(compute, missing), strict=True))
            readable = {keys[row]: value for row, value in computed.items() if len(value)}
            if cache is not None and readable:
                cache.put_many(readable)
            values |= computed
            yield from (values[row] for row in batch)
