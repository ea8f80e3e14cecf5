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
TARGETS_HOLD = "- The targets hold for images of new groups (scenes, subjects) that come from where these came from."
USE = (
    "    import json, numpy, onnxruntime",
    "    from preprocess import preprocess",
    "",
    '    session = onnxruntime.InferenceSession("model.onnx")',
    '    about = json.loads(session.get_modelmeta().custom_metadata_map["headstart"])',
    '    pixels = preprocess("new.jpg")[numpy.newaxis]',
    '    probabilities, distance = session.run(["probabilities", "distance"], {"pixels": pixels})',
    '    print(about["classes"][probabilities[0].argmax()], probabilities[0].max())',
)


_GOLDEN = (
    "`golden.npz` holds up to 8 of the training images, shrunk to the input size and without metadata, with the",
    "predictions that they must have on every machine. To leave them out, delete that file and the `golden` entry",
    "of `config.json`. `report.html` and `report.json` show small copies of the training and validation images:",
    "delete both before you give the model to anyone who must not see them.",
)
_GOLDEN_OF_FEATURES = (
    "`golden.npz` holds 8 rendered images, of nobody, with the predictions that they must have on every machine.",
    "`report.html` and `report.json`, where they are here, show small copies of the training and validation images:",
    "delete both before you give the model to anyone who must not see them.",
)
_GOLDEN_OF_STATISTICS = (
    "`golden.npz` holds 8 rendered images, of nobody, with the predictions that they must have on every machine. The",
    "model was made of sums over its training images, without the features of any single one; `run.json` and",
    "`skipped.csv` name files that were left out. Its temperature is not measured, so that a probability says which",
    "class is the likeliest, not how often that is right.",
)
LABEL_USE = (
    *USE[:-1],
    '    thresholds = about["label_thresholds"]["thresholds"]',
    '    print([name for name, p, t in zip(about["classes"], probabilities[0], thresholds) if p >= t])',
)


RULE_USE = (
    *USE[:-2],
    '    probabilities, decision = session.run(["probabilities", "decision"], {"pixels": pixels})',
    '    print(about["classes"][decision[0]], probabilities[0][decision[0]])',
)


def escape_markdown(text: str) -> str:
    """Return a name from outside as inert Markdown: one line, nothing that formats or links.

    What means nothing where it stands is not escaped, since people read the file in an editor too.

    >>> print(escape_markdown("headstart-s, Apache-2.0"), escape_markdown("*x* [a](www.b.c)"), escape_markdown("1. x"))
    headstart-s, Apache-2.0 \\*x\\* \\[a\\]\\(www\\.b\\.c\\) 1\\. x
    """
    line = "".join(c if c.isprintable() else " " for c in text)
    return "".join(c if _is_inert(line, i) else f"\\{c}" for i, c in enumerate(line))


def _is_inert(line: str, i: int) -> bool:
    """Return whether a character formats nothing at its place: a dash begins a list, and a dot ends its number."""
    c, before, after = line[i], line[:i].strip(), line[i + 1 : i + 2]
    if c in "-+#":
        return bool(before)
    if c == ".":  # between letters, www.example.org would become a link
        is_number = before[-1:].isdigit() and after.isdigit()
        return is_number or (bool(before) and not before.isdigit() and after in ("", " "))
    return c not in "\\`*_{}[]()<>!|~&"


def model_card(model: Model) -> str:
    """Write Markdown: which classes the model knows, how accurate it is, where it comes from, how to use it."""
    height, width = model.preprocess.height, model.preprocess.width
    quality = (
        _label_quality(model)
        if model.is_multi_label
        else [
            *_accuracy(model.run.get("accuracy", {})),
            *_weak_classes(model.run.get("weak_classes", {})),
            *_decision(model),
        ]
    )
    lines = [
        "# An image classifier made with Headstart",
        "",
        what_it_says(model),
        *_origin(model.run),
        "",
        "## Accuracy",
        "",
        *quality,
        "",
        "## Prediction sets and rejection",
        "",
        *(_label_sets(model) if model.is_multi_label else _thresholds(model.thresholds)),
        "",
        "## Parts",
        "",
        f"- Backbone: {escape_markdown(model.backbone.get('id', '?'))}, "
        f"licence {escape_markdown(model.backbone.get('licence', 'unknown'))}",
        f"- Cut: {', '.join(map(escape_markdown, model.head.taps))}; head: {escape_markdown(model.head.kind)}",
        f"- Input: RGB, uint8, `[{model.batch or 'batch'}, {height}, {width}, 3]`; see `preprocess` in `config.json`",
        "",
        "## Use",
        "",
        "    headstart predict MODEL IMAGE...",
        "    headstart verify MODEL",
        "",
        "Without Headstart: `model.onnx` in any ONNX runtime takes the pixels that `preprocess.py` makes of an image",
        "file, with NumPy and Pillow alone, and gives the same `probabilities` `[batch, classes]` and OOD score,",
        "`distance` `[batch]`.",
        "",
        *_use(model),
        "",
        *_golden(model),
        "",
    ]
    return "\n".join(lines)


def _use(model: Model) -> list[str]:
    """Return the lines of the program."""
    lines = LABEL_USE if model.is_multi_label else USE if model.rule is None else RULE_USE
    one = 'preprocess("new.jpg")[numpy.newaxis]'
    batch = f'numpy.stack([preprocess("new.jpg")] * {model.batch})  # the graph takes so many, no fewer'
    return [line if model.batch in (None, 1) else line.replace(one, batch) for line in lines]


def _golden(model: Model) -> tuple[str, ...]:
    """Say which images the model holds: those of a fit to features, be these kept or not, are rendered."""
    if not model.thresholds.is_measured:
        return _GOLDEN_OF_STATISTICS
    return _GOLDEN_OF_FEATURES if "options" in model.run else _GOLDEN


def what_it_says(model: Model) -> str:
    """Return what a model tells apart, as a sentence with the names of its classes or labels."""
    names = [escape_markdown(name) for name in model.classes[:MAX_CLASSES]]
    if len(model.classes) > MAX_CLASSES:
        names.append(f"and {len(model.classes) - MAX_CLASSES} more")
    if model.is_multi_label:
        return f"It says which of {len(model.classes)} labels an image has, any number or none: {', '.join(names)}."
    return f"It distinguishes {len(model.classes)} classes: {', '.join(names)}."


def _origin(run: Mapping[str, Any]) -> list[str]:
    """Say which version it is, who made it and when, as far as it is known."""
    titles = {"version": "Version", "author": "Author", "date": "Date"}
    known = {name: str(run[name]) for name in titles if run.get(name)}
    lines = [f"- {titles[name]}: {escape_markdown(text)}" for name, text in known.items()]
    return ["", *lines] if lines else []


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


def _label_quality(model: Model) -> list[str]:
    """Say how well labels are found, and from which probability on each holds."""
    lines, metrics = [], model.run.get("metrics", {})
    names = {
        "mean_average_precision": "mean average precision",
        "micro_f1": "micro F1",
        "exact_match": "all labels right",
    }
    for key, title in TITLES.items():
        parts = [
            f"{name} {value['value']:.1%} ({value['interval'][0]:.1%} to {value['interval'][1]:.1%})"
            for metric, name in names.items()
            if (value := metrics.get(key, {}).get(metric)) and value["value"] is not None
        ]
        lines += [f"- {title}, with 95% intervals: {', '.join(parts)}"] if parts else []
    thresholds = model.label_thresholds
    assert thresholds is not None
    lines = lines or ["- Not measured."]
    lines.append(
        "- Each label has a probability by itself, and holds where that is at least its number in `label_thresholds` "
        "of `config.json`; probabilities do not sum to 1."
    )
    if thresholds.target:
        kept = [escape_markdown(n) for n, is_kept in zip(model.classes, thresholds.is_promised, strict=True) if is_kept]
        labels = ", ".join(kept[:MAX_CLASSES]) or "no label, for want of images"
        lines.append(
            f"- A {thresholds.target} of {_percent(thresholds.share)} is promised for {labels}"
            f"{' (confidence 90%)' if thresholds.target == 'precision' and kept else ''}."
        )
    return lines


def _label_sets(model: Model) -> list[str]:
    """Explain what prediction sets and rejection of a model of several labels promise."""
    thresholds = model.thresholds
    return [
        TARGETS_HOLD,
        f"- Prediction sets hold {_percent(thresholds.coverage)} of the images' labels: a label is in the set where "
        "its probability is at least its number in `set_thresholds` of `config.json`, which is 0 for a label of too "
        "few groups.",
        *_rejection(thresholds),
    ]


def _thresholds(thresholds: ConformalThresholds) -> list[str]:
    """Explain, to somebody who only has ``model.onnx``, what to compare with which number of ``config.json``."""
    if not thresholds.is_measured:
        return ["- Not measured: the model was made of sums over images, without the features of any single one."]
    lines = [TARGETS_HOLD]
    if any(thresholds.set_thresholds):
        lines.append(
            f"- Prediction sets hold the true class of {_percent(thresholds.coverage)} of images. A class is in the "
            "set where its probability is at least its number in `set_thresholds` of `config.json`; "
            "the most probable class always is."
        )
    else:
        lines.append("- Prediction sets hold every class: there were too few groups for smaller ones.")
    return [*lines, *_rejection(thresholds)]


def _rejection(thresholds: ConformalThresholds) -> list[str]:
    if not math.isfinite(thresholds.reject_threshold):
        return ["- No image is rejected as none of these classes."]
    return [
        f"- An image belongs to none of these classes where its OOD score, `distance` (0 to 1), is above "
        f"{thresholds.reject_threshold:.6g} (`reject_threshold`); "
        f"{_percent(thresholds.false_alarms)} of images of these classes are rejected wrongly."
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def _weak_classes(weak_classes: Mapping[str, Any]) -> list[str]:
    """Name the classes that are recognised far worse than the others, by the first measurement that there is."""
    weak: list[Any] = next((weak_classes[key] for key in TITLES if key in weak_classes), [])
    return [
        f"- Weak class: of {escape_markdown(one['class'])} {one['recall']['value']:.1%} are recognised; {one['taken']} "
        f"of {one['recall']['count']} are taken for {escape_markdown(one['taken_for'])}"
        for one in weak[:MAX_CLASSES]
    ]


def _accuracy(accuracy: Mapping[str, Any]) -> list[str]:
    lines = [
        f"- {title}: {accuracy[key]['value']:.1%} ({accuracy[key]['correct']} of {accuracy[key]['count']}; "
        f"95% interval {accuracy[key]['interval'][0]:.1%} to {accuracy[key]['interval'][1]:.1%})"
        for key, title in TITLES.items()
        if accuracy.get(key)
    ]
    return lines or ["- Not measured."]
