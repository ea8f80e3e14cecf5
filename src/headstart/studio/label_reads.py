"""What routes that read answer where images have several labels; their other answers are those of ``api_reads``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from headstart.check.finding import MISSING, Finding
from headstart.studio.label_figures import LabelFigures, open_issues
from headstart.studio.label_sets import UNKNOWN, is_cell_accepted, state_of
from headstart.studio.records import ImageRecord
from headstart.studio.requests import Studio
from headstart.studio.state import Records

LABEL_COLUMNS = (
    *("id", "labels", "unknown", "group", "suspicion", "uncertainty", "predicted", "issues", "status", "accepted"),
    *("name", "split", "unpredicted"),
)
NO_CHOICE = "no model has been chosen yet that could know it"


def state_values(studio: Studio) -> dict[str, Any]:
    """Return what the state says of the labels."""
    counts = studio.engine.label_counts
    rows = zip(counts.classes, counts.present.tolist(), counts.unknown.tolist(), counts.reasons, strict=True)
    return {
        "classes": [{"name": n, "images": p, "unknown": u, "learned": not why, "why": why} for n, p, u, why in rows],
        "unlabelled": counts.unlabelled,
        "without": counts.without,
    }


def image_rows(
    studio: Studio, classes: tuple[str, ...], records: list[ImageRecord], status: dict[str, str]
) -> list[list[Any]]:
    """Return a row of LABEL_COLUMNS for each image; ``classes`` and ``records`` are of one state."""
    figures = label_figures_of(studio)
    number = {name: i for i, name in enumerate(classes)}
    places = {} if figures is None else {id: i for i, id in enumerate(figures.ids)}
    uncertainty = [] if figures is None else figures.uncertainty.round(4).tolist()
    rows: list[list[Any]] = []
    for record in records:
        place, issues = places.get(record.id), open_issues(figures, record)
        suspicion = predicted = doubt = None
        unpredicted: list[int] = []
        if figures is not None and place is not None:
            suspicion = max((round(max(f.confidence, 1e-4), 4) for f in issues), default=0.0)
            if not math.isnan(uncertainty[place]):  # of at least one label something is predicted
                predicted = [number[name] for name in figures.holding(place) if name in number]
                unpredicted = [number[name] for name in figures.unpredicted(place) if name in number]
                doubt = uncertainty[place]
        cell = record.labels
        labels = None if cell is None else sorted(number[name] for name in cell.present)
        unknown = [] if cell is None else sorted(number[name] for name in cell.unknown)
        if cell is not None and cell.rest:
            unknown = [i for i, name in enumerate(classes) if name not in cell.present]
        cells = [[number[f.suggested_label], f.state] for f in issues if f.suggested_label in number]
        rows.append(
            [
                *(record.id, labels, unknown, record.group),
                *(suspicion, doubt, predicted, cells, status[record.id], record.is_accepted, record.path, record.split),
                unpredicted,
            ]
        )
    return rows


def image_values(studio: Studio, classes: tuple[str, ...], record: ImageRecord) -> dict[str, Any]:
    """Return what is known of the labels of one image; ``classes`` are of the state that ``record`` is of."""
    figures = label_figures_of(studio)
    place = None if figures is None or record.id not in figures.ids else figures.ids.index(record.id)
    values: dict[str, Any] = {
        "labelled": record.is_labelled,
        "labels": [{"label": name, "state": state_of(record.labels, name)} for name in classes],
        "accepted": record.is_accepted,
        "accepted_labels": [name for name in classes if is_cell_accepted(record, name)],
        "issues": [_issue(finding) for finding in open_issues(figures, record)],
        "probabilities": None,
    }
    if figures is not None and place is not None:
        row, is_measured = figures.probabilities[place], place < figures.measured
        order = [c for c in np.argsort(-row, kind="stable").tolist() if not math.isnan(row[c])]
        values["probabilities"] = [
            {
                "label": figures.names[c],
                "score": float(row[c]),
                "threshold": float(figures.thresholds[c]),
                "holds": bool(row[c] >= figures.thresholds[c]),
                "held_out": is_measured and state_of(record.labels, figures.names[c]) != UNKNOWN,
            }
            for c in order
        ]
    return values


def evaluation_values(studio: Studio) -> dict[str, Any]:
    """Return the numbers of each label, and why others have none."""
    figures, counts, full = label_figures_of(studio), studio.engine.label_counts, studio.engine.full
    unlearned = "the model of the last full choice does not know it" if full is not None else NO_CHOICE
    reasons = zip(counts.classes, counts.reasons, strict=True)
    names = () if figures is None else figures.names
    left_out = [{"name": name, "why": why or unlearned} for name, why in reasons if name not in names]
    if figures is None:
        return {"mean_average_precision": None, "by_label": [], "left_out": left_out}
    return {**figures.evaluation(), **figures.overall(), "by_label": figures.by_label(), "left_out": left_out}


def issue_list(studio: Studio, records: Records) -> list[dict[str, Any]]:
    """Return the cells of images that look wrong, most confident first."""
    figures = label_figures_of(studio)
    if figures is None:
        return []
    found = [(id, finding) for id in figures.issues if id in records for finding in open_issues(figures, records[id])]
    found.sort(key=lambda pair: -pair[1].confidence)
    return [{"id": id, **_issue(finding)} for id, finding in found]


def uncertain_list(studio: Studio, records: Records, limit: int) -> list[dict[str, Any]]:
    """Return the images of which a label is nearest to a half, most uncertain first."""
    figures = label_figures_of(studio)
    if figures is None:
        return []
    uncertainty = figures.uncertainty
    found: list[dict[str, Any]] = []
    for row in np.argsort(-np.nan_to_num(uncertainty, nan=-1), kind="stable").tolist():
        id = figures.ids[row]
        if len(found) >= limit or math.isnan(uncertainty[row]):
            break
        if id in records:
            label = figures.uncertain_label(row)
            found.append(
                {
                    "id": id,
                    "label": figures.names[label],
                    "state": state_of(records[id].labels, figures.names[label]),
                    "probability": float(figures.probabilities[row, label]),
                    "uncertainty": float(uncertainty[row]),
                }
            )
    return found


def label_figures_of(studio: Studio) -> LabelFigures | None:
    """Return the figures of the labels as they are now, None where nothing can be said."""
    figures = studio.engine.figures()
    assert figures is None or isinstance(figures, LabelFigures)
    return figures


def _issue(finding: Finding) -> dict[str, Any]:
    return {
        "label": finding.suggested_label,
        "state": finding.state,
        "probability": (1 + finding.confidence * (1 if finding.state == MISSING else -1)) / 2,
        "confidence": finding.confidence,
        "certainty": finding.certainty,
        "why": finding.why,
    }
