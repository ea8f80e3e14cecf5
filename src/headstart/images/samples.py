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

from headstart.errors import ImageError

SampleRange = tuple[float, float]  # the values of black and white
TAIL = 0.1  # percent of an image's samples beyond the range: a few hot pixels do not darken all others
PROBES = 64  # images that are looked at to find out whether there are any of more than 8 bits
ENDINGS = (".png", ".tif", ".tiff")


def measure_sample_range(paths: Iterable[str], read: Callable[[int], object]) -> tuple[SampleRange | None, int]:
    """Return the range of images of more than 8 bits, and how many there are; None where there are none.

    ``paths`` name the images, ``read(i)`` gives the bytes of the file number i. Integers are scaled by the bits that
    their values need, from 8 on; floating point by 1, 255 or their range.
    """
    candidates = [i for i, path in enumerate(paths) if path.lower().endswith(ENDINGS)]
    probes = candidates[:: max(1, len(candidates) // PROBES)]
    if not any(_deep_samples(read, i) is not None for i in probes):
        return None, 0
    count, low, high, is_float = 0, 0.0, 0.0, False
    for i in candidates:
        samples = _deep_samples(read, i)
        if samples is not None:
            count += 1
            is_float = is_float or samples.dtype.kind == "f"
            low = min(low, float(np.percentile(samples, TAIL)))
            high = max(high, float(np.percentile(samples, 100 - TAIL)))
    return (low, _white(high, low, is_float)), count


def _white(high: float, low: float, is_float: bool) -> float:
    """Return the value of white for samples up to ``high``."""
    steps = (1.0, 255.0) if is_float else tuple(2.0**bits - 1 for bits in range(8, 17))
    if low < 0:
        return high
    return next((step for step in steps if high <= step), high)


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
            samples = np.asarray(image)
    except Exception:  # for malformed bytes decoders raise anything; the extraction reports it
        return None
    return samples[np.isfinite(samples)] if samples.dtype.kind == "f" else samples


def _may_be_deep(source: bytes) -> bool:
    """Return whether a file is a TIFF, or a PNG of 16 bits."""
    return source[:4] in (b"II*\0", b"MM\0*") or (source[:4] == b"\x89PNG" and source[24:25] == b"\x10")
