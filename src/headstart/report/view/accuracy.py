"""The accuracies of a fit with their intervals, and the key facts below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from headstart.report import charts
from headstart.report.data import Report
from headstart.report.text import SET_TITLES, clip, plain
from headstart.report.view.run_values import RunValues, finite_number
from headstart.stats.accuracy import disjoint

EXPLANATIONS = {
    "validation": "The model has not learned from these images.",
    "leave_group_out": (
        "Each image was judged by a model that had seen neither this image nor others of its group: copies, or images "
        "of the same scene."
    ),
}


@dataclass(frozen=True)
class Headline:
    """Accuracy on one of ``SETS``: counts, share with its 95% interval and the method of the interval, and a chart."""

    title: str
    explanation: str
    correct: int
    count: int
    value: float
    low: float
    high: float
    method: str
    chart: Markup


def headlines(run: RunValues) -> list[Headline]:
    """Return the consistent accuracies of ``run.json``, that of the validation images first, all on one scale."""
    result = []
    for name, title in SET_TITLES.items():
        correct, count = run.number("accuracy", name, "correct"), run.number("accuracy", name, "count")
        value, interval = run.number("accuracy", name, "value"), run.interval("accuracy", name, "interval")
        if correct is None or count is None or value is None or interval is None:
            continue
        low, high = interval
        if count > 0 and 0 <= low <= value <= high <= 1:
            headline = Headline(
                title=title,
                explanation=EXPLANATIONS[name],
                correct=int(correct),
                count=int(count),
                value=value,
                low=low,
                high=high,
                method=run.text("accuracy", name, "method"),
                chart=Markup(),
            )
            result.append(headline)
    start = charts.scale_start([headline.low for headline in result])
    return [replace(h, chart=charts.interval_bar(h.value, h.low, h.high, start)) for h in result]


def intervals_are_disjoint(accuracies: Sequence[Headline]) -> bool:
    """Return whether there are two accuracies whose intervals do not overlap."""
    if len(accuracies) != 2:
        return False
    first, second = accuracies
    return disjoint((first.low, first.high), (second.low, second.high))


def _costs(run: RunValues) -> list[tuple[str, str]]:
    """Return titles and values of the mean costs, those of the validation images first."""
    rows = []
    for name, title in SET_TITLES.items():
        value, interval = run.number("cost", name, "value"), run.interval("cost", name, "interval")
        if value is not None and interval is not None:
            text = f"{value:.4g} per image (95% interval {interval[0]:.4g} to {interval[1]:.4g})"
            rows.append((f"Mean cost, {title[:1].lower()}{title[1:]}", text))
    return rows


def facts(report: Report, run: RunValues) -> list[tuple[str, str]]:
    """Return titles and values of the key facts: classes, images, groups, backbone, head, time."""
    return [("Classes", f"{report.known_classes:,}"), *run_facts(run)]


def _head(run: RunValues) -> str:
    """Return the kind of the head; of an average its parts' kinds, and how many they are, as ``fit`` prints them."""
    candidates = run.get("candidates")
    listed = [c for c in candidates if isinstance(c, Mapping)] if isinstance(candidates, list) else []
    parts = [c for c in listed if (finite_number(c.get("weight")) or 0) > 0]
    if len(parts) < 2:
        return run.text("head", "kind")
    kinds = sorted({clip(plain(str(part.get("kind")))) for part in parts}, reverse=True)
    return f"{clip(' and '.join(kinds))} (average of {len(parts):,})"


def run_facts(run: RunValues) -> list[tuple[str, str]]:
    """Return titles and values of the key facts that ``run.json`` has of every fit."""
    training, validation = run.number("images", "train"), run.number("images", "validation")
    groups, largest = run.number("groups", "count"), run.number("groups", "largest")
    seconds = run.number("seconds", "total")
    rows = []
    if training is not None:
        rows.append(("Images", f"{training:,.0f} training" + (f", {validation:,.0f} validation" if validation else "")))
    if groups is not None and largest is not None:
        rows.append(("Groups", f"{groups:,.0f}, the largest of {largest:,.0f}"))
    fine_tuned = run.get("fine_tuning", "kept") == "fine-tuned"
    rows.append(("Backbone", run.text("backbone", "id") + (", fine-tuned" if fine_tuned else "")))
    cut = run.get("cut")
    taps = ", ".join(map(str, cut)) if isinstance(cut, list) else ""
    rows.append(("Head", f"{_head(run)} on {clip(plain(taps))}"))
    rows.append(("Decision", run.text("decision", "description")))
    rows += _costs(run)
    if seconds is not None:
        rows.append(("Fit time", f"{seconds:.1f} s"))
    return [(title, value) for title, value in rows if value]
