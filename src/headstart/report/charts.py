"""Charts as SVG. Colours come from the style sheet, so that they follow the page into the dark and onto paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log10

from markupsafe import Markup, escape

from headstart.report.data import Bin

WIDTH, HEIGHT = 440, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 22, 12, 46
SHAPES = ("circle", "square")


@dataclass(frozen=True)
class Axes:
    """The frame of a chart: what its sides mean, the range of each, and the ticks to write."""

    x: str
    y: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    log: bool = False

    def across(self, value: float) -> float:
        """Where a value of x lies, in pixels."""
        low, high = self.x_range
        if self.log:
            low, high, value = log10(low), log10(high), log10(value)
        return LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def down(self, value: float) -> float:
        """Where a value of y lies, in pixels."""
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)


def percent(value: float, digits: int = 1) -> str:
    """A share as people read it: never 100% or 0% where it is not."""
    text = f"{value:.{digits}%}"
    if value < 1 and text == f"{1:.{digits}%}":
        return f"over {1 - 10 ** -(digits + 2):.{digits}%}"
    if value > 0 and text == f"{0:.{digits}%}":
        return f"under {10 ** -(digits + 2):.{digits}%}"
    return text


def interval(value: float, low: float, high: float) -> Markup:
    """A bar from 0% or 50% to 100% with the value and its interval on it."""
    start = 0.5 if low >= 0.5 else 0.0
    if low >= 0.9:
        start = 0.9

    def at(share: float) -> float:
        return round(6 + (share - start) / (1 - start) * 308, 1)

    ticks = "".join(
        f'<text class="tick" x="{at(t):g}" y="40" text-anchor="{anchor}">{t:.0%}</text>'
        for t, anchor in ((start, "start"), ((start + 1) / 2, "middle"), (1.0, "end"))
    )
    return _svg(
        320, 44, f"{percent(value)}, 95% interval {percent(low)} to {percent(high)}",
        f'<line class="rail" x1="6" y1="14" x2="314" y2="14"/>'
        f'<rect class="band" x="{at(low):g}" y="8" width="{max(2.0, at(high) - at(low)):g}" height="12" rx="6"/>'
        f'<circle class="mark" cx="{at(value):g}" cy="14" r="6"/>{ticks}',
    )  # fmt: skip


def reliability(series: Sequence[tuple[str, Sequence[Bin]]]) -> Markup:
    """Claimed against right, with intervals; the diagonal is a model that means what it says."""
    ticks = _shares((0, 0.25, 0.5, 0.75, 1))
    axes = Axes("what the model claimed", "what was right", (0, 1), (0, 1), ticks, ticks)
    parts = [
        f'<line class="ideal" x1="{axes.across(0)}" y1="{axes.down(0)}" x2="{axes.across(1)}" y2="{axes.down(1)}"/>'
    ]
    for number, (_, bins) in enumerate(series):
        for b in bins:
            x = axes.across(b.claimed)
            parts.append(
                f'<line class="whisker s{number}" x1="{x:.1f}" x2="{x:.1f}" y1="{axes.down(b.low):.1f}" '
                f'y2="{axes.down(b.high):.1f}"/>'
            )
        parts += [_dot(axes.across(b.claimed), axes.down(b.right), number) for b in bins]
    return _chart(axes, "Reliability: what the model claimed against what was right", parts)


def risk(series: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> Markup:
    """The share of wrong answers when only the surest pictures are answered."""
    top = max((y for _, points in series for _, y in points), default=0.0)
    high, parts_of = _nice(max(top * 1.1, 0.01))
    step = high / parts_of
    ticks = [(step * i, f"{step * i:.{0 if step >= 0.01 else 1}%}") for i in range(parts_of + 1)]
    axes = Axes(
        "share of the pictures answered, surest first", "share of those that are wrong", (0, 1), (0, high),
        _shares((0, 0.25, 0.5, 0.75, 1)), ticks,
    )  # fmt: skip
    parts = []
    for number, (_, points) in enumerate(series):
        parts.append(_line(axes, points, number))
        if points:
            parts.append(_dot(axes.across(points[-1][0]), axes.down(points[-1][1]), number))
    return _chart(axes, "Risk by coverage", parts)


def learning(points: Sequence[Point], expected: Sequence[Point]) -> Markup:
    """Accuracy by the number of training pictures, and what may be expected of more."""
    every = [*points, *expected]
    counts = sorted({p.count for p in every})
    lowest = min(p.low for p in every)
    start = max(0.0, (int(lowest * 20) - 1) / 20)
    ends = (counts[0] / 1.2, counts[-1] * 1.2)
    shown = counts if len(counts) <= 6 else [counts[round(i * (len(counts) - 1) / 5)] for i in range(6)]
    axes = Axes(
        "training pictures", "right", ends, (start, 1), [(c, f"{c:,}") for c in shown],
        _shares([start + (1 - start) * i / 4 for i in range(5)]), log=True,
    )  # fmt: skip
    parts = []
    for p in points:
        x = axes.across(p.count)
        parts.append(
            f'<line class="whisker s0" x1="{x:.1f}" x2="{x:.1f}" y1="{axes.down(p.low):.1f}" '
            f'y2="{axes.down(p.high):.1f}"/>'
        )
    parts.append(_line(axes, [(p.count, p.accuracy) for p in points], 0))
    parts += [_dot(axes.across(p.count), axes.down(p.accuracy), 0) for p in points]
    if expected:
        joined = [*points[-1:], *expected]
        parts.append(_line(axes, [(p.count, p.accuracy) for p in joined], 0, "expected"))
        parts += [_dot(axes.across(p.count), axes.down(p.accuracy), 0, "hollow") for p in expected]
    return _chart(axes, "Learning curve: accuracy by the number of training pictures", parts)


@dataclass(frozen=True)
class Point:
    """Of a learning curve: training pictures, accuracy and its interval."""

    count: int
    accuracy: float
    low: float
    high: float


def bar(share: float) -> Markup:
    """A bar in a table's cell, ``share`` of it filled; the number stands beside it."""
    width = round(100 * min(1.0, max(0.0, share)), 1)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" width="100" height="8" aria-hidden="true" preserveAspectRatio="none">'
        '<rect class="rail" width="100" height="8" rx="4"/><rect class="fill" width="{:g}" height="8" rx="4"/></svg>'
    ).format(width)


def _shares(values: Sequence[float]) -> list[tuple[float, str]]:
    fine = any(abs(v * 100 - round(v * 100)) > 1e-6 for v in values)
    return [(v, f"{v:.1%}" if fine else f"{v:.0%}") for v in values]


def _nice(value: float) -> tuple[float, int]:
    """A round number not below a share, at most 1, and in how many round parts it divides."""
    power = 10.0 ** (ceil(log10(value)) - 1)
    for times, parts in ((1, 5), (2, 4), (4, 4), (5, 5), (8, 4)):
        if times * power >= value * (1 - 1e-9):
            return min(1.0, times * power), parts
    return min(1.0, 10 * power), 5


def _dot(x: float, y: float, series: int, kind: str = "") -> str:
    if SHAPES[series % 2] == "square":
        return f'<rect class="dot s{series} {kind}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    return f'<circle class="dot s{series} {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'


def _line(axes: Axes, points: Sequence[tuple[float, float]], series: int, kind: str = "") -> str:
    path = " ".join(f"{axes.across(x):.1f},{axes.down(y):.1f}" for x, y in points)
    return f'<polyline class="line s{series} {kind}" points="{path}"/>'


def _chart(axes: Axes, title: str, parts: Sequence[str]) -> Markup:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    frame = []
    for value, text in axes.y_ticks:
        y = axes.down(value)
        frame.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        frame.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for value, text in axes.x_ticks:
        x = axes.across(value)
        frame.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(text)}</text>')
    middle = (LEFT + right) / 2
    frame.append(f'<text class="name" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(axes.x)}</text>')
    across = (TOP + bottom) / 2
    frame.append(
        f'<text class="name" transform="translate(12 {across}) rotate(-90)" text-anchor="middle">'
        f"{escape(axes.y)}</text>"
    )
    return _svg(WIDTH, HEIGHT, title, "".join([*frame, *parts]))


def _svg(width: int, height: int, title: str, inner: str) -> Markup:
    """``inner`` is made of numbers and escaped texts alone."""
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        width, height, title
    ) + Markup(inner + "</svg>")
