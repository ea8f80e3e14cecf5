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
KIND, BITS, PHOTOMETRIC, SAMPLES, EXTRA_SAMPLES, SAMPLE_FORMAT = 254, 258, 262, 277, 338, 339  # TIFF 6.0
WANTED = (KIND, BITS, PHOTOMETRIC, SAMPLES, EXTRA_SAMPLES, SAMPLE_FORMAT)
NO_PAGE = 1 | 4  # bits of KIND: a smaller copy of another page, or a mask
INTEGERS = {3: "H", 4: "I"}  # types of numbers in a TIFF, as ``struct`` calls them
MAX_TAGS, MAX_SAMPLES, MAX_PAGES = 4096, 64, 16  # that are looked at
WHITE_IS_ZERO = 0  # of PHOTOMETRIC
COLOUR_SAMPLES = {2: 3, 5: 4, 6: 3, 8: 3}  # by PhotometricInterpretation; the others have one
FLOATING_POINT = 3
MEND = "gdal_translate -b 1 -b 2 -b 3 -ot Byte -scale IN OUT does so"


@dataclass(frozen=True)
class TiffForm:
    """What the header of a TIFF says of its first page: ``samples`` of ``bits``, of which ``unused`` are no colour.

    ``has_more_pages`` is about the file: smaller copies of a page, and masks, are none.
    """

    samples: int
    colours: int
    unused: int
    bits: int
    is_float: bool
    is_white_zero: bool
    has_more_pages: bool


def tiff_form(source: bytes) -> TiffForm | None:
    """Read the header of a TIFF; None for other files, and where it cannot be read."""
    if source[:4] not in TIFF_SIGNATURES:
        return None
    order, is_big = ("<" if source[:2] == b"II" else ">"), b"+" in source[2:4]
    try:
        (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), source, 8 if is_big else 4)
        tags, following = _tags(source, start, order, is_big)
    except struct.error:  # cut off, or damaged; decoding reports it
        return None
    samples, extra = tags.get(SAMPLES, (1,))[0], tags.get(EXTRA_SAMPLES, ())
    colours = COLOUR_SAMPLES.get(tags.get(PHOTOMETRIC, (1,))[0], 1)
    has_opacity = any(kind in (1, 2) for kind in extra)
    is_float = tags.get(SAMPLE_FORMAT, (1,))[0] == FLOATING_POINT
    return TiffForm(
        samples,
        colours,
        samples - colours - has_opacity,
        tags.get(BITS, (1,))[0],
        is_float,
        tags.get(PHOTOMETRIC) == (WHITE_IS_ZERO,),
        _has_page(source, following, order, is_big),
    )


def _has_page(source: bytes, start: int, order: str, is_big: bool) -> bool:
    """Return whether one of the pages from the place ``start`` on (0: none) is neither a smaller copy nor a mask."""
    for _ in range(MAX_PAGES):
        if not start:
            return False
        try:
            tags, start = _tags(source, start, order, is_big)
        except struct.error:
            return False
        if not tags.get(KIND, (0,))[0] & NO_PAGE:
            return True
    return False


def _tags(source: bytes, start: int, order: str, is_big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    """Read the numbers of the wanted tags of the page at ``start``, and where the next page starts; 0: nowhere.

    Pillow would read all tags, those of a hostile file into any amount of memory, and warn of each. Raises
    struct.error.
    """
    number, size, inline = ("Q", 20, 8) if is_big else ("I", 12, 4)
    count_type = "Q" if is_big else "H"
    (count,) = struct.unpack_from(order + count_type, source, start)
    first, tags = start + struct.calcsize(order + count_type), dict[int, tuple[int, ...]]()
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
    end = first + count * size
    is_whole = end + struct.calcsize(order + number) <= len(source)
    return tags, struct.unpack_from(order + number, source, end)[0] if is_whole else 0


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
    if form is not None and form.has_more_pages:
        found.append("TIFFs of several pages: {count}; the first page of each was used, the others were not.")
    is_png = source[:4] == b"\x89PNG" and source[24:25] == b"\x10"
    is_grey = source[25:26] == b"\0" if is_png else form is not None and form.colours == 1
    is_deep = is_png or (form is not None and form.bits > 8)
    if is_deep and not is_grey:
        found.append(
            "Colour images of more than 8 bits a channel: {count}; of 16 bits the upper 8 were used, so values of 12 "
            "bits are nearly black: scale such images to 8 bits."
        )
    if form is not None and form.is_white_zero and is_deep:
        found.append(
            "Grey images of more than 8 bits in which 0 is white (WhiteIsZero): {count}; 0 was taken as black: invert "
            "them if others are the other way round."
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
    """Return why a TIFF of many bands or bits cannot be read, and how to mend it; None for other files."""
    form = tiff_form(source)
    if form is None:
        return None
    if form.samples < 2:
        is_rare = form.bits > 32 or (form.is_float and form.bits != 32)
        kind = "of floating point" if form.is_float else "a sample"
        mend = "write it in 8 or 16 bits, or floating point of 32"
        return f"A TIFF of {form.bits} bits {kind}, which cannot be read; {mend}." if is_rare else None
    kind = "floating point" if form.is_float else f"{form.bits} bits"
    return (
        f"A TIFF of {form.samples} bands of {kind}, which cannot be read; write one or three of them as an image of 8 "
        f"bits ({MEND})."
    )
