"""Small versions of an image, and statistics of its quality.

They are computed when an image is decoded for its features, so that it is decoded only once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TINY = 16  # side in pixels of the tiny image, in which near duplicates are found
SQUARE = 48  # side in pixels of the square thumbnail, which a report shows
EDGE_SIDE = 96  # edges are measured on an image whose shorter side has at most this many pixels
EDGE_STEP = 4  # pixels
EDGE_SHARE = 0.001  # of all places, that are taken for the strongest edges
MIN_EDGE_CONTRAST = 16.0  # of 255: below it one grey level more or less changes the sharpness by much


def shrink(image: Image.Image) -> Image.Image:
    """Reduce an image by a whole factor to a shorter side of at least twice SQUARE.

    The tiny image, the thumbnail and the statistics are made from the result, so that all pixels are read only once.
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


def image_stats(stored_size: tuple[int, int], shrunk: Image.Image) -> NDArray[np.float32]:
    """Return [4]: height and width in pixels as stored in the file, and contrast and sharpness of the shrunk image."""
    return np.array([*stored_size, *edge_stats(shrunk)], np.float32)


def edge_stats(shrunk: Image.Image) -> tuple[float, float]:
    """Return the contrast (0 to 255) and the sharpness (0 to 1) of the strongest edges of a shrunk image.

    Both are measured on the brightness at a shorter side of 96 pixels, or of the image's own if that is less, so that
    they mean the same for images of any resolution: blur counts relative to the size of the image. The contrast is the
    difference of two pixels 4 rows or columns apart that one in a thousand exceeds. The sharpness is the second
    difference of three neighbours that one in a thousand exceeds, divided by the contrast: it falls with the square of
    the width of an edge. It is 1 where the contrast is too low to measure it, or the image too small. Only the
    strongest edges count, since large parts of a sharp photograph may be out of focus, and a plain background has none.
    """
    grey = shrunk.convert("L")
    scale = EDGE_SIDE / min(grey.size)
    if scale < 1:
        grey = grey.resize((round(grey.width * scale), round(grey.height * scale)), Image.Resampling.BOX)
    pixels = np.asarray(grey)
    if min(pixels.shape) <= EDGE_STEP:
        return 255.0, 1.0
    rows = pixels.astype(np.int16)
    columns = np.ascontiguousarray(rows.T)
    contrast = _strongest([lines[EDGE_STEP:] - lines[:-EDGE_STEP] for lines in (rows, columns)])
    if contrast < MIN_EDGE_CONTRAST:
        return contrast, 1.0
    bends = _strongest([2 * lines[1:-1] - lines[:-2] - lines[2:] for lines in (rows, columns)])
    return contrast, min(1.0, bends / contrast)


def _strongest(differences: Sequence[NDArray[np.int16]]) -> float:
    """Return the absolute difference, -510 to 510, that EDGE_SHARE of all reach."""
    values = np.concatenate([np.abs(part).reshape(-1) for part in differences])
    from_the_top = np.bincount(values, minlength=511)[::-1].cumsum()
    return 510.0 - int(np.searchsorted(from_the_top, EDGE_SHARE * len(values)))
