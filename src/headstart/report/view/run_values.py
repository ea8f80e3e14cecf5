"""Values of a ``run.json`` that may be incomplete, damaged or hostile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.report.text import clip, plain

MAX_ENTRIES = 50  # of an object that is shown as a table


class RunValues:
    """Typed look-up in a ``run.json``: a path of keys that is missing or has another type yields an empty value."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        self._run = run

    def get(self, *path: str) -> Any:
        """Return the value at a path of keys, or None."""
        value: Any = self._run
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def number(self, *path: str) -> float | None:
        """Return a number at a path of keys, or None."""
        return finite_number(self.get(*path))

    def text(self, *path: str) -> str:
        """Return a text at a path of keys, on one line, or an empty one."""
        value = self.get(*path)
        return clip(plain(value)) if isinstance(value, str) else ""

    def interval(self, *path: str) -> tuple[float, float] | None:
        """Return the two numbers at a path of keys, or None."""
        return interval_of(self.get(*path))

    def entries(self, *path: str) -> list[tuple[str, str]]:
        """Return the entries of an object at a path of keys as pairs of texts, NaN left out."""
        value = self.get(*path)
        entries = list(value.items())[:MAX_ENTRIES] if isinstance(value, Mapping) else []
        return [(plain(str(k)), f"{v:.4g}" if isinstance(v, float) else plain(str(v))) for k, v in entries if v == v]


def finite_number(value: Any) -> float | None:
    """Return a JSON value as a float if it is a number of less than 16 digits, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return None
    return float(value)


def interval_of(value: Any) -> tuple[float, float] | None:
    """Return a JSON value as (low, high) if it is a list of two numbers, else None."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = finite_number(value[0]), finite_number(value[1])
    return None if low is None or high is None else (low, high)
