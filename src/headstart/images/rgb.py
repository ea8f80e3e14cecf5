"""From an opened image of any mode to RGB pixels, strip by strip, so that a large image is in memory only once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from headstart.errors import ImageError
from headstart.images.remarks import EXTRA_SAMPLES
from headstart.images.samples import SampleRange, float_range

STRIP_PIXELS = 2_000_000  # that are converted at a time


def rgb_pixels(image: Image.Image, sample_range: SampleRange | None = None, factor: int = 1) -> NDArray[np.uint8]:
    """Convert an image of any mode to pixels [height, width, 3], uint8 RGB.

    ``sample_range`` holds the values of black and white in images of more than 8 bits. With a ``factor`` of 2, 4 or 8
    squares of that many pixels are averaged, and the result has 1 / ``factor`` of the rows and columns, rounded up.
    Raises ImageError for samples that are not finite.
    """
    image.load()
    to_rgb = _converter(image, sample_range)
    width, height = image.size
    pixels = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    for top, strip in _strips(image, factor):
        rgb = to_rgb(strip)
        rows = np.asarray(rgb if factor == 1 else rgb.reduce(factor))
        pixels[top // factor : top // factor + len(rows)] = rows
    return pixels


def _strips(image: Image.Image, factor: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """Yield the first row of each strip, and the strip; the rows of all but the last are a multiple of ``factor``."""
    width, height = image.size
    rows = max(1, STRIP_PIXELS // width // factor) * factor
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _converter(image: Image.Image, sample_range: SampleRange | None) -> Callable[[Image.Image], Image.Image]:
    """Return what converts a strip of an image to RGB, decided for the whole image."""
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Pillow takes the inks of every JPEG as inverted, which only Adobe's are.
        return lambda strip: ImageChops.invert(strip).convert("RGB")
    if image.mode.startswith(("I", "F")):
        return _deep_converter(image, sample_range)
    if image.format == "TIFF" and image.mode == "RGBA" and EXTRA_SAMPLES not in image.tag_v2:  # type: ignore[attr-defined]
        return lambda strip: strip.convert("RGB")  # the fourth band is not said to be opacity
    bands = image.getbands()
    if image.mode in ("P", "PA") or "transparency" in image.info or "A" in bands or "a" in bands:
        return _on_white
    return lambda strip: strip.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _deep_converter(image: Image.Image, sample_range: SampleRange | None) -> Callable[[Image.Image], Image.Image]:
    """Return what converts grey of 16 bits, 32 bits or floating point to RGB.

    ``sample_range`` holds the values of black and white; beyond it values are clipped. Without one 65,535 is white. In
    floating point, and for values beyond, the image's own range decides, in which case ``images.remarks`` says so.
    Raises ImageError for samples that are not finite.
    """
    transparent = image.info.get("transparency")  # the one transparent grey level of a PNG: white
    white_level = 65535.0 if sample_range is None else sample_range[1]

    def samples(strip: Image.Image) -> NDArray[np.float64]:
        values = np.asarray(strip, np.float64)
        return np.where(values == transparent, white_level, values) if isinstance(transparent, int) else values

    ends = [(values.min(), values.max()) for _, strip in _strips(image) for values in [samples(strip)]]
    low, high = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("The image has samples that are NaN or infinite; fill them, such as with 0.")
    if sample_range is None:
        whole = (low, high) if low < 0 or high > 65535 else (0.0, 65535.0)
        sample_range = float_range(low, high) if image.mode == "F" else whole
    black, white = sample_range
    span = (white - black) or 1.0

    def to_rgb(strip: Image.Image) -> Image.Image:
        grey = np.clip((samples(strip) - black) / span, 0, 1) * 255
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")

    return to_rgb
