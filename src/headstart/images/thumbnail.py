"""Small versions of an image, and statistics of its quality.

They are computed when an image is decoded for its features, so that it is decoded only once.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TINY = 16  # side in pixels of the tiny image, in which near duplicates are found
SQUARE = 48  # side in pixels of the square thumbnail, which a report shows
SHARPNESS_SIDE = 256  # sharpness is measured on an image whose shorter side has at most this many pixels
ROW_STEP = 3  # and on every third row: as discriminative as all of them


def shrink(image: Image.Image) -> Image.Image:
    """Reduce an image by a whole factor to a shorter side of at least twice SQUARE.

    The tiny image and the thumbnail are made from the result, so that all pixels are read only once.
    """
    return image.reduce(max(1, min(image.size) // (2 * SQUARE)))


def tiny_image(image: Image.Image) -> NDArray[np.uint8]:
    """Resize a shrunk image, the whole of it, to 16 x 16 RGB; flat [768]."""
    return np.asarray(image.resize((TINY, TINY), Image.Resampling.BOX)).reshape(-1)


def square_thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    """Crop the central square of a shrunk image and resize it to 48 x 48 RGB; flat [6912]."""
    width, height = image.size
    side = min(height, width)
    left = (width - side) / 2
    top = (height - side) / 2
    thumbnail = image.resize((SQUARE, SQUARE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return np.asarray(thumbnail).reshape(-1)


def image_stats(stored_size: tuple[int, int], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return [3]: height and width in pixels as stored in the file, and the sharpness of the decoded ``image``."""
    return np.array([*stored_size, sharpness(image)], np.float32)


def sharpness(image: NDArray[np.uint8]) -> float:
    """Return the standard deviation of the Laplacian over that of the brightness, both of the green channel.

    An image [height, width, 3] is sampled at a shorter side of 256 pixels, never enlarged, so that one threshold fits
    all sizes. Samples are not averaged, which would cost more than all the rest without separating blurred images any
    better. The result is 1 for an image of fewer than 3 samples a side, where it is not defined.
    """
    rows, columns = _sample_grid(image.shape[0], image.shape[1])
    if min(len(rows), len(columns)) < 3:
        return 1.0
    # Few NumPy calls: between any two of them other threads wait for the interpreter lock.
    green = image.reshape(len(image), -1).take(rows, axis=0).take(columns, axis=1).astype(np.int16)
    centre, above, below = green.reshape(3, -1, len(columns))
    above += below
    laplacian = above[:, 1:-1] - 4 * centre[:, 1:-1]
    laplacian += centre[:, :-2]
    laplacian += centre[:, 2:]
    return _standard_deviation(laplacian) / (_standard_deviation(centre) + 1.0)


@lru_cache(256)
def _sample_grid(height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and columns of an evenly spaced sample whose shorter side is at most 256.

    Rows are every third of the sample, then the rows above those, then the rows below. Columns are indices of their
    green values in a row of interleaved RGB.
    """
    scale = max(1.0, min(height, width) / SHARPNESS_SIDE)
    rows = _evenly_spaced(height, round(height / scale))
    columns = _evenly_spaced(width, round(width / scale))
    centre = np.arange(1, len(rows) - 1, ROW_STEP)
    return rows[np.concatenate([centre, centre - 1, centre + 1])], 3 * columns + 1


def _evenly_spaced(length: int, count: int) -> NDArray[np.int64]:
    """Return ``count`` indices below ``length``, each at the middle of its share."""
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)


def _standard_deviation(values: NDArray[np.int16]) -> float:
    """Return the standard deviation, in fewer passes than NumPy's."""
    flat = values.reshape(-1).astype(np.float32)
    flat -= np.add.reduce(flat) / len(flat)
    return float(np.sqrt(flat @ flat / len(flat)))
