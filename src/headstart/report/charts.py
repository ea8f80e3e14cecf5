"""Charts as SVG. Colours come from the style sheet, so that they suit dark screens and paper too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log10

from markupsafe import Markup, escape

from headstart.report.data import ReliabilityBin
from headstart.report.text import percent

WIDTH, HEIGHT = 440, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 22, 12, 46  # margins
MAX_TICKS = 7  # of the learning curve
Point = tuple[float, float]
QUARTERS = [(share, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)]  # ticks


@dataclass(frozen=True)
class Axes:
    """Frame of a chart: the label, the range and the ticks (value, text) of each axis."""

    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    log_x: bool = False

    def x(self, value: float) -> float:
        """Return the horizontal position of a value, in pixels."""
        low, high = self.x_range
        if self.log_x:
            low, high, value = log10(low), log10(high), log10(value)
        return LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the vertical position of a value, in pixels."""
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)


@dataclass(frozen=True)
class LearningPoint:
    """Point of a learning curve: number of training images, and accuracy with its 95% interval."""

    count: int
    accuracy: float
    low: float
    high: float


def interval_bar(value: float, low: float, high: float, start: float = 0.0) -> Markup:
    """Return a scale from ``start`` to 100% with a value and its interval on it; bars of one start can be compared."""

    def position(share: float) -> float:
        return round(6 + (share - start) / (1 - start) * 308, 1)

    ticks = "".join(
        f'<text class="tick" x="{position(tick):g}" y="40" text-anchor="{anchor}">{tick:.0%}</text>'
        for tick, anchor in ((start, "start"), ((start + 1) / 2, "middle"), (1.0, "end"))
    )
    width = max(2.0, position(high) - position(low))
    return _svg(
        320,
        44,
        f"{percent(value)}, 95% interval {percent(low)} to {percent(high)}",
        '<line class="rail" x1="6" y1="14" x2="314" y2="14"/>'
        f'<rect class="band" x="{position(low):g}" y="8" width="{width:g}" height="12" rx="6"/>'
        f'<circle class="mark" cx="{position(value):g}" cy="14" r="6"/>{ticks}',
    )


def scale_start(lows: Sequence[float]) -> float:
    """Return where the scale of intervals with these lower ends starts: 0%, 50% or 90%."""
    lowest = min(lows, default=0.0)
    return 0.9 if lowest >= 0.9 else 0.5 if lowest >= 0.5 else 0.0


def reliability_diagram(series: Sequence[Sequence[ReliabilityBin]], share: str = "accuracy") -> Markup:
    """Return a share, of what is predicted so, against probability with intervals; calibrated ones are on the diagonal.

    ``share`` names it.
    """
    axes = Axes("probability that the model gives", share, (0, 1), (0, 1), QUARTERS, QUARTERS)
    parts = [f'<line class="ideal" x1="{axes.x(0)}" y1="{axes.y(0)}" x2="{axes.x(1)}" y2="{axes.y(1)}"/>']
    for number, bins in enumerate(series):
        parts += [_whisker(axes, b.mean_confidence, b.low, b.high, number) for b in bins]
        parts += [_marker(axes, b.mean_confidence, b.accuracy, number) for b in bins]
    return _chart(axes, f"Reliability diagram: {share} against probability", parts)


def precision_recall_curve(series: Sequence[tuple[Sequence[Point], Point | None]]) -> Markup:
    """Return precision against recall, for each series its points and, as a ring, that of the threshold."""
    axes = Axes("recall", "precision", (0, 1), (0, 1), QUARTERS, QUARTERS)
    parts = [_line(axes, points, number) for number, (points, _) in enumerate(series)]
    parts += [
        f'<circle class="ring s{number}" cx="{axes.x(at[0]):.1f}" cy="{axes.y(at[1]):.1f}" r="6"/>'
        for number, (_, at) in enumerate(series)
        if at is not None
    ]
    return _chart(axes, "Precision-recall curve", parts)


def risk_coverage_curve(series: Sequence[Sequence[tuple[float, float]]]) -> Markup:
    """Return the error rate against the share of images that are classified, most confident first."""
    highest = max((error_rate for points in series for _, error_rate in points), default=0.0)
    top, divisions = _round_up(max(highest * 1.1, 0.01))
    step = top / divisions
    digits = 0 if step >= 0.01 else 1
    axes = Axes(
        x_label="images classified by the model, surest first",
        y_label="error rate of these images",
        x_range=(0, 1),
        y_range=(0, top),
        x_ticks=QUARTERS,
        y_ticks=[(step * i, f"{step * i:.{digits}%}") for i in range(divisions + 1)],
    )
    parts = []
    for number, points in enumerate(series):
        parts.append(_line(axes, points, number))
        if points:
            parts.append(_marker(axes, *points[-1], number))
    return _chart(axes, "Risk-coverage curve: error rate against coverage", parts)


def learning_curve(measured: Sequence[LearningPoint], expected: Sequence[LearningPoint]) -> Markup:
    """Return accuracy against the number of training images, with the points expected of more images dashed."""
    points = [*measured, *expected]
    counts = sorted({point.count for point in points})
    lowest = max(0, int(min(point.low for point in points) * 20) - 1)  # of the y axis, in steps of 5%
    step = 1 if lowest >= 14 else 2 if lowest >= 8 else 4
    axes = Axes(
        x_label="training images",
        y_label="accuracy",
        x_range=(counts[0] / 1.2, counts[-1] * 1.2),
        y_range=(lowest / 20, 1),
        x_ticks=[(count, f"{count:,}") for count in _round_counts(counts[0] / 1.2, counts[-1] * 1.2)],
        y_ticks=[(i / 20, f"{i / 20:.0%}") for i in range(20, lowest - 1, -step)],
        log_x=True,
    )
    parts = [_whisker(axes, point.count, point.low, point.high, 0) for point in measured]
    parts.append(_line(axes, [(point.count, point.accuracy) for point in measured], 0))
    parts += [_marker(axes, point.count, point.accuracy, 0) for point in measured]
    if expected:
        extension = [*measured[-1:], *expected]
        parts += [_whisker(axes, point.count, point.low, point.high, 0, "expected") for point in expected]
        parts.append(_line(axes, [(point.count, point.accuracy) for point in extension], 0, "expected"))
        parts += [_marker(axes, point.count, point.accuracy, 0, "hollow") for point in expected]
    return _chart(axes, "Learning curve: accuracy by the number of training images", parts)


def table_bar(share: float) -> Markup:
    """Return a bar for a table cell, ``share`` of it filled; the number stands beside it."""
    width = round(100 * min(1.0, max(0.0, share)), 1)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" width="100" height="8" aria-hidden="true" preserveAspectRatio="none">'
        '<rect class="rail" width="100" height="8" rx="4"/><rect class="fill" width="{:g}" height="8" rx="4"/></svg>'
    ).format(width)


def _round_up(share: float) -> tuple[float, int]:
    """Return a round number of at least ``share`` (at most 1), and the number of round parts that it divides into."""
    power = 10.0 ** (ceil(log10(share)) - 1)
    for factor, divisions in ((1, 5), (2, 4), (4, 4), (5, 5), (8, 4)):
        if factor * power >= share * (1 - 1e-9):
            return min(1.0, factor * power), divisions
    return min(1.0, 10 * power), 5


def _round_counts(low: float, high: float) -> list[int]:
    """Return the numbers 1, 2, 5, 10, 20, 50, ... from ``low`` to ``high``, or of a wide range the powers of ten."""
    powers = range(int(log10(max(1.0, high))) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        numbers = [step * 10**power for power in powers for step in steps if low <= step * 10**power <= high]
        if len(numbers) <= MAX_TICKS:
            break
    return numbers


def _whisker(axes: Axes, x: float, low: float, high: float, series: int, style: str = "") -> str:
    position = f"{axes.x(x):.1f}"
    return (
        f'<line class="whisker s{series} {style}" x1="{position}" x2="{position}" '
        f'y1="{axes.y(low):.1f}" y2="{axes.y(high):.1f}"/>'
    )


def _marker(axes: Axes, x: float, y: float, series: int, style: str = "") -> str:
    """Return a disc for the first series, a square for the second."""
    left, top = axes.x(x), axes.y(y)
    if series % 2:
        return f'<rect class="dot s{series} {style}" x="{left - 4:.1f}" y="{top - 4:.1f}" width="8" height="8"/>'
    return f'<circle class="dot s{series} {style}" cx="{left:.1f}" cy="{top:.1f}" r="4.5"/>'


def _line(axes: Axes, points: Sequence[tuple[float, float]], series: int, style: str = "") -> str:
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
    return f'<polyline class="line s{series} {style}" points="{path}"/>'


def _chart(axes: Axes, title: str, parts: Sequence[str]) -> Markup:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    frame = []
    for value, text in axes.y_ticks:
        y = axes.y(value)
        frame.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        frame.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for value, text in axes.x_ticks:
        x = axes.x(value)
        frame.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(text)}</text>')
    center_x, center_y = (LEFT + right) / 2, (TOP + bottom) / 2
    frame.append(
        f'<text class="name" x="{center_x}" y="{HEIGHT - 6}" text-anchor="middle">{escape(axes.x_label)}</text>'
    )
    frame.append(
        f'<text class="name" transform="translate(12 {center_y}) rotate(-90)" text-anchor="middle">'
        f"{escape(axes.y_label)}</text>"
    )
    return _svg(WIDTH, HEIGHT, title, "".join([*frame, *parts]))


def _svg(width: int, height: int, title: str, content: str) -> Markup:
    """Return an SVG image. ``content`` must consist of numbers and escaped texts only."""
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        width, height, title
    ) + Markup(content + "</svg>")
