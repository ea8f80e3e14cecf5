"""Images of more than 8 bits: which sample values are black and white, measured on all training images together.

A 16-bit file may hold 12 bits of a camera, and floating point may be 0 to 1, 0 to 255 or a reflectance. Scaled by its
own range an image would lose its brightness, and scaled by that of its type it could be nearly black. So one range is
measured on the training images, stored with the model, and used for every image.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from headstart.errors import DataError, ImageError

SampleRange = tuple[float, float]  # the values of black and white
TAIL = 0.1  # percent of an image's samples beyond the range: a few hot pixels do not darken all others
MAX_SAMPLES = 2_000_000  # of an image, evenly spread: percentiles need no more
PROBES = 64  # images that are looked at to find out whether there are any of more than 8 bits
ENDINGS = (".png", ".tif", ".tiff")


def measure_sample_range(paths: Iterable[str], read: Callable[[int], object]) -> tuple[SampleRange | None, int]:
    """Return the range of images of more than 8 bits, and how many there are; None where there are none.

    ``paths`` name the images, ``read(i)`` gives the bytes of the file number i. Raises DataError where some are
    floating point, others whole numbers, and their ranges differ.
    """
    candidates = [i for i, path in enumerate(paths) if path.lower().endswith(ENDINGS)]
    probes = candidates[:: max(1, len(candidates) // PROBES)]
    if not any(_deep_samples(read, i) is not None for i in probes):
        return None, 0
    ends: dict[bool, list[SampleRange]] = {}  # of each image, by whether it is floating point
    for i in candidates:
        samples = _deep_samples(read, i)
        if samples is not None:
            low, high = np.percentile(samples, (TAIL, 100 - TAIL))
            ends.setdefault(samples.dtype.kind == "f", []).append((float(low), float(high)))
    ranges = {
        is_float: (float_range if is_float else integer_range)(min(low for low, _ in found), max(h for _, h in found))
        for is_float, found in ends.items()
    }
    if len(set(ranges.values())) > 1:
        raise DataError(
            f"{len(ends[True])} training images are floating point from {ranges[True][0]:g} to {ranges[True][1]:g}, "
            f"{len(ends[False])} whole numbers from {ranges[False][0]:g} to {ranges[False][1]:g}; write all in one "
            "form."
        )
    return next(iter(ranges.values())), sum(map(len, ends.values()))


def integer_range(low: float, high: float) -> SampleRange:
    """Return black and white for whole numbers: 0 and the largest of the bits that they need, from 8 on."""
    if low < 0:
        return low, max(high, low + 1)
    return 0.0, next((white for white in (2.0**bits - 1 for bits in range(8, 17)) if high <= white), high)


def float_range(low: float, high: float) -> SampleRange:
    """Return black and white for floating point: 0 and 1, or 0 and 255, if ``high`` fills an eighth; else both ends.

    So values such as a reflectance a little above 1, a temperature or a distance are neither nearly black nor white.
    """
    for white in (1.0, 255.0):
        if low >= 0 and white / 8 <= high <= white:
            return 0.0, white
    return (low, high) if low < high else (min(0.0, low), max(1.0, high))


def _deep_samples(read: Callable[[int], object], index: int) -> np.ndarray | None:
    """Return the samples of an image of more than 8 bits, else None."""
    try:
        source = read(index)
    except ImageError:
        return None
    if not isinstance(source, bytes) or not _may_be_deep(source):
        return None
    try:
        with Image.open(io.BytesIO(source), formats=("PNG", "TIFF")) as image:
            if not image.mode.startswith(("I", "F")) or image.width * image.height > 100_000_000:
                return None
            step = 1 + int((image.width * image.height / MAX_SAMPLES) ** 0.5)
            samples = np.asarray(image)[::step, ::step].copy()
    except Exception:  # for malformed bytes decoders raise anything; the extraction reports it
        return None
    return samples if samples.dtype.kind != "f" or np.isfinite(samples).all() else None  # such an image is refused


def _may_be_deep(source: bytes) -> bool:
    """Return whether a file is a TIFF, or a PNG of 16 bits."""
    return source[:4] in (b"II*\0", b"MM\0*") or (source[:4] == b"\x89PNG" and source[24:25] == b"\x10")
