"""The page: one HTML file that asks for nothing from outside and runs nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from headstart.report import charts
from headstart.report.charts import percent
from headstart.report.data import Report
from headstart.report.view import View, clip, plain


def render(report: Report, run: Mapping[str, Any], title: str) -> str:
    """The page of a report and its ``run.json``, as HTML. What ``run`` lacks or has in another form is left out."""
    environment = Environment(
        loader=PackageLoader("headstart.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "clip": clip, "plain": plain}
    here = resources.files("headstart.report")
    style, script = ((here / name).read_text("utf-8") for name in ("style.css", "script.js"))
    view = View(report, run)
    return environment.get_template("page.html.j2").render(
        v=view, r=report, title=title, style=Markup(style), script=Markup(script), data=_json(view.for_script()),
        style_hash=_hash(style), script_hash=_hash(script), jpeg=_jpeg, bar=charts.bar,
    )  # fmt: skip


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: object) -> Markup:
    """JSON that cannot end the element it stands in, nor be taken for markup."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _jpeg(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
