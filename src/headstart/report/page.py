"""The page: one HTML file that loads nothing from the network and runs only its own script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from headstart.files import json_text
from headstart.report.charts import table_bar
from headstart.report.data import Report
from headstart.report.text import clip, percent, plain
from headstart.report.training_curves import chart
from headstart.report.view import page_variables
from headstart.report.view.script_data import script_data

SCRIPTS = ("elements.js", "fold.js", "images.js", "classes.js", "viewer.js", "thresholds.js", "map.js")


def render(report: Report, run: Mapping[str, Any], title: str) -> str:
    """Return the page of a report and its ``run.json`` as HTML.

    Whatever ``run`` lacks or holds in another form is left out.
    """
    return render_template(
        "page.html.j2",
        SCRIPTS,
        **page_variables(report, run),
        title=title,
        script_data=json_element(json_text(script_data(report), separators=(",", ":"))),
        is_first_use=Thumbnails(report.thumbnails).is_first_use,
        table_bar=table_bar,
        training_chart=chart,
    )


def render_template(name: str, scripts: Sequence[str], **variables: object) -> str:
    """Return a page from a template, with the style sheet, these scripts as one, and the hashes of its policy."""
    environment = Environment(
        loader=PackageLoader("headstart.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "clip": clip, "plain": plain}
    files = resources.files("headstart.report")
    style = (files / "style.css").read_text("utf-8")
    script = "".join((files / "scripts" / file).read_text("utf-8") for file in scripts)
    return environment.get_template(name).render(
        **variables,
        style=Markup(style),
        style_hash=_hash(style),
        script=Markup(script),
        script_hash=_hash(script),
        jpeg_url=jpeg_url,
    )


class Thumbnails:
    """Thumbnails that a page contains so far: each is written once, and the script copies it to further places."""

    def __init__(self, thumbnails: Mapping[int, bytes]) -> None:
        self._unused = set(thumbnails)

    def is_first_use(self, index: int) -> bool:
        """Return whether an image has a thumbnail that was not written yet, and count it as written."""
        if index not in self._unused:
            return False
        self._unused.remove(index)
        return True


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def json_element(text: str) -> Markup:
    """Encode a text of JSON for a script element: it can neither end the element nor be read as markup."""
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def jpeg_url(data: bytes) -> str:
    """Return a JPEG as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
