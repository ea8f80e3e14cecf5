"""Images that are in memory: PIL images and arrays, turned into RGB pixels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, ImageError

UNCLEAR = (1.0, 2.0)  # a largest value in between may be of 0..1, overshot by a resize, or of 0..255, very dark


def is_pil_image(value: object) -> bool:
    """Return whether a value is a PIL image, without importing Pillow where nobody has."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def is_single_array(value: object) -> bool:
    """Return whether a value is an array of one image, not of several: its rows would be taken for images."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "uif":
        return False
    return value.ndim <= 2 or (value.ndim == 3 and value.shape[2] in (3, 4))


def float_scale(images: Sequence[Any]) -> float:
    """Return by what the floating-point arrays among ``images`` are multiplied to be in 0..255.

    They are decided together: one dark image of many does not tell. Raises DataError where that is not clear.
    """
    arrays = [image for image in images if isinstance(image, np.ndarray) and image.dtype.kind == "f" and image.size]
    if not arrays:
        return 1.0
    low, high = min(float(array.min()) for array in arrays), max(float(array.max()) for array in arrays)
    if not np.isfinite([low, high]).all() or low < 0 or high > 255 or UNCLEAR[0] < high <= UNCLEAR[1]:
        raise DataError(
            f"Floating-point images with values from {low:g} to {high:g}; expected 0 to 1, or 0 to 255: scale them, or "
            "give uint8 arrays."
        )
    return 255.0 if high <= 1 else 1.0


def to_pixels(image: Any, scale: float = 1.0) -> NDArray[np.uint8]:
    """Return the pixels [height, width, 3], uint8 RGB, of a PIL image or an array; floats are multiplied by ``scale``.

    Raises ImageError for what is not an image.
    """
    from PIL import Image

    from headstart.images.decoding import decode_pil

    if is_pil_image(image):
        return decode_pil(image)
    if not isinstance(image, np.ndarray):
        raise ImageError(f"A {type(image).__name__} is not an image; expected a path, bytes, a PIL image or an array.")
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and 0 not in image.shape:
        return image
    is_shape = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
    if not is_shape or 0 in image.shape or not (image.dtype == np.uint8 or image.dtype.kind == "f"):
        hint = " (channels come last)" if image.ndim == 3 and image.shape[0] in (1, 3, 4) else ""
        raise ImageError(
            f"An array of {image.dtype} {image.shape} is not an image; expected uint8, or floating point, [height, "
            f"width, 3] or [height, width]{hint}."
        )
    pixels = np.rint(image * scale).astype(np.uint8) if image.dtype.kind == "f" else image
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return decode_pil(Image.fromarray(pixels))  # grey and opacity as in files
