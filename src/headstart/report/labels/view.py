"""The variables of the page's template of several labels, and the data that its script reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from headstart.check.finding import MISSING, WRONG
from headstart.report import charts
from headstart.report.data import SETS
from headstart.report.labels.data import LabelCounts, LabelReport, LabelSummary, Suspect
from headstart.report.text import SET_LABELS, SET_TITLES, clip, clip_start, plain
from headstart.report.view.accuracy import EXPLANATIONS, run_facts
from headstart.report.view.calibration import calibration_summary
from headstart.report.view.candidates import best_candidates
from headstart.report.view.confusion_matrix import MANY_CLASSES, by_similarity, shade
from headstart.report.view.details import detail_tables
from headstart.report.view.heading import heading
from headstart.report.view.run_values import RunValues
from headstart.report.view.script_data import MAX_PATH
from headstart.stats.accuracy import target_text
from headstart.stats.label_thresholds import CONFIDENCE, DEFAULT, LabelThresholds

MAX_ROWS = 100  # labels of a table
RECALLS = tuple(i / 10 for i in range(1, 11))  # of the data table of a curve
OVERALL = {  # keys of the metrics in run.json, and what they are called
    "mean_average_precision": "mean average precision (mAP)",
    "micro_f1": "micro F1, of all labels of all images together",
    "macro_f1": "macro F1, the mean of the labels",
    "exact_match": "images of which every label is right",
}
KINDS = {  # title and description of each kind of suspects
    MISSING: (
        "Label perhaps missing",
        "The image is labelled without it, and the model, which has not learned from the image, finds it more probable "
        "than not, and at least as probable as it is on average on images that have it.",
    ),
    WRONG: (
        "Label perhaps wrong",
        "The image is labelled with it, and the model, which has not learned from the image, finds it less probable "
        "than not, and at most as probable as it is on average on images without it. Of a label that is hard to see "
        "this is common.",
    ),
}


@dataclass(frozen=True)
class Metric:
    """A metric, 0 to 1, with its 95% interval where that is known; the value is None where it is not defined."""

    value: float | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Headline:
    """Mean average precision on one of ``SETS``, with its chart, and the other metrics of all labels by their names."""

    title: str
    explanation: str
    value: float
    low: float
    high: float
    chart: Markup
    metrics: Mapping[str, Metric]


@dataclass(frozen=True)
class LabelRow:
    """Metrics of one label, how often it is right and wrong, from which probability on it is said, and the promise."""

    label: int
    average_precision: Metric
    precision: Metric
    recall: Metric
    f1: Metric
    counts: LabelCounts
    threshold: float
    is_promised: bool


@dataclass(frozen=True)
class LabelTable:
    """The labels of one of ``SETS``, the lowest average precision first where not all are shown."""

    title: str
    rows: tuple[LabelRow, ...]
    hidden: int


@dataclass(frozen=True)
class CurveView:
    """The curves of one label: the chart, and for each set its name, threshold's recall and precision, and points."""

    label: int
    chart: Markup
    sets: tuple[tuple[str, LabelCounts, tuple[tuple[float, float], ...]], ...]


@dataclass(frozen=True)
class PairMatrix:
    """How many images have two labels at once: rows of (label, cells), and cells of (label, count, shade)."""

    set_index: int
    what: str
    title: str
    columns: tuple[int, ...]
    rows: tuple[tuple[int, tuple[tuple[int, int, int], ...]], ...]
    is_clustered: bool


def label_page_variables(report: LabelReport, thresholds: LabelThresholds, run: Mapping[str, Any]) -> dict[str, object]:
    """Return the variables of the template. Whatever ``run`` lacks or holds in another form is left out."""
    values = RunValues(run)
    candidates, candidate_count = best_candidates(values)
    evaluations = report.evaluations
    return {
        "report": report,
        "known": len(report.labels),
        "class_names": [clip(plain(name)) for name in report.labels],
        "set_labels": SET_LABELS,
        "heading": heading(report, values),
        "headlines": headlines(values),
        "overall": OVERALL,
        "thresholds": thresholds,
        "promise": promise(thresholds),
        "facts": [("Labels", values.text("labels").removeprefix("multi-label: ")), *run_facts(values)],
        "tables": [label_table(summary, thresholds, values) for summary in evaluations],
        "curves": label_curves(report),
        "pairs": [matrix for summary in evaluations for matrix in pair_matrices(summary)],
        "suspects": suspects_by_kind(report),
        "calibration": [calibration_summary(summary.name, summary.reliability) for summary in evaluations],
        "reliability_chart": charts.reliability_diagram(
            [summary.reliability for summary in evaluations], "share of them that hold"
        ),
        "candidates": candidates,
        "candidate_count": candidate_count,
        "details": detail_tables(report, values),
    }


def label_script_data(report: LabelReport) -> dict[str, object]:
    """Return the data for the script: of each cell the label, its probability in percent, and a sum.

    The sum is of 1 where the image has the label, 2 where it is said to have it, and 4 where it is not known.
    """
    images = report.images
    used = {cell.label for image in images for cell in image.cells}
    return {
        "labelNames": [clip(plain(name)) if c in used else "" for c, name in enumerate(report.labels)],
        "paths": [clip_start(plain(image.path), MAX_PATH) for image in images],
        "setIndex": [image.set_index for image in images],
        "cells": [
            [
                [
                    cell.label,
                    round(100 * cell.probability, 1),
                    bool(cell.is_true) + 2 * cell.is_said + 4 * (cell.is_true is None),
                ]
                for cell in image.cells
            ]
            for image in images
        ],
        "unknown": [image.unknown for image in images],
        "tileSide": report.sprite.side,
        "spriteColumns": report.sprite.columns,
        "setLabels": [SET_LABELS[name] for name in SETS],
    }


def headlines(run: RunValues) -> list[Headline]:
    """Return the consistent metrics of ``run.json``, those of the validation images first, all on one scale."""
    result = []
    for name, title in SET_TITLES.items():
        of_set = RunValues({key: run.get("metrics", name, key) for key in OVERALL})
        metrics = {key: _metric(of_set, key) for key in OVERALL}
        mean = metrics["mean_average_precision"]
        if mean.value is not None and mean.interval is not None:
            result.append(Headline(title, EXPLANATIONS[name], mean.value, *mean.interval, Markup(), metrics))
    start = charts.scale_start([headline.low for headline in result])
    return [replace(h, chart=charts.interval_bar(h.value, h.low, h.high, start)) for h in result]


def promise(thresholds: LabelThresholds) -> str:
    """Say in a sentence what the thresholds promise."""
    if not thresholds.target:
        return (
            f"A label holds from a probability of {DEFAULT} on, which makes the fewest mistakes and promises nothing; "
            "--target-recall or --target-precision promises more."
        )
    confidence = f" with a confidence of {CONFIDENCE:.0%}" if thresholds.target == "precision" else " on average"
    return (
        f"A {thresholds.target} of {target_text(thresholds.share)} is promised{confidence} for "
        f"{sum(thresholds.is_promised)} of {len(thresholds.is_promised)} labels, on new groups of images "
        "that come from where these came from."
    )


def label_table(summary: LabelSummary, thresholds: LabelThresholds, run: RunValues) -> LabelTable:
    """Return the table of the labels of one set; metrics that ``run.json`` lacks come from the counts."""
    entries = run.get("metrics", summary.name, "per_label")
    is_whole = isinstance(entries, list) and len(entries) == len(summary.counts)
    rows = []
    for c, counts in enumerate(summary.counts):
        entry = entries[c] if is_whole and isinstance(entries[c], Mapping) else {}
        of_label = RunValues(entry)
        precision, recall = _metric(of_label, "precision"), _metric(of_label, "recall")
        rows.append(
            LabelRow(
                c,
                _metric(of_label, "average_precision"),
                precision if entry else Metric(counts.precision),
                recall if entry else Metric(counts.recall),
                _metric(of_label, "f1") if counts.found + counts.missed else Metric(None),
                counts,
                thresholds.thresholds[c],
                thresholds.is_promised[c],
            )
        )
    if len(rows) > MAX_ROWS:
        rows.sort(key=lambda row: 2 if row.average_precision.value is None else row.average_precision.value)
    return LabelTable(SET_TITLES[summary.name], tuple(rows[:MAX_ROWS]), len(rows) - len(rows[:MAX_ROWS]))


def label_curves(report: LabelReport) -> list[CurveView]:
    """Return the curves of each label that has some, in the order of the first set that has it."""
    of_label: dict[int, list[tuple[str, LabelCounts, tuple[tuple[float, float], ...]]]] = {}
    for summary in report.evaluations:
        for curve in summary.curves:
            found = (SET_TITLES[summary.name], summary.counts[curve.label], curve.points)
            of_label.setdefault(curve.label, []).append(found)
    return [
        CurveView(
            label,
            charts.precision_recall_curve([(points, _at(counts)) for _, counts, points in sets]),
            tuple((title, counts, tuple(_at_recalls(points))) for title, counts, points in sets),
        )
        for label, sets in of_label.items()
    ]


def _at(counts: LabelCounts) -> tuple[float, float] | None:
    recall, precision = counts.recall, counts.precision
    return None if recall is None or precision is None else (recall, precision)


def _at_recalls(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return for each of ``RECALLS`` the highest precision of a point with at least that recall."""
    rows = []
    for least in RECALLS:
        reached = [precision for recall, precision in points if recall >= least - 1e-9]
        if reached:
            rows.append((least, max(reached)))
    return rows


def pair_matrices(summary: LabelSummary) -> list[PairMatrix]:
    """Return how often two labels are on one image, by the labels and by what is said, in one order of the labels."""
    true, said = (
        {(a, b): count for a, b, count in pairs} | {(b, a): count for a, b, count in pairs}
        for pairs in (summary.true_pairs, summary.said_pairs)
    )
    labels = sorted({a for a, _ in (*true, *said)})
    is_clustered = len(labels) > MANY_CLASSES
    if is_clustered:
        labels = by_similarity(labels, true, {a: true.get((a, a), 0) for a in labels})
    title = SET_TITLES[summary.name]
    return [
        PairMatrix(
            SETS.index(summary.name),
            what,
            f"{begin}, {title}",
            tuple(labels),
            tuple((a, tuple((b, counts.get((a, b), 0), _shade(counts, a, b)) for b in labels)) for a in labels),
            is_clustered,
        )
        for what, begin, counts in (("true", "As labelled", true), ("said", "As predicted", said))
    ]


def _shade(counts: Mapping[tuple[int, int], int], a: int, b: int) -> int:
    return shade(counts.get((a, b), 0), max(1, counts.get((a, a), 0)))


def suspects_by_kind(report: LabelReport) -> list[tuple[str, str, str, int, list[Suspect]]]:
    """Return kind, title, description, number and the first of the suspects of each kind that there are."""
    found = []
    for kind, (title, description) in KINDS.items():
        members = [suspect for suspect in report.suspects if suspect.kind == kind]
        if members:
            found.append((kind, title, description, report.suspect_counts.get(kind, len(members)), members))
    return found


def _metric(run: RunValues, key: str) -> Metric:
    """Return a metric whose numbers are shares that agree with each other, else one that is not defined."""
    value, interval = run.number(key, "value"), run.interval(key, "interval")
    if value is None or interval is None or not 0 <= interval[0] <= value <= interval[1] <= 1:
        return Metric(None)
    return Metric(value, interval)
