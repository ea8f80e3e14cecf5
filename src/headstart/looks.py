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


def tiny(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The whole of an image [height, width, 3] at 16 x 16, flat [768]."""
    small = Image.fromarray(image).resize((TINY, TINY), Image.Resampling.BOX)
    return np.asarray(small).reshape(-1)


def square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle square of an image [height, width, 3] at 48 x 48, flat [6912]."""
    height, width = image.shape[:2]
    edge = min(height, width)
    left, top = (width - edge) / 2, (height - edge) / 2
    picture = Image.fromarray(image).resize(
        (SQUARE, SQUARE), Image.Resampling.BILINEAR, box=(left, top, left + edge, top + edge), reducing_gap=2.0
    )
    return np.asarray(picture).reshape(-1)


def look(source: bytes | NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Height and width in pixels as stored, and sharpness [3], of a picture and what was decoded of it."""
    if isinstance(source, np.ndarray):
        height, width = source.shape[:2]
    else:
        with Image.open(io.BytesIO(source), formats=FORMATS) as picture:
            width, height = picture.size
    return np.array([height, width, sharpness(image)], np.float32)


def sharpness(image: NDArray[np.uint8]) -> float:
    """Fine detail as a share of all contrast: the deviation of the Laplacian over that of the brightness.

    Pictures [height, width, 3] are brought to a shorter side of 256, never enlarged, so that one threshold fits all.
    Of fewer than 3 pixels a side nothing can be said: 1.
    """
    picture = Image.fromarray(image).convert("L")
    scale = SIDE / min(picture.size)
    if scale < 1:
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BOX)
    grey = np.asarray(picture, np.int16)
    if min(grey.shape) < 3:
        return 1.0
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return _deviation(laplacian) / (_deviation(middle) + 1.0)


def _deviation(values: NDArray[np.int16]) -> float:
    """The standard deviation, in fewer passes than NumPy's."""
    flat = values.reshape(-1).astype(np.float32)
    flat -= flat.mean()
    return float(np.sqrt(flat @ flat / len(flat)))
