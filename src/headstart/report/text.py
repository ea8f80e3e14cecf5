"""Text on the page: names from the data made safe to show, percentages, and the names of the evaluation sets."""

from __future__ import annotations

MAX_NAME = 200  # characters of a name that are shown
SET_TITLES = {"validation": "validation images", "leave_group_out": "training images, group left out"}
SET_LABELS = {"validation": "validation", "leave_group_out": "training, group left out"}


def clip(text: str, limit: int = MAX_NAME) -> str:
    """Shorten a text to at most ``limit`` characters, with an ellipsis where something was cut off."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clip_start(text: str, limit: int) -> str:
    """Shorten a text to its last ``limit`` characters, with an ellipsis where something was cut off."""
    return text if len(text) <= limit else "…" + text[1 - limit :]


def plain(text: str) -> str:
    """Put a text on one line; characters that are invisible or change the writing direction become a box."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{WHITE SQUARE}" for c in text)


def percent(value: float, digits: int = 1) -> str:
    """Format a share as a percentage that is 100% or 0% only if the share is exactly 1 or 0.

    >>> percent(0.908), percent(0.99999), percent(1.0)
    ('90.8%', 'over 99.9%', '100.0%')
    """
    text = f"{value:.{digits}%}"
    if value < 1 and text == f"{1:.{digits}%}":
        return f"over {1 - 10 ** -(digits + 2):.{digits}%}"
    if value > 0 and text == f"{0:.{digits}%}":
        return f"under {10 ** -(digits + 2):.{digits}%}"
    return text
