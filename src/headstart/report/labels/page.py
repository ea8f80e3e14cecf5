"""The page of a report of several labels an image, made as ``headstart.report.page`` makes that of one label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.files import json_text
from headstart.report.charts import table_bar
from headstart.report.labels.data import LabelReport
from headstart.report.labels.view import label_page_variables, label_script_data
from headstart.report.page import Thumbnails, json_element, render_template
from headstart.stats.label_thresholds import LabelThresholds

SCRIPTS = ("elements.js", "fold.js", "images.js", "labels.js", "viewer.js")


def render_labels(report: LabelReport, thresholds: LabelThresholds, run: Mapping[str, Any], title: str) -> str:
    """Return the page of a report of several labels, its thresholds and ``run.json`` as HTML, as ``render`` does."""
    return render_template(
        "labels.html.j2",
        SCRIPTS,
        **label_page_variables(report, thresholds, run),
        title=title,
        script_data=json_element(json_text(label_script_data(report), separators=(",", ":"))),
        is_first_use=Thumbnails(report.thumbnails).is_first_use,
        table_bar=table_bar,
    )
