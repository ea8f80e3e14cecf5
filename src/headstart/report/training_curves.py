"""Training curves: loss and accuracy by epoch, as text for the terminal and as an SVG image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH, HEIGHT = 60, 6  # characters
COLOURS = {"training": "#0b6e99", "validation": "#c2571a"}  # distinguishable with colour vision deficiency

Record = Mapping[str, Any]  # epoch in run.json: number, loss, accuracy, validation_loss, validation_accuracy


def curves_text(history: Sequence[Record], name: str = "") -> str:
    """Draw training accuracy and loss, one column per epoch (or per several), with the ends of the scale.

    ``name`` identifies the training if there are several. A single epoch is reported as a sentence.
    """
    suffix = f", {name}" if name else ""
    if len(history) == 1:
        return f"accuracy {history[0]['accuracy']:.3g}, loss {history[0]['loss']:.3g} after one epoch{suffix}"
    lines = []
    for quantity in ("accuracy", "loss"):
        values = _columns([float(epoch[quantity]) for epoch in history])
        low, high = min(values), max(values)
        shares = [(value - low) / (high - low) if high > low else 1.0 for value in values]
        lines.append(f"{quantity} by epoch, 1 to {len(history)}{suffix}")
        for row in reversed(range(HEIGHT)):
            cells = "".join(BLOCKS[round(8 * min(max(HEIGHT * share - row, 0), 1))] for share in shares)
            label = {HEIGHT - 1: high, 0: low}.get(row)
            lines.append(f"{'' if label is None else f'{label:.3g}':>8} │{cells}")
    return "\n".join(lines)


def curves_svg(history: Sequence[Record]) -> str:
    """Draw accuracy and loss side by side as an SVG image, with the validation curves where there are any."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 300" font-family="sans-serif" font-size="13">',
        '<rect width="760" height="300" fill="white"/>',
    ]
    for left, quantity in ((60, "accuracy"), (440, "loss")):
        series = {"training": [epoch[quantity] for epoch in history]}
        if history[0].get(f"validation_{quantity}") is not None:
            series["validation"] = [epoch[f"validation_{quantity}"] for epoch in history]
        parts += _panel(left, quantity, series)
    return "\n".join([*parts, "</svg>\n"])


def _panel(left: int, quantity: str, series: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the axes and the lines of one quantity, with the names of the series below them."""
    values = [value for curve in series.values() for value in curve]
    low, high = (min(values) if quantity == "accuracy" else 0.0), max(values)
    epochs = len(series["training"])
    parts = [
        f'<path d="M{left} 40V250H{left + 280}" fill="none" stroke="#888"/>',
        f'<text x="{left}" y="25" font-weight="bold">{quantity}</text>',
        f'<text x="{left - 6}" y="45" text-anchor="end">{high:.3g}</text>',
        f'<text x="{left - 6}" y="254" text-anchor="end">{low:.3g}</text>',
        f'<text x="{left + 280}" y="268" text-anchor="end">epoch {epochs}</text>',
    ]
    for number, (name, curve) in enumerate(series.items()):
        points = " ".join(
            f"{left + 280 * i / max(1, len(curve) - 1):.1f},{_y(value, low, high):.1f}" for i, value in enumerate(curve)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        if len(curve) == 1:  # a line of a single point is invisible
            x, y = points.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{COLOURS[name]}"/>')
        parts.append(f'<text x="{left + 8 + 100 * number}" y="290" fill="{COLOURS[name]}">{name}</text>')
    return parts


def _y(value: float, low: float, high: float) -> float:
    return 250 - 210 * ((value - low) / (high - low) if high > low else 1.0)


def _columns(values: list[float]) -> list[float]:
    """Average runs of equal length, so that at most ``WIDTH`` values remain."""
    count = min(WIDTH, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
