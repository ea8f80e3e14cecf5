"""What a picture looks like by itself, and small: measured while it is decoded for its features, so that it is
decoded once."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.images import FORMATS

TINY = 16  # pixels a side: the whole picture, for near duplicates
SQUARE = 48  # pixels a side: the middle of the picture, to be shown
SIDE = 256  # sharpness is measured at this shorter side
ROWS = 3  # and at every third row: as telling as all


def shrunk(picture: Image.Image) -> Image.Image:
    """A picture at a whole part of its size, at least twice SQUARE: one look at all of its pixels."""
    return picture.reduce(max(1, min(picture.size) // (2 * SQUARE)))


def tiny(picture: Image.Image) -> NDArray[np.uint8]:
    """The whole of a shrunk picture at 16 x 16, flat [768]."""
    return np.asarray(picture.resize((TINY, TINY), Image.Resampling.BOX)).reshape(-1)


def square(picture: Image.Image) -> NDArray[np.uint8]:
    """The middle square of a shrunk picture at 48 x 48, flat [6912]."""
    width, height = picture.size
    edge = min(height, width)
    left, top = (width - edge) / 2, (height - edge) / 2
    small = picture.resize((SQUARE, SQUARE), Image.Resampling.BILINEAR, box=(left, top, left + edge, top + edge))
    return np.asarray(small).reshape(-1)


def look(source: bytes | NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Height and width in pixels as stored, and sharpness [3], of a picture and what was decoded of it."""
    if isinstance(source, np.ndarray):
        height, width = source.shape[:2]
    else:
        with Image.open(io.BytesIO(source), formats=FORMATS) as picture:
            width, height = picture.size
    return np.array([height, width, sharpness(image)], np.float32)


def sharpness(image: NDArray[np.uint8]) -> float:
    """Fine detail as a share of all contrast: the deviation of the Laplacian over that of the brightness, in green.

    Pictures [height, width, 3] are sampled at a shorter side of 256, never enlarged, so that one threshold fits all;
    samples are not averaged, which would cost more than all the rest and tell no better. Of fewer than 3 pixels a side
    nothing can be said: 1.
    """
    rows, columns = _sampled(image.shape[:2])
    if min(len(rows), len(columns)) < 3:
        return 1.0
    flat, green, middle = image.reshape(len(image), -1), 3 * columns + 1, np.arange(1, len(rows) - 1, ROWS)
    own, above, below = (flat[rows[middle + step]][:, green].astype(np.int16) for step in (0, -1, 1))
    laplacian = above[:, 1:-1] + below[:, 1:-1] + own[:, :-2] + own[:, 2:] - 4 * own[:, 1:-1]
    return _deviation(laplacian) / (_deviation(own) + 1.0)


def _sampled(size: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """Rows and columns, evenly spread, of which the fewer are 256 at most."""
    scale = max(1.0, min(size) / SIDE)
    return [((np.arange(round(side / scale)) + 0.5) * side / round(side / scale)).astype(np.int64) for side in size]


def _deviation(values: NDArray[np.int16]) -> float:
    """The standard deviation, in fewer passes than NumPy's."""
    flat = values.reshape(-1).astype(np.float32)
    flat -= flat.mean()
    return float(np.sqrt(flat @ flat / len(flat)))
