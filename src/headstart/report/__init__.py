"""The report: one HTML file that says how good a model is, how that was measured, and what to mend.

gather.py     from a fit to the data of the report
data.py       the data: written beside the model, read back and checked
pictures.py   small pictures
layout.py     the map
evidence.py   where the head looked
curves.py     reliability, risk
charts.py     SVG
view.py       what the page shows
page.py       the page
"""

from __future__ import annotations

import os
from pathlib import Path

from headstart.classifier import ImageClassifier
from headstart.errors import ModelError
from headstart.features.cache import FeatureCache
from headstart.model import read
from headstart.report.data import read_data, write_data, write_whole
from headstart.report.gather import gather
from headstart.report.page import render

__all__ = ["rewrite", "write"]

NAME = "report.html"


def write(classifier: ImageClassifier, folder: str | os.PathLike[str], *, cache: FeatureCache | None = None) -> Path:
    """Write ``report.html``, and the data it was made of, into the model folder of a classifier that was fitted here.

    Returns the path of the page. ``cache`` keeps small pictures for the next time. Raises OptionError for a classifier
    that was loaded, ModelError when the folder cannot be written.
    """
    target = Path(folder)
    found = gather(classifier, cache)
    write_data(found, target)
    page = target / NAME
    write_whole(page, render(found, classifier.run_, _title(target)))
    return page


def rewrite(folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> Path:
    """Make the page again from a model folder's data, to ``output`` or into the folder; its path.

    Raises ModelError where the folder has no such data, or they are damaged, hostile or newer.
    """
    source = Path(folder)
    model = read(source)
    found = read_data(source)
    if found.known != len(model.classes):
        raise ModelError(f"{source}: report.json is of {found.known} classes, the model of {len(model.classes)}.")
    page = source / NAME if output is None else Path(output)
    if page.is_dir():
        raise ModelError(f"{page} is a folder; name a file for the report.")
    write_whole(page, render(found, model.run, _title(source)))
    return page


def _title(folder: Path) -> str:
    return folder.resolve().name or "model"
