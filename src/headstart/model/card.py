"""The model card: what the README.md of a model folder says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headstart.model.model import Model
from headstart.stats.conformal import ConformalThresholds

MAX_CLASSES = 50  # that are named
TITLES = {
    "validation": "On validation images",
    "leave_group_out": "On training images, each predicted with its group left out",
}


def escape_markdown(text: str) -> str:
    """Return a name from outside as inert Markdown: one line, nothing that formats or links."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#+-.!|~&" else c for c in line)


def model_card(model: Model) -> str:
    """Write Markdown: which classes the model knows, how accurate it is, where it comes from, how to use it."""
    names = [escape_markdown(name) for name in model.classes[:MAX_CLASSES]]
    if len(model.classes) > MAX_CLASSES:
        names.append(f"and {len(model.classes) - MAX_CLASSES} more")
    height, width = model.preprocess.height, model.preprocess.width
    lines = [
        "# An image classifier made with Headstart",
        "",
        f"It distinguishes {len(model.classes)} classes: {', '.join(names)}.",
        "",
        "## Accuracy",
        "",
        *_accuracy(model.run.get("accuracy", {})),
        *_decision(model),
        "",
        "## Prediction sets and rejection",
        "",
        *_thresholds(model.thresholds),
        "",
        "## Parts",
        "",
        f"- Backbone: {escape_markdown(model.backbone.get('id', '?'))}, "
        f"licence {escape_markdown(model.backbone.get('licence', 'unknown'))}",
        f"- Cut: {', '.join(map(escape_markdown, model.head.taps))}; head: {escape_markdown(model.head.kind)}",
        f"- Input: RGB, uint8, `[batch, {height}, {width}, 3]`; see `preprocess` in `config.json`",
        "",
        "## Use",
        "",
        "    headstart predict MODEL IMAGE...",
        "    headstart verify MODEL",
        "",
        "`model.onnx` alone, in any ONNX runtime, takes resized images and gives the same `probabilities`",
        "`[batch, classes]` and OOD score, `distance` `[batch]`.",
        "",
        "`golden.npz` holds up to 8 of the training images, shrunk to the input size and without metadata, with the",
        "predictions that they must have on every machine. To leave them out, delete that file and the `golden` entry",
        "of `config.json`. `report.html` and `report.json` show small copies of the training and validation images:",
        "delete both before you give the model to anyone who must not see them.",
        "",
    ]
    return "\n".join(lines)


def _decision(model: Model) -> list[str]:
    """Say how the predicted class is found, where it is not the most probable one, and which frequencies count."""
    lines = []
    if model.run.get("class_weight"):
        lines.append(
            "- Probabilities are for images where the frequency of each class is that of the training images times its "
            "`class_weight` in `run.json`."
        )
    if model.rule is not None:
        lines.append(
            f"- {escape_markdown(model.rule.describe(model.classes))}. The predicted class is the column with the "
            "largest sum in `probabilities @ matrix`, `decision` in `config.json`; `model.onnx` gives its number as "
            "`decision` `[batch]`."
        )
    costs = model.run.get("cost", {})
    for key, title in TITLES.items():
        if costs.get(key):
            low, high = costs[key]["interval"]
            lines.append(
                f"- {title}, mean cost: {costs[key]['value']:.4g} per image (95% interval {low:.4g} to {high:.4g})"
            )
    return lines


def _thresholds(thresholds: ConformalThresholds) -> list[str]:
    """Explain, to somebody who only has ``model.onnx``, what to compare with which number of ``config.json``."""
    lines = ["- The targets hold for images of new groups (scenes, subjects) that come from where these came from."]
    if any(thresholds.set_thresholds):
        lines.append(
            f"- Prediction sets hold the true class of {_percent(thresholds.coverage)} of images. A class is in the "
            "set where its probability is at least its number in `set_thresholds` of `config.json`; "
            "the most probable class always is."
        )
    else:
        lines.append("- Prediction sets hold every class: there were too few groups for smaller ones.")
    if math.isfinite(thresholds.reject_threshold):
        lines.append(
            f"- An image belongs to none of these classes where its OOD score, `distance` (0 to 1), is above "
            f"{thresholds.reject_threshold:.6g} (`reject_threshold`); "
            f"{_percent(thresholds.false_alarms)} of images of these classes are rejected wrongly."
        )
    else:
        lines.append("- No image is rejected as none of these classes.")
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def _accuracy(accuracy: Mapping[str, Any]) -> list[str]:
    lines = [
        f"- {title}: {accuracy[key]['value']:.1%} ({accuracy[key]['correct']} of {accuracy[key]['count']}; "
        f"95% interval {accuracy[key]['interval'][0]:.1%} to {accuracy[key]['interval'][1]:.1%})"
        for key, title in TITLES.items()
        if accuracy.get(key)
    ]
    return lines or ["- Not measured."]
