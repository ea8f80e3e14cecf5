"""Training curves: accuracy and loss by epoch, of the training images and of images held out.

As text for the terminal, and as SVG for a file, a notebook and the report. The SVG has its colours in attributes, which
the style sheet of the report overrides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10

from markupsafe import Markup, escape

WIDTH, HEIGHT = 60, 8  # characters
MARKS = "xo+"  # of the curves in text; where two meet there is a *
COLOURS = ("#0b5cad", "#c05a00", "#59626e")  # distinguishable with colour vision deficiency
DASHES = ("", "8 3", "2 3")
PANEL_WIDTH, PANEL_HEIGHT = 440, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 22, 62, 46  # margins
MAX_TICKS = 6
MAX_ROWS = 200  # of the table


@dataclass(frozen=True)
class Curve:
    """A value after each epoch, None where it was not measured, of the images that ``name`` tells."""

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Curves:
    """Accuracy (0 to 1) and loss (in nats) by epoch; ``title`` says of which training, "" where there is one."""

    title: str
    accuracy: tuple[Curve, ...]
    loss: tuple[Curve, ...]

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return len(self.accuracy[0].values)

    @property
    def listed_epochs(self) -> list[int]:
        """The epochs for a table: all, or of more than ``MAX_ROWS`` an even selection with the last."""
        step = ceil(self.epochs / MAX_ROWS)
        return [self.epochs - i for i in range(0, self.epochs, step)][::-1]

    def panels(self) -> tuple[tuple[str, tuple[Curve, ...]], ...]:
        """The quantities and their curves."""
        return (("accuracy", self.accuracy), ("loss", self.loss))


@dataclass(frozen=True)
class _Scale:
    """Round ticks around the values of an axis; the first and the last are its ends."""

    ticks: tuple[float, ...]
    is_share: bool

    @classmethod
    def of(cls, curves: Sequence[Curve], *, is_share: bool) -> _Scale:
        """Choose ticks for the values of all curves: a share ends at 1, a loss begins at 0."""
        values = [value for curve in curves for value in curve.values if value is not None]
        low, high = (min(values), 1.0) if is_share else (0.0, max(values))
        step = round_step((high - low) or 0.05)
        first = floor(low / step + 1e-9)
        last = max(first + 1, ceil(high / step - 1e-9))
        return cls(tuple(round(step * i, 10) for i in range(first, last + 1)), is_share)

    def position(self, value: float) -> float:
        """Return where a value is, from 0 at the first tick to 1 at the last."""
        return (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])

    def label(self, tick: float) -> str:
        """Return the text of a tick."""
        if not self.is_share:
            return f"{tick:.3g}"
        return f"{tick:.0%}" if self.ticks[1] - self.ticks[0] > 0.0099 else f"{tick:.1%}"


def round_step(span: float, parts: int = MAX_TICKS - 1) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten of which at most ``parts`` make up ``span`` > 0.

    >>> [round_step(span) for span in (0.23, 1.0, 9, 80)]
    [0.05, 0.2, 2.0, 20.0]
    """
    power = 10.0 ** floor(log10(span / parts))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * parts >= span * (1 - 1e-9))


def epoch_ticks(epochs: int) -> list[int]:
    """Return the epochs to name on an axis: the first, round ones, and the last.

    >>> epoch_ticks(10), epoch_ticks(69)
    ([1, 2, 4, 6, 8, 10], [1, 20, 40, 69])
    """
    step = max(1, round(round_step(epochs)))
    ticks = [1, *range(step, epochs, step), epochs] if epochs > 1 else [1]
    return [tick for i, tick in enumerate(ticks) if i in (0, len(ticks) - 1) or 1 < tick <= epochs - step * 0.6]


def curves_text(curves: Curves) -> str:
    """Draw accuracy and loss, one column for each epoch (or for several), with ticks and a legend.

    A single epoch is reported as a sentence.
    """
    of = f", {curves.title}" if curves.title else ""
    if curves.epochs == 1:
        parts = [
            f"{quantity} {_value(quantity, curve.values[0])} ({curve.name})"
            for quantity, drawn in curves.panels()
            for curve in drawn
        ]
        return f"after one epoch{of}: {', '.join(parts)}"
    lines = []
    for quantity, drawn in curves.panels():
        legend = [f"{mark} {curve.name}" for mark, curve in zip(MARKS, drawn, strict=False)]
        lines.append(f"{quantity} by epoch{of}: {', '.join(legend)}{', * both' if len(drawn) > 1 else ''}")
        lines += _text_panel(drawn, _Scale.of(drawn, is_share=quantity == "accuracy"), curves.epochs)
    return "\n".join(lines)


def _value(quantity: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if quantity == "accuracy" else f"{value:.3g}"


def _text_panel(curves: Sequence[Curve], scale: _Scale, epochs: int) -> list[str]:
    """Return the lines of one chart: rows between ticks, and the axis of the epochs."""
    rows_per_tick = max(1, round(HEIGHT / (len(scale.ticks) - 1)))
    top = rows_per_tick * (len(scale.ticks) - 1)
    gap = 3 if epochs <= WIDTH // 3 else 1
    columns = min(epochs, WIDTH)
    cells = [[" "] * (gap * columns) for _ in range(top + 1)]
    for mark, curve in zip(MARKS, curves, strict=False):
        for column, value in enumerate(_averaged(curve.values, columns)):
            if value is not None:
                row = cells[round(top * min(1.0, max(0.0, scale.position(value))))]
                row[gap * column] = mark if row[gap * column] == " " else "*"
    labels = {rows_per_tick * i: scale.label(tick) for i, tick in enumerate(scale.ticks)}
    lines = [
        f"{labels.get(i, ''):>8} {'┤' if i in labels else '│'}{''.join(cells[i]).rstrip()}" for i in range(top, -1, -1)
    ]
    axis = [" "] * (gap * columns + 8)
    for tick in epoch_ticks(epochs):
        column = gap * ((tick - 1) * columns // epochs)
        if not "".join(axis[max(0, column - 1) : column + len(str(tick))]).strip():
            axis[column : column + len(str(tick))] = str(tick)
    return [*lines, f"{'':8} └{'─' * (gap * (columns - 1) + 1)}", f"{'epoch':>8}  {''.join(axis).rstrip()}"]


def _averaged(values: Sequence[float | None], columns: int) -> list[float | None]:
    """Average runs of equal length, so that ``columns`` values remain."""
    edges = [round(i * len(values) / columns) for i in range(columns + 1)]
    runs = [[value for value in values[a:b] if value is not None] for a, b in pairwise(edges)]
    return [sum(run) / len(run) if run else None for run in runs]


def curves_svg(curves: Curves) -> str:
    """Draw accuracy and loss side by side as an SVG image on white."""
    panels = [
        f'<g transform="translate({PANEL_WIDTH * i} 0)">{_panel(curves, quantity, drawn)}</g>'
        for i, (quantity, drawn) in enumerate(curves.panels())
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * PANEL_WIDTH} {PANEL_HEIGHT}" '
        f'width="{2 * PANEL_WIDTH}" height="{PANEL_HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{2 * PANEL_WIDTH}" height="{PANEL_HEIGHT}" fill="white"/>\n{"".join(panels)}\n</svg>\n'
    )


def chart(curves: Curves, quantity: str) -> Markup:
    """Return the chart of "accuracy" or "loss" for the report."""
    panel = _panel(curves, quantity, dict(curves.panels())[quantity])
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        PANEL_WIDTH, PANEL_HEIGHT, _title(curves, quantity)
    ) + Markup(panel + "</svg>")


def _title(curves: Curves, quantity: str) -> str:
    title = f"Training and held-out {quantity}" if len(curves.accuracy) > 1 else f"Training {quantity}"
    return f"{title}, {curves.title}" if curves.title else title


def _panel(curves: Curves, quantity: str, drawn: Sequence[Curve]) -> str:
    """Return the title, the legend, the axes with their ticks, and the lines of one quantity."""
    scale, epochs = _Scale.of(drawn, is_share=quantity == "accuracy"), curves.epochs
    right, bottom = PANEL_WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM
    width, height = right - LEFT, bottom - TOP

    def x(epoch: int) -> float:
        return LEFT + (width * (epoch - 1) / (epochs - 1) if epochs > 1 else width / 2)

    def y(value: float) -> float:
        return bottom - height * scale.position(value)

    parts = [_text(LEFT, 18, _title(curves, quantity), 'font-weight="bold" font-size="13"')]
    left: float = LEFT
    for number, curve in enumerate(drawn):
        parts.append(f'<line {_stroke(number)} x1="{left}" y1="38" x2="{left + 26}" y2="38"/>')
        parts.append(_text(left + 32, 42, curve.name, 'class="name"'))
        left += 52 + 6.6 * len(curve.name)
    for tick in scale.ticks:
        line = f'x1="{LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"'
        parts.append(f'<line class="grid" stroke="#dfe3e8" {line}/>')
        parts.append(_text(LEFT - 7, y(tick) + 4, scale.label(tick), 'class="tick" text-anchor="end"'))
    for epoch in epoch_ticks(epochs):
        parts.append(_text(x(epoch), bottom + 18, str(epoch), 'class="tick" text-anchor="middle"'))
    parts.append(_text((LEFT + right) / 2, PANEL_HEIGHT - 8, "epoch", 'class="name" text-anchor="middle"'))
    for number, curve in enumerate(drawn):
        points = [(x(i), y(value)) for i, value in enumerate(curve.values, 1) if value is not None]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline {_stroke(number)} fill="none" points="{path}"/>')
        if epochs <= 30:  # where they do not run into each other
            dot = f'class="dot s{number}" r="3.5" fill="{COLOURS[number]}"'
            parts += [f'<circle {dot} cx="{a:.1f}" cy="{b:.1f}"/>' for a, b in points]
    return "\n".join(parts)


def _stroke(number: int) -> str:
    dash = f' stroke-dasharray="{DASHES[number]}"' if DASHES[number] else ""
    return f'class="line s{number}" stroke="{COLOURS[number]}" stroke-width="2"{dash}'


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#333" {attributes}>{escape(text)}</text>'
