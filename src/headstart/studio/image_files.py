"""Image files that come from a client or an archive: what they are, and small copies of them to show."""

from __future__ import annotations

import io
import threading

import numpy as np
from PIL import Image

from headstart.errors import ImageError
from headstart.images.decoding import FORMATS, HEIF_BRANDS, JXL_SIGNATURES, decode

MAX_UPLOAD = 32 * 2**20  # bytes of an image
MAX_PIXELS = 40_000_000
SUFFIXES = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "GIF": ".gif",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "PPM": ".ppm",
    "JPEG2000": ".jp2",
}
_DECODING = threading.BoundedSemaphore(2)  # copies at a time, which bounds their memory


def suffix_of(data: bytes) -> str:
    """Return the ending for the file of an image, by its bytes alone. Raises ImageError for one that cannot be read."""
    if len(data) > MAX_UPLOAD:
        raise ImageError(f"The image has {len(data):,} bytes, more than {MAX_UPLOAD:,}; make it smaller.")
    suffix = ".heic" if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS else ""
    if data.startswith(JXL_SIGNATURES):
        suffix = ".jxl"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"The image has more than {MAX_PIXELS:,} pixels; make it smaller.")
            suffix = SUFFIXES.get(image.format or "", suffix)
    except ImageError:
        raise
    except Exception:  # decoders raise anything; ``decode`` says why in words
        pass
    small_copy(data, 64)
    if not suffix:
        raise ImageError("The file is of a format that cannot be kept; give a JPEG or PNG.")
    return suffix


def small_copy(data: bytes, side: int) -> bytes:
    """Return a JPEG of an image, upright, of at most ``side`` pixels in height and width. Raises ImageError."""
    with _DECODING:
        image = Image.fromarray(decode(data, min_size=(side, side)))
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """Return pixels [height, width, 3] uint8 as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
