"""Tables of the data, the model, the timings and the versions of a fit."""

from __future__ import annotations

from pathlib import PurePosixPath

from headstart.report.data import Report
from headstart.report.labels.data import LabelReport
from headstart.report.text import clip
from headstart.report.view.run_values import RunValues

Rows = list[tuple[str, str]]


def detail_tables(report: Report | LabelReport, run: RunValues) -> list[tuple[str, Rows]]:
    """Return the tables with their titles; rows without a value are left out."""
    tables = [
        ("Data", _data(run)),
        ("Model", _model(run)),
        ("Timings", _timings(report, run)),
        ("Versions", run.entries("versions")),
    ]
    return [
        (title, [(clip(name), clip(value)) for name, value in rows if value.strip()]) for title, rows in tables if rows
    ]


def _data(run: RunValues) -> Rows:
    return [
        ("Name", PurePosixPath(run.text("data", "uri")).name),
        ("Fingerprint", run.text("data", "fingerprint")),
        ("Training images", _count(run, "images", "train")),
        ("Validation images", _count(run, "images", "validation")),
        ("Grouping", run.text("groups", "method")),
        *((f"Skipped: {name}", value) for name, value in run.entries("images", "skipped")),
    ]


def _model(run: RunValues) -> Rows:
    return [
        ("Backbone", run.text("backbone", "id")),
        ("Backbone licence", run.text("backbone", "licence")),
        ("Backbone hash (SHA-256)", run.text("backbone", "sha256")),
        *((f"Head: {name}", value) for name, value in run.entries("head")),
        *((f"Class weight: {name}", value) for name, value in run.entries("class_weight", "weights")),
        ("Fine-tuning: selected", run.text("fine_tuning", "kept")),
        ("Fine-tuning: first trained layer", run.text("fine_tuning", "unfrozen_from")),
        ("Runtime", " ".join(run.text("runtime", key) for key in ("name", "version", "precision"))),
        ("Random seed", _count(run, "seed")),
    ]


def _timings(report: Report | LabelReport, run: RunValues) -> Rows:
    return [
        ("Fit, total", _seconds(run, "total")),
        ("Decoding, all threads", _seconds(run, "decode")),
        ("Backbone, all threads", _seconds(run, "features")),
        ("Head selection", _seconds(run, "head")),
        ("Report", f"{report.seconds:.2f} s"),
        ("Images from the cache", _count(run, "cache", "hits")),
        ("Images computed", _count(run, "cache", "misses")),
    ]


def _count(run: RunValues, *path: str) -> str:
    value = run.number(*path)
    return "" if value is None else f"{value:,.0f}"


def _seconds(run: RunValues, name: str) -> str:
    value = run.number("seconds", name)
    return "" if value is None else f"{value:.2f} s"
