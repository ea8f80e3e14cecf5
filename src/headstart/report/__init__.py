"""The report of a fit: one HTML file with the accuracy of the model, how it was measured, and what to improve.

gather            collects the content of a report from a fit
data              the content of a report
storage           ``report.json``: written beside the model, read back with every value checked
reliability       reliability diagram and risk-coverage curve
projection        two-dimensional map of the images
thumbnails        small images
page              the HTML page, from ``page.html.j2``, ``style.css`` and ``script.js``
view              the variables of the page's template
charts            charts as SVG
text              names and percentages on the page
training_curves   loss and accuracy by epoch, for the terminal and as SVG
"""

from __future__ import annotations

import os
from pathlib import Path

from headstart.classifier import ImageClassifier
from headstart.errors import ModelError
from headstart.features.cache import FeatureCache
from headstart.model import read
from headstart.report.gather import gather
from headstart.report.page import render
from headstart.report.storage import read_data, write_data, write_file

__all__ = ["rewrite", "write"]

PAGE = "report.html"


def write(classifier: ImageClassifier, folder: str | os.PathLike[str], *, cache: FeatureCache | None = None) -> Path:
    """Write ``report.html`` and ``report.json`` of a classifier fitted in this process into its model folder.

    Returns the path of the page. ``cache`` keeps small images for the next report. Raises OptionError for a classifier
    that was loaded from a folder, ModelError when the folder cannot be written.
    """
    target = Path(folder)
    report = gather(classifier, cache)
    write_data(report, target)
    page = target / PAGE
    write_file(page, render(report, classifier.run_, _title(target)))
    return page


def rewrite(folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> Path:
    """Write the page again from the ``report.json`` of a model folder, to ``output`` or into the folder.

    Returns the path of the page. Raises ModelError if the folder has no report or the report cannot be used.
    """
    source = Path(folder)
    model = read(source)
    report = read_data(source)
    if report.known_classes != len(model.classes):
        raise ModelError(
            f"{source}: report.json has {report.known_classes} classes, but the model has {len(model.classes)}; "
            "fit again."
        )
    page = source / PAGE if output is None else Path(output)
    if page.is_dir():
        raise ModelError(f"{page} is a folder; give the name of a file for the report.")
    write_file(page, render(report, model.run, _title(source)))
    return page


def _title(folder: Path) -> str:
    return folder.resolve().name or "model"
