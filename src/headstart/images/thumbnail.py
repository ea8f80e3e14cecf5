"""What a picture looks like by itself, and small: measured while it is decoded for its features, so that it is
decoded once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TINY = 16  # pixels a side: the whole picture, for near duplicates
SQUARE = 48  # pixels a side: the middle of the picture, to be shown
SIDE = 256  # sharpness is measured at this shorter side
ROWS = 3  # and at every third row: as telling as all


def shrink(picture: Image.Image) -> Image.Image:
    """A picture at a whole part of its size, at least twice SQUARE: one look at all of its pixels."""
    return picture.reduce(max(1, min(picture.size) // (2 * SQUARE)))


def tiny_image(picture: Image.Image) -> NDArray[np.uint8]:
    """The whole of a shrunk picture at 16 x 16, flat [768]."""
    return np.asarray(picture.resize((TINY, TINY), Image.Resampling.BOX)).reshape(-1)


def square_thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """The middle square of a shrunk picture at 48 x 48, flat [6912]."""
    width, height = picture.size
    edge = min(height, width)
    left, top = (width - edge) / 2, (height - edge) / 2
    small = picture.resize((SQUARE, SQUARE), Image.Resampling.BILINEAR, box=(left, top, left + edge, top + edge))
    return np.asarray(small).reshape(-1)


def image_stats(stored: tuple[int, int], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Height and width in pixels as stored, and sharpness [3], of what was decoded of a picture."""
    return np.array([*stored, sharpness(image)], np.float32)


def sharpness(image: NDArray[np.uint8]) -> float:
    """Fine detail as a share of all contrast: the deviation of the Laplacian over that of the brightness, in green.

    Pictures [height, width, 3] are sampled at a shorter side of 256, never enlarged, so that one threshold fits all;
    samples are not averaged, which would cost more than all the rest and tell no better. Of fewer than 3 pixels a side
    nothing can be said: 1.
    """
    rows, columns = _sampled(image.shape[0], image.shape[1])
    if min(len(rows), len(columns)) < 3:
        return 1.0
    # In few steps: between any two of them other threads wait for the interpreter.
    green = image.reshape(len(image), -1).take(rows, axis=0).take(columns, axis=1).astype(np.int16)
    own, above, below = green.reshape(3, -1, len(columns))
    above += below
    laplacian = above[:, 1:-1] - 4 * own[:, 1:-1]
    laplacian += own[:, :-2]
    laplacian += own[:, 2:]
    return _deviation(laplacian) / (_deviation(own) + 1.0)


@lru_cache(256)
def _sampled(height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of an evenly spread sample, of which the shorter side is 256 at most: every third row, then the rows above those
    and below; and the columns, as places of their green numbers in a row."""
    scale = max(1.0, min(height, width) / SIDE)
    rows, columns = (
        ((np.arange(round(side / scale)) + 0.5) * side / round(side / scale)).astype(np.int64)
        for side in (height, width)
    )
    middle = np.arange(1, len(rows) - 1, ROWS)
    return rows[np.concatenate([middle, middle - 1, middle + 1])], 3 * columns + 1


def _deviation(values: NDArray[np.int16]) -> float:
    """The standard deviation, in fewer passes than NumPy's."""
    flat = values.reshape(-1).astype(np.float32)
    flat -= np.add.reduce(flat) / len(flat)
    return float(np.sqrt(flat @ flat / len(flat)))
