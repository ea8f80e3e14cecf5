"""What the page is about: the data, the day, the model and the program."""

from __future__ import annotations

from pathlib import PurePosixPath

from headstart.report.data import Report
from headstart.report.labels.data import LabelReport
from headstart.report.text import clip, plain
from headstart.report.view.run_values import RunValues


def heading(report: Report | LabelReport, run: RunValues) -> list[tuple[str, str]]:
    """Return names and values for the head of the page; what is not known is left out."""
    rows = [
        ("Data", PurePosixPath(run.text("data", "uri").rstrip("/")).name),
        ("Date", run.text("date")[:10] or clip(plain(report.date), 10)),
        ("Model version", run.text("version")),
        ("Author", run.text("author")),
        ("Backbone", run.text("backbone", "id")),
        ("Made with", f"Headstart {run.text('versions', 'headstart')}".strip()),
    ]
    return [(name, value) for name, value in rows if value]
