"""The report of a fit: one HTML file with the accuracy of the model, how it was measured, and what to improve.

gather            collects the content of a report from the result of a fit
data              the content of a report
labels            the same for several labels an image: content, gathering, storage, page, variables
shown             which images are shown one by one, and which of them show one scene
storage           ``report.json``: written beside the model, read back with every value checked
values            checks of single values that were read
reliability       reliability diagram and risk-coverage curve
thresholds        precision and recall of each class by threshold
projection        two-dimensional map of the images
thumbnails        small images
page              the HTML page, from a template, ``style.css`` and ``scripts``
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
from typing import TYPE_CHECKING, Any, TypeVar

from headstart.classifier import FitResult
from headstart.errors import ModelError, OptionError
from headstart.features import FeatureCache
from headstart.model.folder import read_model
from headstart.model.folder_files import read_json_file
from headstart.model.model import Model
from headstart.report.gather import gather
from headstart.report.page import render
from headstart.report.shown import MAX_TEXT
from headstart.report.storage import check_page_file, read_data, write_data, write_file
from headstart.report.training_curves import curves_svg, curves_text
from headstart.report.view.run_values import RunValues
from headstart.report.view.training import read_training_curves
from headstart.stats.conformal import NOT_MEASURED

if TYPE_CHECKING:
    from headstart.classifier import MultiLabelFitResult
    from headstart.report.labels.data import LabelReport

AnyFitResult = TypeVar("AnyFitResult", bound="FitResult | MultiLabelFitResult")

__all__ = ["rewrite_report", "training_svg", "write_report", "write_training_curves"]

PAGE = "report.html"
CURVES = "training.svg"


def write_report(result: AnyFitResult, folder: str | os.PathLike[str], *, cache: FeatureCache | None = None) -> Path:
    """Write ``report.html`` and ``report.json`` of a fit into its model folder.

    Returns the path of the page. ``cache`` keeps small images for the next report. Raises ModelError when the folder
    cannot be written.
    """
    target = Path(folder)
    if isinstance(result, FitResult):
        report = gather(result, cache)
        write_data(report, target)
        html = render(report, result.model.run, _title(target))
    else:
        from headstart.report.labels.gather import gather_labels  # needed by few fits
        from headstart.report.labels.storage import write_label_data

        of_labels = gather_labels(result, cache)
        write_label_data(of_labels, target)
        html = _label_page(of_labels, result.model, result.model.run, target)
    page = target / PAGE
    write_file(page, html)
    return page


def rewrite_report(folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> Path:
    """Write the page again from the ``report.json`` of a model folder, to ``output`` or into the folder.

    Returns the path of the page. Raises ModelError if the folder has no report or the report cannot be used,
    OptionError for an ``output`` that is not named like a page, or that is there and was not written by Headstart.
    """
    source = Path(folder)
    model = read_model(source)
    if not model.is_multi_label and not model.thresholds.is_measured:
        raise ModelError(f"{source} has no report. {NOT_MEASURED}")
    page = source / PAGE if output is None else check_page_file(output)
    run = read_json_file(source, "run.json") if (source / "run.json").exists() else {}
    if model.is_multi_label:
        from headstart.report.labels.storage import read_label_data

        of_labels = read_label_data(source)
        if of_labels.labels != tuple(name[:MAX_TEXT] for name in model.classes):
            raise ModelError(f"{source}: report.json has other labels than the model; fit again.")
        html = _label_page(of_labels, model, run, source)
    else:
        report = read_data(source)
        if report.known_classes != len(model.classes):
            raise ModelError(
                f"{source}: report.json has {report.known_classes} classes, but the model has {len(model.classes)}; "
                "fit again."
            )
        html = render(report, run, _title(source))
    write_file(page, html)
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


def _label_page(report: LabelReport, model: Model, run: Mapping[str, Any], folder: Path) -> str:
    from headstart.report.labels.page import render_labels

    assert model.label_thresholds is not None
    return render_labels(report, model.label_thresholds, run, _title(folder))


def _title(folder: Path) -> str:
    return folder.resolve().name or "model"
