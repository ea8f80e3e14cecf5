"""Loss and accuracy by epoch: drawn in the terminal, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH, HEIGHT = 60, 6  # characters
COLOURS = {"trained on": "#0b6e99", "kept back": "#c2571a"}  # told apart by those who see few colours, too

Record = Mapping[str, Any]  # an epoch of run.json: number, loss, accuracy, kept_back_loss, kept_back_accuracy


def curves_text(history: Sequence[Record], of: str = "") -> str:
    """Accuracy and loss on the pictures trained on, a column an epoch (or several), with the ends of the scale.

    ``of`` says which training it was, where there were several. One epoch has no curve: it is told in words.
    """
    which = f", {of}" if of else ""
    if len(history) == 1:
        return f"accuracy {history[0]['accuracy']:.3g}, loss {history[0]['loss']:.3g} after the one epoch{which}"
    lines = []
    for name in ("accuracy", "loss"):
        values = _columns([float(epoch[name]) for epoch in history])
        low, high = min(values), max(values)
        scaled = [(value - low) / (high - low) if high > low else 1.0 for value in values]
        lines.append(f"{name} by epoch, 1 to {len(history)}{which}")
        for row in reversed(range(HEIGHT)):
            cells = "".join(BLOCKS[round(8 * min(max(HEIGHT * share - row, 0), 1))] for share in scaled)
            label = {HEIGHT - 1: high, 0: low}.get(row)
            lines.append(f"{'' if label is None else f'{label:.3g}':>8} │{cells}")
    return "\n".join(lines)


def curves_svg(history: Sequence[Record]) -> str:
    """Both curves side by side, those of the pictures kept back too where there are any, as an SVG picture."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 300" font-family="sans-serif" font-size="13">',
        '<rect width="760" height="300" fill="white"/>',
    ]
    for left, name in ((60, "accuracy"), (440, "loss")):
        series = {"trained on": [epoch[name] for epoch in history]}
        if history[0].get(f"kept_back_{name}") is not None:
            series["kept back"] = [epoch[f"kept_back_{name}"] for epoch in history]
        every = [value for values in series.values() for value in values]
        low, high = (min(every), max(every)) if name == "accuracy" else (0.0, max(every))
        parts += _axes(left, name, low, high, len(history))
        for place, (label, values) in enumerate(series.items()):
            points = " ".join(
                f"{left + 280 * i / max(1, len(values) - 1):.1f},{_height(value, low, high):.1f}"
                for i, value in enumerate(values)
            )
            parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[label]}" stroke-width="2"/>')
            if len(values) == 1:  # a line of one point is not seen
                x, y = points.split(",")
                parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{COLOURS[label]}"/>')
            parts.append(f'<text x="{left + 8 + 100 * place}" y="290" fill="{COLOURS[label]}">{label}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _axes(left: int, name: str, low: float, high: float, epochs: int) -> list[str]:
    return [
        f'<path d="M{left} 40V250H{left + 280}" fill="none" stroke="#888"/>',
        f'<text x="{left}" y="25" font-weight="bold">{name}</text>',
        f'<text x="{left - 6}" y="45" text-anchor="end">{high:.3g}</text>',
        f'<text x="{left - 6}" y="254" text-anchor="end">{low:.3g}</text>',
        f'<text x="{left + 280}" y="268" text-anchor="end">epoch {epochs}</text>',
    ]


def _height(value: float, low: float, high: float) -> float:
    return 250 - 210 * ((value - low) / (high - low) if high > low else 1.0)


def _columns(values: list[float]) -> list[float]:
    """At most ``WIDTH`` values: means of runs of equal length."""
    count = min(WIDTH, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
