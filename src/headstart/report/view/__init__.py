"""The variables of the page's template, prepared from a report and its ``run.json``.

heading           data, date, version of the model
accuracy          accuracies with their intervals; key facts of the fit
class_metrics     precision, recall and F1 of each class; what the model is good at, and what not
confusion_matrix  confusion matrices and the most frequent confusions
findings          findings of the data check by kind
activation_maps   class activation maps as overlays
calibration       mean confidence against accuracy; error rate by coverage
class_table       results by class
learning_curve    points of the learning curve
more_images       how many more images of a class to add
training          training curves of an mlp head or a fine-tuning
candidates        heads compared in the selection
details           tables of data, model, timings and versions
script_data       the data for the script
run_values        safe access to ``run.json``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.report import charts
from headstart.report.data import MAX_ERROR_GROUPS, SETS, Report, grouped_errors, lowest_margin
from headstart.report.text import SET_LABELS, SET_TITLES, clip, plain
from headstart.report.view.accuracy import facts, headlines, intervals_are_disjoint
from headstart.report.view.activation_maps import activation_map_sections
from headstart.report.view.calibration import calibration_summary
from headstart.report.view.candidates import best_candidates
from headstart.report.view.class_metrics import classes_view, verdict
from headstart.report.view.class_table import class_table
from headstart.report.view.confusion_matrix import confusion_matrix_view
from headstart.report.view.details import detail_tables
from headstart.report.view.findings import findings_by_kind
from headstart.report.view.heading import heading
from headstart.report.view.learning_curve import learning_curve
from headstart.report.view.more_images import more_images
from headstart.report.view.run_values import RunValues
from headstart.report.view.training import read_training_curves

__all__ = ["page_variables"]


def page_variables(report: Report, run: Mapping[str, Any]) -> dict[str, object]:
    """Return the variables of the template. Whatever ``run`` lacks or holds in another form is left out."""
    values = RunValues(run)
    accuracies = headlines(values)
    candidates, candidate_count = best_candidates(values)
    measured, expected = learning_curve(values)
    error_groups = grouped_errors(report.images)
    set_indices = [SETS.index(summary.name) for summary in report.evaluations]
    verdicts = [verdict(summary, report, i) for summary, i in zip(report.evaluations, set_indices, strict=True)]
    return {
        "heading": heading(report, values),
        "verdict": next((v for v in verdicts if v is not None), None),
        "class_views": [classes_view(s, report, i) for s, i in zip(report.evaluations, set_indices, strict=True)],
        "error_groups": error_groups[:MAX_ERROR_GROUPS],
        "error_group_count": len(error_groups),
        "more_images": more_images(values, report.known_classes),
        "report": report,
        "known": report.known_classes,
        "class_names": [clip(plain(name)) for name in report.classes],
        "set_titles": SET_TITLES,
        "set_labels": SET_LABELS,
        "headlines": accuracies,
        "intervals_are_disjoint": intervals_are_disjoint(accuracies),
        "facts": facts(report, values),
        "error_count": sum(summary.error_count for summary in report.evaluations),
        "matrices": [confusion_matrix_view(summary, report) for summary in report.evaluations],
        "low_margin": lowest_margin(report.images),
        "findings": findings_by_kind(report),
        "activation_maps": activation_map_sections(report),
        "class_rows": class_table(report.images),
        "calibration": [calibration_summary(s.name, s.reliability, s.risk_coverage) for s in report.evaluations],
        "reliability_chart": charts.reliability_diagram([summary.reliability for summary in report.evaluations]),
        "risk_chart": charts.risk_coverage_curve([summary.risk_coverage for summary in report.evaluations]),
        "learning_chart": charts.learning_curve(measured, expected) if measured else None,
        "learning_points": [*((point, "measured") for point in measured), *((point, "expected") for point in expected)],
        "training_curves": read_training_curves(values),
        "candidates": candidates,
        "candidate_count": candidate_count,
        "details": detail_tables(report, values),
    }
