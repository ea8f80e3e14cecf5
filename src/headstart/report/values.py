"""Values of a ``report.json`` that may be damaged or hostile: each is checked; a wrong one is a ValueError."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

MAX_ENTRIES = 1_000  # findings, thumbnails, activation maps
MAX_TEXT = 8_192  # characters of a name or a path
MAX_COUNT = 10**9
JPEG_MAGIC = b"\xff\xd8\xff"


def list_of(value: Any, limit: int) -> list[Any]:
    """Return a value that is a list of at most ``limit``."""
    if not isinstance(value, list) or len(value) > limit:
        raise ValueError(f"expected a list of at most {limit}")
    return value


def object_of(value: Any) -> dict[str, Any]:
    """Return a value that is an object of at most ``MAX_ENTRIES``."""
    if not isinstance(value, dict) or len(value) > MAX_ENTRIES:
        raise ValueError(f"expected an object of at most {MAX_ENTRIES} entries")
    return value


def text_of(value: Any) -> str:
    """Return a value that is a text of at most ``MAX_TEXT`` characters."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"expected a text of at most {MAX_TEXT} characters")
    return value


def integer(value: Any, low: int, end: int) -> int:
    """Check an integer in the half-open range [low, end)."""
    if type(value) is not int or not low <= value < end:
        raise ValueError(f"{str(value)[:20]!r} where an integer from {low} to {end - 1} was expected")
    return value


def number(value: Any, low: float, high: float) -> float:
    """Check a finite number in the closed range [low, high]."""
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{str(value)[:20]!r} where a number from {low:g} to {high:g} was expected")
    return float(value)


def jpeg(value: Any) -> bytes:
    """Return the bytes of a JPEG in base64, which may be empty."""
    try:
        data = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"an image is not base64: {error}") from None
    if data and not data.startswith(JPEG_MAGIC):
        raise ValueError("an image is not a JPEG")
    return data


def to_base64(data: bytes) -> str:
    """Return bytes as a text."""
    return base64.b64encode(data).decode("ascii")
