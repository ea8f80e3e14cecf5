"""Image file to the pixels that the model takes, with NumPy and Pillow alone, exactly as Headstart does it.

`preprocess("new.jpg")` gives uint8 [height, width, 3]; stack several for a batch. Licence: Apache-2.0, as Headstart.
"""

from __future__ import annotations

import os
from typing import IO, Any

import numpy as np
from PIL import Image, ImageChops

TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def preprocess(
    file: str | os.PathLike[str] | IO[bytes],
    height: int = 224,
    width: int = 224,
    resize: str = "shortest",
    crop: float = 0.875,
    interpolation: str = "bilinear",
    sample_range: tuple[float, float] | None = None,
    decode: str = "scaled",
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the pixels [height, width, 3], uint8 RGB, that a model takes of an image file.

    ``file`` is a path or an open binary file; the other values are those of ``preprocess`` in ``config.json``. All that
    Pillow reads is read, which HEIC and JPEG XL are not. Raises what Pillow raises.
    """
    image = to_rgb(file, (round(2 * height / crop), round(2 * width / crop)), sample_range, decode)
    w, h = image.size
    if resize == "squash":
        box_h, box_w = h * crop, w * crop
    else:  # shortest: keep the aspect ratio
        scale = min(h / height, w / width) * crop
        box_h, box_w = height * scale, width * scale
    left, top = max(0.0, (w - box_w) / 2), max(0.0, (h - box_h) / 2)
    box = (left, top, min(w, left + box_w), min(h, top + box_h))
    return np.asarray(image.resize((width, height), Image.Resampling[interpolation.upper()], box))


def to_rgb(
    file: str | os.PathLike[str] | IO[bytes],
    least: tuple[int, int] | None = None,
    sample_range: tuple[float, float] | None = None,
    decode: str = "full",
) -> Image.Image:
    """Return an image file as an RGB image, its EXIF orientation applied, transparency on white.

    With ``least`` = (height, width) a JPEG (``decode`` "scaled"), or an image of more than 16 million pixels, may be
    read at 1/2, 1/4 or 1/8 of its size, as long as that many rows and columns remain.
    """
    image = Image.open(file)
    turn = 1 if image.format == "TIFF" else image.getexif().get(0x0112, 1)  # Pillow turns a TIFF itself
    rows, columns = (least or (image.height, image.width))[:: -1 if least and turn in (5, 6, 7, 8) else 1]
    factor = next((f for f in (8, 4, 2) if -(-image.height // f) >= rows and -(-image.width // f) >= columns), 1)
    if decode == "scaled" and image.format in ("JPEG", "MPO"):
        image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
        factor = 1
    elif image.width * image.height <= 16_000_000:
        factor = 1
    rgb = _convert(image, sample_range)
    rgb = rgb.reduce(factor) if factor > 1 else rgb
    return rgb.transpose(TURNS[turn]) if turn in TURNS else rgb


def _convert(image: Image.Image, sample_range: tuple[float, float] | None) -> Image.Image:
    """Return an opened image of any mode as RGB."""
    image.load()
    bands, format = image.getbands(), image.format
    if image.mode == "CMYK" and format == "JPEG" and "adobe" not in image.info:
        return ImageChops.invert(image).convert("RGB")  # Pillow takes all inks as inverted, which only Adobe's are
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image, sample_range)
    if format == "TIFF" and image.mode == "RGBA" and 338 not in image.tag_v2:  # type: ignore[attr-defined]
        return image.convert("RGB")  # the fourth band is not said to be opacity
    if image.mode in ("P", "PA") or "transparency" in image.info or "A" in bands or "a" in bands:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image, sample_range: tuple[float, float] | None) -> Image.Image:
    """Return grey of more than 8 bits as RGB; ``sample_range`` holds the values of black and white."""
    values = np.asarray(image, np.float64)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        values = np.where(values == transparent, 65535.0 if sample_range is None else sample_range[1], values)
    low, high = float(values.min()), float(values.max())
    if sample_range is None:
        sample_range = (low, high) if low < 0 or high > 65535 else (0.0, 65535.0)
        if image.mode == "F":  # 0 to 1, or 0 to 255, if the values fill an eighth of it; else both ends
            ends = (low, high) if low < high else (min(0.0, low), max(1.0, high))
            sample_range = next(((0.0, w) for w in (1.0, 255.0) if low >= 0 and w / 8 <= high <= w), ends)
    black, white = sample_range
    grey = np.clip((values - black) / ((white - black) or 1.0), 0, 1) * 255
    return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
