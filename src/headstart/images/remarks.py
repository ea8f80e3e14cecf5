"""What a user must be told of images that are read, but not whole: bands beyond colour, bits beyond 8.

Only headers are looked at. A remark holds ``{count}`` for the number of images that it is about.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass

# Pillow reports some TIFFs as errors of its own, besides raising them; without a handler they go to standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BITS, PHOTOMETRIC, SAMPLES, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 262, 277, 338, 339  # TIFF 6.0
WANTED = (BITS, PHOTOMETRIC, SAMPLES, EXTRA_SAMPLES, SAMPLE_FORMAT)
INTEGERS = {3: "H", 4: "I"}  # types of numbers in a TIFF, as ``struct`` calls them
MAX_TAGS, MAX_SAMPLES = 4096, 64  # that are looked at
COLOUR_SAMPLES = {2: 3, 5: 4, 6: 3, 8: 3}  # by PhotometricInterpretation; the others have one
FLOATING_POINT = 3
MEND = "gdal_translate -b 1 -b 2 -b 3 -ot Byte -scale IN OUT does so"


@dataclass(frozen=True)
class TiffForm:
    """What the header of a TIFF says of its first page: ``samples`` of ``bits``, of which ``unused`` are no colour."""

    samples: int
    colours: int
    unused: int
    bits: int
    is_float: bool


def tiff_form(source: bytes) -> TiffForm | None:
    """Read the header of a TIFF; None for other files, and where it cannot be read."""
    if source[:4] not in TIFF_SIGNATURES:
        return None
    try:
        tags = _tags(source)
    except struct.error:  # cut off, or damaged; decoding reports it
        return None
    samples, extra = tags.get(SAMPLES, (1,))[0], tags.get(EXTRA_SAMPLES, ())
    colours = COLOUR_SAMPLES.get(tags.get(PHOTOMETRIC, (1,))[0], 1)
    has_opacity = any(kind in (1, 2) for kind in extra)
    is_float = tags.get(SAMPLE_FORMAT, (1,))[0] == FLOATING_POINT
    return TiffForm(samples, colours, samples - colours - has_opacity, tags.get(BITS, (1,))[0], is_float)


def _tags(source: bytes) -> dict[int, tuple[int, ...]]:
    """Read the numbers of the wanted tags of the first page. Raises struct.error.

    Pillow would read all tags, those of a hostile file into any amount of memory, and warn of each.
    """
    order, is_big = ("<" if source[:2] == b"II" else ">"), b"+" in source[2:4]
    number, size, inline = ("Q", 20, 8) if is_big else ("I", 12, 4)
    (start,) = struct.unpack_from(order + number, source, 8 if is_big else 4)
    count_type = "Q" if is_big else "H"
    (count,) = struct.unpack_from(order + count_type, source, start)
    first, tags = start + struct.calcsize(order + count_type), {}
    for i in range(min(count, MAX_TAGS)):
        at = first + i * size
        tag, kind, length = struct.unpack_from(f"{order}HH{number}", source, at)
        if tag not in WANTED or kind not in INTEGERS or not length:
            continue
        length, letter = min(length, MAX_SAMPLES), INTEGERS[kind]
        place = at + 4 + struct.calcsize(order + number)
        if length * struct.calcsize(order + letter) > inline:
            (place,) = struct.unpack_from(order + number, source, place)
        tags[tag] = struct.unpack_from(f"{order}{length}{letter}", source, place)
    return tags


def remarks(source: object, sample_range: tuple[float, float] | None) -> list[str]:
    """Return what must be said of an image that can be read; ``sample_range`` is that of the training images.

    ``source`` holds the bytes of its file, or its pixels, of which nothing need be said.
    """
    if not isinstance(source, bytes):
        return []
    form, found = tiff_form(source), []
    if form is not None and form.unused > 0:
        used = {1: "first was used as grey", 3: "first three were used as red, green and blue"}
        found.append(
            f"Images of {form.samples} bands: {{count}}; the {used.get(form.colours, 'first four were used as CMYK')}, "
            "the others were not."
        )
    is_png = source[:4] == b"\x89PNG" and source[24:25] == b"\x10"
    is_grey = source[25:26] == b"\0" if is_png else form is not None and form.colours == 1
    is_deep = is_png or (form is not None and form.bits > 8)
    if is_deep and not is_grey:
        found.append(
            "Colour images of more than 8 bits a channel: {count}; of 16 bits the upper 8 were used, so values of 12 "
            "bits are nearly black: scale such images to 8 bits."
        )
    if is_deep and is_grey and sample_range is None:
        is_float = form is not None and form.is_float
        kind = "of floating point" if is_float else "of more than 8 bits"
        how = "the range of each decided what is black and white" if is_float else "65,535 was taken as white"
        found.append(
            f"Grey images {kind}: {{count}}, for which no range was measured on the training images; {how}: scale them "
            "like the training images."
        )
    return found


def why_unreadable(source: bytes) -> str | None:
    """Return why a TIFF of many bands cannot be read, and how to mend it; None for other files."""
    form = tiff_form(source)
    if form is None or form.samples < 2:
        return None
    kind = "floating point" if form.is_float else f"{form.bits} bits"
    return (
        f"A TIFF of {form.samples} bands of {kind}, which cannot be read; write one or three of them as an image of 8 "
        f"bits ({MEND})."
    )
