"""Decoding of image files to RGB pixels, the same way in training, evaluation, prediction and serving.

- Of an animation the first frame is taken, of a TIFF the first page.
- EXIF orientation is applied; ICC profiles are ignored.
- Transparent pixels are composited on white.
- 16-bit samples are scaled to 8 bits, not clipped.
- A JPEG far larger than needed is decoded at 1/2, 1/4 or 1/8 of its size; so is any other image of more than
  ``LARGE_PIXELS``.
- Images that take much memory are decoded one after the other, whatever the number of threads.
- HEIC needs the extra ``heic``, JPEG XL the extra ``jxl``.
"""

from __future__ import annotations

import io
import threading
from contextlib import AbstractContextManager, nullcontext
from posixpath import splitext

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from headstart.errors import ImageError, missing_extra, one_line
from headstart.images.remarks import why_unreadable
from headstart.images.rgb import rgb_pixels

MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20
LARGE_PIXELS = 16_000_000  # from here on images are decoded one at a time, and reduced where that is allowed
# Formats whose decoders hold an image several times, and how many pixels they may have, so that 1 GB is enough.
MAX_PIXELS_OF = {"WEBP": 50_000_000, "AVIF": 60_000_000, "HEIF": 60_000_000, "JXL": 60_000_000, "JPEG2000": 50_000_000}
MAX_SCANNED = 20 * MAX_PIXELS  # pixels times scans of a progressive JPEG, each of which passes over all of them
# Decoders of Pillow that are written in Python, and take a second for a million pixels: BMP and PPM of rare forms.
SLOW_DECODERS = ("bmp_rle", "ppm", "ppm_plain")
MAX_PIXELS_SLOW = 8_000_000
START_OF_SCAN = b"\xff\xda"
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000")
SUFFIXES = frozenset(
    (
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".png",
            ".gif",
            ".webp",
            ".bmp",
            ".tif",
            ".tiff",
            ".avif",
            ".heic",
            ".heif",
        ),
        *(".mpo", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".jxl"),
    )
)
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # ISO/IEC 23008-12
JXL_SIGNATURES = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")  # ISO/IEC 18181: bare, and in a container
ORIENTATION = 0x0112  # the EXIF tag
_LARGE = threading.Lock()


def is_image_name(name: str) -> bool:
    """Return whether a file name ends, in any case, like one of an image format that ``decode`` reads."""
    return splitext(name)[1].lower() in SUFFIXES


def decode(
    source: bytes | NDArray[np.uint8],
    *,
    min_size: tuple[int, int] | None = None,
    sample_range: tuple[float, float] | None = None,
    scaled: bool = True,
) -> NDArray[np.uint8]:
    """Decode the bytes of an image file to pixels [height, width, 3], uint8 RGB; an array is returned unchanged.

    With ``min_size`` = (height, width) a JPEG, or an image of more than ``LARGE_PIXELS``, may be decoded at 1/2, 1/4 or
    1/8 of its size, as long as the result still has that many rows and columns. ``sample_range`` holds the values of
    black and white in images of more than 8 bits (``images.samples``). Without ``scaled`` a JPEG is treated like all
    other formats. Raises ImageError with the reason in one line.
    """
    return decode_with_size(source, min_size=min_size, sample_range=sample_range, scaled=scaled)[0]


def decode_with_size(
    source: bytes | NDArray[np.uint8],
    *,
    min_size: tuple[int, int] | None = None,
    sample_range: tuple[float, float] | None = None,
    scaled: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return what ``decode`` does, and (height, width) as stored: before any reduction and EXIF rotation.

    An image that would be decoded to more than ``max_pixels`` is an error, as all of more than ``MAX_PIXELS`` are.
    """
    if isinstance(source, np.ndarray):
        return source, (source.shape[0], source.shape[1])
    if not source:
        raise ImageError("The file is empty; expected an image.")
    if len(source) > MAX_BYTES:
        raise ImageError(f"The file has {len(source):,} bytes, more than the limit of {MAX_BYTES:,}; make it smaller.")
    try:
        with Image.open(io.BytesIO(source), formats=FORMATS) as image:
            stored_size = (image.height, image.width)
            return _pixels(image, source, min_size, sample_range, scaled, max_pixels), stored_size
    except ImageError:
        raise
    except UnidentifiedImageError:
        if source[4:8] == b"ftyp" and source[8:12] in HEIF_BRANDS:
            return _decode_heif(source, min_size, max_pixels)
        if source.startswith(JXL_SIGNATURES):
            return _decode_jxl(source, min_size, max_pixels)
        raise ImageError(_unknown_format(source)) from None
    except Image.DecompressionBombError:
        raise ImageError(f"More pixels than the limit of {MAX_PIXELS:,}; make the image smaller.") from None
    except MemoryError:
        raise ImageError("Decoding needs more memory than is available; make the image smaller.") from None
    except Exception as error:  # for malformed bytes decoders raise anything: struct.error, KeyError, OSError, ...
        reason = why_unreadable(source) if "raw mode" in str(error) else None
        raise ImageError(reason or f"Damaged or cut off: {one_line(error)}.") from None


def _unknown_format(source: bytes) -> str:
    """Return why a file cannot be read; formats that people bring are called by their names."""
    if source[128:132] == b"DICM":
        return "Not an image that can be read, but DICOM; export it as PNG or TIFF, in a window that shows the finding."
    if source.lstrip()[:5].lower() in (b"<svg ", b"<?xml", b"<!doc", b"<html"):
        return "Not an image that can be read, but text of a web page or a drawing (HTML, XML, SVG)."
    if reason := why_unreadable(source):
        return reason
    return f"Not an image that can be read: it begins with {source[:8]!r}."


def decode_pil(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels [height, width, 3], uint8 RGB, of a PIL image, its EXIF orientation applied.

    Raises ImageError.
    """
    try:
        _check_size(*image.size)
        orientation = 1 if image.format == "TIFF" else image.getexif().get(ORIENTATION, 1)
        return _apply_orientation(rgb_pixels(image), orientation)
    except ImageError:
        raise
    except Exception as error:  # as for files
        raise ImageError(f"Damaged or cut off: {one_line(error)}.") from None


def _decode_heif(
    data: bytes, min_size: tuple[int, int] | None, max_pixels: int
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode a HEIC or HEIF file, whose orientation libheif applies, with the extra ``heic``."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(str(missing_extra("A HEIC image, which needs pillow-heif", "heic"))) from None
    try:
        image = pillow_heif.open_heif(io.BytesIO(data))
        width, height = image.size
        _check_size(width, height, format="HEIF", max_pixels=max_pixels)
        with _one_at_a_time(width, height):
            return rgb_pixels(image.to_pillow(), factor=_large_factor(height, width, min_size)), (height, width)
    except ImageError:
        raise
    except Exception as error:  # as for Pillow's decoders
        raise ImageError(f"Damaged or cut off: {one_line(error)}.") from None


def _decode_jxl(
    data: bytes, min_size: tuple[int, int] | None, max_pixels: int
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode a JPEG XL file, to 8 bits, whose orientation libjxl applies, with the extra ``jxl``."""
    try:
        import pylibjxl
    except ImportError:
        raise ImageError(str(missing_extra("A JPEG XL image, which needs pylibjxl", "jxl"))) from None
    try:
        info = pylibjxl.probe(data)
        width, height = info["width"], info["height"]
        _check_size(width, height, format="JXL", max_pixels=max_pixels)
        with _one_at_a_time(width, height):
            image = Image.fromarray(pylibjxl.decode(data))
            return rgb_pixels(image, factor=_large_factor(height, width, min_size)), (height, width)
    except ImageError:
        raise
    except Exception as error:  # as for Pillow's decoders
        raise ImageError(f"Damaged or cut off: {one_line(error)}.") from None


def _check_size(
    width: int, height: int, factor: int = 1, format: str | None = None, max_pixels: int = MAX_PIXELS
) -> None:
    """Raise ImageError for an image that has too many pixels even where it is decoded at 1 / ``factor`` of its size."""
    limit = min(max_pixels, MAX_PIXELS, MAX_PIXELS_OF.get(format or "", MAX_PIXELS))
    if width * height > limit * factor**2:
        raise ImageError(
            f"{width} x {height} is {width * height:,} pixels, more than the limit of {limit:,}; make it smaller."
        )


def _check_decoder(image: ImageFile.ImageFile) -> None:
    """Raise ImageError for a large image that Pillow decodes slowly."""
    if any(tile[0] in SLOW_DECODERS for tile in image.tile) and image.width * image.height > MAX_PIXELS_SLOW:
        raise ImageError(
            f"{image.width} x {image.height} pixels of a {image.format} whose form is decoded slowly (plain text, 9 to "
            f"15 bits, or run-length encoding), more than the limit of {MAX_PIXELS_SLOW:,}; save it as PNG."
        )


def _check_scans(data: bytes, width: int, height: int, max_pixels: int) -> None:
    """Raise ImageError for a JPEG that would take long, by the number of its scans."""
    scans = data.count(START_OF_SCAN)
    limit = MAX_SCANNED * min(max_pixels, MAX_PIXELS) // MAX_PIXELS
    if width * height > limit:
        raise ImageError(
            f"{width} x {height} is {width * height:,} pixels, more than the limit of {limit:,} of a JPEG."
        )
    if scans * width * height > limit:
        raise ImageError(f"A JPEG of {scans:,} scans, where about ten are usual; save it again.")


def _one_at_a_time(width: int, height: int) -> AbstractContextManager[object]:
    """Return what lets a thread wait while another one decodes a large image, if this one is large too."""
    return _LARGE if width * height > LARGE_PIXELS else nullcontext()


def _pixels(
    image: ImageFile.ImageFile,
    data: bytes,
    min_size: tuple[int, int] | None,
    sample_range: tuple[float, float] | None,
    scaled: bool,
    max_pixels: int,
) -> NDArray[np.uint8]:
    """Decode an opened image, of which ``data`` is the whole file."""
    width, height = image.size
    orientation = 1 if image.format == "TIFF" else image.getexif().get(ORIENTATION, 1)  # Pillow applies that of a TIFF
    if min_size is not None and orientation in (5, 6, 7, 8):
        min_size = min_size[::-1]
    if image.format not in ("JPEG", "MPO"):
        _check_size(width, height, format=image.format, max_pixels=max_pixels)
        _check_decoder(image)
        with _one_at_a_time(width, height):
            pixels = rgb_pixels(image, sample_range, _large_factor(height, width, min_size))
        return _apply_orientation(pixels, orientation)
    factor = _reduction_factor(height, width, min_size) if scaled else 1
    # The decoder of a progressive JPEG holds it in full size.
    _check_size(width, height, 1 if image.info.get("progressive") else factor, max_pixels=max_pixels)
    _check_scans(data, width, height, max_pixels)
    with _one_at_a_time(width, height):
        if not scaled and (factor := _large_factor(height, width, min_size)) > 1:
            return _apply_orientation(rgb_pixels(image, factor=factor), orientation)
        return _apply_orientation(_jpeg_pixels(image, data, factor), orientation)


def _jpeg_pixels(image: ImageFile.ImageFile, data: bytes, factor: int) -> NDArray[np.uint8]:
    """Decode an opened JPEG at 1 / ``factor`` of its size."""
    width, height = image.size
    if image.mode in ("L", "RGB"):
        try:
            return _decode_jpeg(data, height, width, factor)
        except ValueError as error:
            if "extraneous bytes" not in str(error):
                raise
            # Stray bytes between segments are common on the web and damage no pixel; Pillow ignores them.
    # Pillow takes the largest factor that leaves this size: rounded up, it would take a smaller one.
    image.draft(None, (max(1, width // factor), max(1, height // factor)))
    return rgb_pixels(image)


def _large_factor(height: int, width: int, min_size: tuple[int, int] | None) -> int:
    """Return by which factor of 1, 2, 4 or 8 an image that is no JPEG is reduced: only if it is large."""
    return _reduction_factor(height, width, min_size) if width * height > LARGE_PIXELS else 1


def _reduction_factor(height: int, width: int, min_size: tuple[int, int] | None) -> int:
    """Return by which factor of 1, 2, 4 or 8 an image may be reduced."""
    if min_size is None:
        return 1
    for factor in (8, 4, 2):
        if -(-height // factor) >= min_size[0] and -(-width // factor) >= min_size[1]:
            return factor
    return 1


def _decode_jpeg(data: bytes, height: int, width: int, factor: int) -> NDArray[np.uint8]:
    """Decode with libjpeg-turbo, which releases the interpreter lock. A truncated file is an error, not half grey."""
    shape = (-(-height // factor), -(-width // factor))
    # Given this exact shape, the library picks that very factor among its eighths.
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=shape[0], min_width=shape[1])
    return pixels


def _apply_orientation(pixels: NDArray[np.uint8], orientation: object) -> NDArray[np.uint8]:
    """Apply EXIF 2.32 Orientation: 2 mirrored, 3 rotated by 180 degrees, 4 both; 5 to 8 are 1 to 4 transposed."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
