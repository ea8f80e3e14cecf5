"""Any picture file to RGB pixels, the same way in training, evaluation, prediction and serving.

- The first frame of animations and the first page of TIFFs counts.
- EXIF rotation is applied; ICC profiles are left alone.
- Transparent pixels are composed on white.
- 16-bit samples are scaled to 8 bits, not clipped.
- A JPEG far larger than needed is decoded at 1/2, 1/4 or 1/8 of its size.
"""

from __future__ import annotations

import io
import warnings
from posixpath import splitext

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError

from headstart.errors import ImageError

MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif"})
ORIENTATION = 0x0112


def is_image_name(name: str) -> bool:
    """Whether a file name has the ending of a picture format that ``decode`` reads, in any case."""
    return splitext(name)[1].lower() in SUFFIXES


def decode(source: bytes | NDArray[np.uint8], *, at_least: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Pixels [height, width, 3], uint8 RGB, of a picture file's bytes; pixels are given back as they are.

    With ``at_least`` = (height, width) a JPEG may come at 1/2, 1/4 or 1/8 of its size, as long as it still
    has that many rows and columns. Raises ImageError with the reason in one line.
    """
    return decode_with_size(source, at_least=at_least)[0]


def decode_with_size(
    source: bytes | NDArray[np.uint8], *, at_least: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """What ``decode`` gives, and the picture's (height, width) as it is stored: neither shrunk nor turned."""
    if isinstance(source, np.ndarray):
        return source, (source.shape[0], source.shape[1])
    if not source:
        raise ImageError("The file is empty; expected a picture.")
    if len(source) > MAX_BYTES:
        raise ImageError(f"The file has {len(source):,} bytes, more than the limit of {MAX_BYTES:,}; make it smaller.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what matters is raised
        try:
            with Image.open(io.BytesIO(source), formats=FORMATS) as picture:
                stored = (picture.height, picture.width)
                return _pixels(picture, source, at_least), stored
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError(f"Not a picture that can be read: it begins with {source[:8]!r}.") from None
        except Image.DecompressionBombError:
            raise ImageError(f"More pixels than the limit of {MAX_PIXELS:,}; make the picture smaller.") from None
        except MemoryError:
            raise ImageError("Decoding needs more memory than there is; make the picture smaller.") from None
        except Exception as error:  # decoders of hostile bytes raise anything: struct.error, KeyError, OSError, ...
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(f"Damaged or cut off: {reason}.") from None


def _pixels(picture: ImageFile.ImageFile, data: bytes, at_least: tuple[int, int] | None) -> NDArray[np.uint8]:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{width} x {height} is {width * height:,} pixels, more than the limit of {MAX_PIXELS:,}; make it smaller."
        )
    orientation = picture.getexif().get(ORIENTATION, 1)
    if picture.format in ("JPEG", "MPO"):
        if at_least is not None and orientation in (5, 6, 7, 8):
            at_least = at_least[::-1]
        factor = _shrink_factor(height, width, at_least)
        if picture.mode in ("L", "RGB"):
            try:
                return _rotate(_fast_jpeg(data, height, width, factor), orientation)
            except ValueError as error:
                if "extraneous bytes" not in str(error):
                    raise
                # Stray bytes between segments are common on the web and cost no pixel; Pillow passes over them.
        # Pillow takes the largest factor that keeps this size: rounded up, it would take a smaller one.
        picture.draft(None, (max(1, width // factor), max(1, height // factor)))
    if picture.format == "TIFF":
        orientation = 1  # Pillow turns these itself
    return _rotate(np.asarray(_rgb(picture)), orientation)


def _shrink_factor(height: int, width: int, at_least: tuple[int, int] | None) -> int:
    if at_least is None:
        return 1
    for factor in (8, 4, 2):
        if -(-height // factor) >= at_least[0] and -(-width // factor) >= at_least[1]:
            return factor
    return 1


def _fast_jpeg(data: bytes, height: int, width: int, factor: int) -> NDArray[np.uint8]:
    """libjpeg-turbo, which runs without the interpreter's lock. Strict: a file cut off is an error, not half grey."""
    shape = (-(-height // factor), -(-width // factor))
    # With the exact shape asked for, the library picks that very factor among its eighths.
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=shape[0], min_width=shape[1])
    return pixels


def _rgb(picture: ImageFile.ImageFile) -> Image.Image:
    mode = picture.mode
    picture.load()
    if mode == "CMYK" and picture.format == "JPEG" and "adobe" not in picture.info:
        # Pillow takes every JPEG's inks as inverted, which only Adobe's are.
        return ImageChops.invert(picture).convert("RGB")
    if mode.startswith(("I", "F")):
        return _eight_bits(picture)
    if mode in ("P", "PA") or "transparency" in picture.info or "A" in picture.getbands() or "a" in picture.getbands():
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits, 32 bits or floating point. 65,535 is white; what is beyond is scaled by its own range."""
    values = np.asarray(picture, np.float64)
    if not np.isfinite(values).all():
        raise ImageError("The picture has samples that are not numbers.")
    if isinstance(clear := picture.info.get("transparency"), int):
        values[values == clear] = 65535  # the one transparent grey of a PNG, on white
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        values = (values - low) / ((high - low) or 1) * 65535
    elif picture.mode == "F" and high <= 1:
        values = values * 65535
    grey = np.rint(values / 257).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _rotate(pixels: NDArray[np.uint8], orientation: object) -> NDArray[np.uint8]:
    """EXIF 2.32, tag Orientation: 2 mirrored, 3 upside down, 4 both, 5 to 8 the same turned by a quarter."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
