"""When and with which camera an image was taken, by the EXIF data of its file (CIPA DC-008, EXIF 2.32).

Only the wanted tags are read, within limits: Pillow would read all tags, those of a hostile file into any amount of
memory.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from PIL import Image

from headstart.images.decoding import FORMATS, HEIF_BRANDS

MAKE, MODEL, EXIF_IFD = 0x010F, 0x0110, 0x8769
TIME, SUBSECOND, SERIAL = 0x9003, 0x9291, 0xA431  # DateTimeOriginal, SubSecTimeOriginal, BodySerialNumber
TEXT, OFFSET = 2, 4  # types of values
MAX_TAGS, MAX_TEXT = 4096, 100  # that are looked at, and characters of one
PREFIX = b"Exif\0\0"


@dataclass(frozen=True)
class Capture:
    """The time at which an image was taken, in seconds by the camera's own clock, and the camera's name."""

    seconds: float
    camera: str


def read_capture(source: object) -> Capture | None:
    """Return the capture that the bytes of an image file tell, None where they tell no time.

    The time is that of the shutter (DateTimeOriginal); one at which a file was changed says nothing. Files are JPEG,
    PNG, WebP and AVIF, and HEIC with the extra ``heic``.
    """
    if not isinstance(source, bytes):
        return None
    try:
        data = _exif_bytes(source).removeprefix(PREFIX)
        order = {b"II*\0": "<", b"MM\0*": ">"}[data[:4]]
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        first = _tags(data, order, start, (MAKE, MODEL, EXIF_IFD))
        (start,) = struct.unpack(f"{order}I", first[EXIF_IFD])
        tags = _tags(data, order, start, (TIME, SUBSECOND, SERIAL))
        time = datetime.strptime(_text(tags[TIME]), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except Exception:  # decoders and parsers raise anything for malformed bytes; then there is no time
        return None
    fraction = _text(tags.get(SUBSECOND, b""))
    seconds = time.timestamp() + (float(f"0.{fraction}") if fraction.isdecimal() and fraction.isascii() else 0.0)
    camera = (first.get(MAKE, b""), first.get(MODEL, b""), tags.get(SERIAL, b""))
    return Capture(seconds, " ".join(map(_text, camera)))


def _exif_bytes(source: bytes) -> bytes:
    """Return the EXIF data of an image file, empty where there are none. Raises what Pillow raises."""
    if source[4:8] == b"ftyp" and source[8:12] in HEIF_BRANDS:
        import pillow_heif

        return bytes(pillow_heif.open_heif(io.BytesIO(source)).info.get("exif") or b"")
    # Pillow reads all tags of a TIFF as it opens it.
    with Image.open(io.BytesIO(source), formats=[name for name in FORMATS if name != "TIFF"]) as image:
        return bytes(image.info.get("exif", b""))


def _tags(data: bytes, order: str, start: int, wanted: Collection[int]) -> dict[int, bytes]:
    """Return the values of the wanted tags of the directory at ``start``. Raises struct.error."""
    (count,) = struct.unpack_from(f"{order}H", data, start)
    tags = {}
    for i in range(min(count, MAX_TAGS)):
        at = start + 2 + 12 * i
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, at)
        if tag not in wanted:
            continue
        if kind == OFFSET and length == 1:
            tags[tag] = data[at + 8 : at + 12]
        elif kind == TEXT:
            (place,) = (at + 8,) if length <= 4 else struct.unpack_from(f"{order}I", data, at + 8)
            tags[tag] = data[place : place + min(length, MAX_TEXT)]
    return tags


def _text(value: bytes) -> str:
    return value.split(b"\0")[0].decode("latin-1").strip()
