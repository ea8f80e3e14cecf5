"""The report of a fit: one HTML file with the accuracy of the model, how it was measured, and what to improve.

gather            collects the content of a report from the result of a fit
data              the content of a report
storage           ``report.json``: written beside the model, read back with every value checked
reliability       reliability diagram and risk-coverage curve
thresholds        precision and recall of each class by threshold
projection        two-dimensional map of the images
thumbnails        small images
page              the HTML page, from ``page.html.j2``, ``style.css`` and ``scripts``
check_page        the page of ``headstart check``, on which its findings are corrected
view              the variables of the page's template
charts            charts as SVG
text              names and percentages on the page
training_curves   accuracy and loss by epoch, of training and held-out images, for the terminal and as SVG
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.classifier import FitResult
from headstart.errors import ModelError, OptionError
from headstart.features import FeatureCache
from headstart.model.folder import read_model
from headstart.model.folder_files import read_json_file
from headstart.report.gather import gather
from headstart.report.page import render
from headstart.report.storage import check_page_file, read_data, write_data, write_file
from headstart.report.training_curves import curves_svg, curves_text
from headstart.report.view.run_values import RunValues
from headstart.report.view.training import read_training_curves
from headstart.stats.conformal import NOT_MEASURED

__all__ = ["rewrite_report", "training_svg", "write_report", "write_training_curves"]

PAGE = "report.html"
CURVES = "training.svg"


def write_report(result: FitResult, folder: str | os.PathLike[str], *, cache: FeatureCache | None = None) -> Path:
    """Write ``report.html`` and ``report.json`` of a fit into its model folder.

    Returns the path of the page. ``cache`` keeps small images for the next report. Raises ModelError when the folder
    cannot be written.
    """
    target = Path(folder)
    report = gather(result, cache)
    write_data(report, target)
    page = target / PAGE
    write_file(page, render(report, result.model.run, _title(target)))
    return page


def rewrite_report(folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> Path:
    """Write the page again from the ``report.json`` of a model folder, to ``output`` or into the folder.

    Returns the path of the page. Raises ModelError if the folder has no report or the report cannot be used,
    OptionError for an ``output`` that is not named like a page, or that is there and was not written by Headstart.
    """
    source = Path(folder)
    model = read_model(source)
    model.require_one_label("the report")
    if not model.thresholds.is_measured:
        raise ModelError(f"{source} has no report. {NOT_MEASURED}")
    report = read_data(source)
    if report.known_classes != len(model.classes):
        raise ModelError(
            f"{source}: report.json has {report.known_classes} classes, but the model has {len(model.classes)}; "
            "fit again."
        )
    page = source / PAGE if output is None else check_page_file(output)
    run = read_json_file(source, "run.json") if (source / "run.json").exists() else {}
    write_file(page, render(report, run, _title(source)))
    return page


def write_training_curves(run: Mapping[str, Any], folder: str | os.PathLike[str]) -> str:
    """Write ``training.svg`` of a trained model, whose ``run.json`` has epochs, and return the curves as text.

    Of a fine-tuning they are the means over its folds. The text is empty where nothing was trained. Raises ModelError
    when the file cannot be written.
    """
    curves = read_training_curves(RunValues(run))
    if curves is None:
        return ""
    write_file(Path(folder) / CURVES, curves_svg(curves))
    return f"{curves_text(curves)}\n"


def training_svg(run: Mapping[str, Any]) -> str:
    """Return the training curves of a model as an SVG image; ``run`` is its ``run.json``, as ``run_`` has it.

    Raises OptionError where nothing was trained.
    """
    curves = read_training_curves(RunValues(run))
    if curves is None:
        raise OptionError("This model was solved, not trained, so it has no training curves; use the mlp head.")
    return curves_svg(curves)


def _title(folder: Path) -> str:
    return folder.resolve().name or "model"
