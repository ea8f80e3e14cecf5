"""The model card: what the folder's README.md says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headstart.model.model import Model

SHOWN = 50


def plain(text: str) -> str:
    """A name from outside as inert Markdown: one line, nothing that formats or links."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#+-.!|~&" else c for c in line)


def card(model: Model) -> str:
    """Markdown: what the model tells apart, how sure that is, where it comes from, how to use it."""
    names = [plain(name) for name in model.classes[:SHOWN]]
    if len(model.classes) > SHOWN:
        names.append(f"and {len(model.classes) - SHOWN} more")
    size = f"{model.preprocess.height} x {model.preprocess.width}"
    lines = [
        "# An image classifier made with Headstart",
        "",
        f"It tells {len(model.classes)} classes apart: {', '.join(names)}.",
        "",
        "## How good it is",
        "",
        *_accuracy(model.run.get("accuracy", {})),
        "",
        "## What it promises",
        "",
        *_promises(model),
        "",
        "## What it is made of",
        "",
        f"- Backbone: {plain(model.backbone.get('id', '?'))}, "
        f"licence {plain(model.backbone.get('licence', 'unknown'))}",
        f"- Cut: {', '.join(map(plain, model.head.taps))}; head: {plain(model.head.kind)}",
        f"- Input: RGB, uint8, `[batch, {size.replace(' x ', ', ')}, 3]`; see `preprocess` in `config.json`",
        "",
        "## Use",
        "",
        "    headstart predict MODEL PICTURE...",
        "    headstart verify MODEL",
        "",
        "`model.onnx` alone, in any ONNX runtime, takes resized pictures and gives the same `probabilities` "
        "`[batch, classes]`" + (" and `distance` `[batch]`." if model.promises else "."),
        "",
        "`golden.npz` holds up to 8 of the training pictures, shrunk to the input size and without metadata, with the",
        "answers they must get on every machine. To leave them out, delete that file and the `golden` entry of",
        "`config.json`. `report.html` and `report.json` show small copies of the pictures learned from and held out:",
        "delete both before a model is given to anyone who must not see them.",
        "",
    ]
    return "\n".join(lines)


def _promises(model: Model) -> list[str]:
    """In the words of who only has ``model.onnx``: what to compare with which number of ``config.json``."""
    promises = model.promises
    if promises is None:
        return ["- Nothing: it was made before there were prediction sets; fit it again."]
    lines = ["- For pictures of new groups (scenes, subjects) that come as those learned from did."]
    if any(promises.set_thresholds):
        lines.append(
            f"- Prediction sets hold the true class of {promises.coverage:.3g} of pictures. A class is in the set "
            "where its probability is at least its number in `set_thresholds` of `config.json`; "
            "the most probable always is."
        )
    else:
        lines.append("- Prediction sets hold every class: there were too few groups to promise anything.")
    if math.isfinite(promises.reject_threshold):
        lines.append(
            f"- A picture is none of these classes where `distance` (0 to 1) is above {promises.reject_threshold:.6g} "
            f"(`reject_threshold`); that is wrongly so of {promises.false_alarms:.3g} of pictures of the classes."
        )
    else:
        lines.append("- No picture is taken for none of these classes.")
    return lines


def _accuracy(found: Mapping[str, Any]) -> list[str]:
    titles = {
        "validation": "On held-out pictures",
        "leave_group_out": "On groups of training pictures left out",
    }
    lines = [
        f"- {title}: {found[key]['value']:.1%} ({found[key]['correct']} of {found[key]['count']}; 95% interval "
        f"{found[key]['interval'][0]:.1%} to {found[key]['interval'][1]:.1%})"
        for key, title in titles.items()
        if found.get(key)
    ]
    return lines or ["- Not measured."]
