"""The README of an export: what it is, how it is used, and how it is verified."""

from __future__ import annotations

from headstart.export.about import PARITY, PROOF, About
from headstart.export.formats import Format
from headstart.model.card import MAX_CLASSES, escape_markdown, what_it_says
from headstart.model.model import Model

MODEL_API = ("onnx", "openvino")  # formats that Intel's Model API takes
DECIDES = ("onnx", "openvino", "litert", "savedmodel", "torch")  # formats with the output ``decision``


def readme(format: Format, about: About, model: Model) -> str:
    """Write Markdown."""
    limit = model.thresholds.to_dict()["reject_threshold"]
    unlike = "unlike all training images" if about.is_multi_label else "none of them"
    rejects = (
        "No image is rejected." if limit is None else f"An image whose `distance` is above {limit:.6g} is {unlike}."
    )
    if not model.thresholds.is_measured:
        rejects = "Prediction sets and rejection were not measured."
    return "\n".join(
        [
            f"# An image classifier for {format.name}, exported by Headstart",
            "",
            f"{what_it_says(model)} {rejects}",
            "",
            *_thresholds(about),
            *_decision(about),
            f"- Input {_input(format, about) if format.input is None else format.input(about)}",
            f"- Precision: {about.precision}",
            f"- Backbone: {escape_markdown(model.backbone.get('id', '?'))}, licence "
            f"{escape_markdown(model.backbone.get('licence', 'unknown'))}",
            "",
            "## Use",
            "",
            f"```{format.language}",
            format.use(about),
            "```",
            "",
            "## Proof",
            "",
            f"`{PARITY}` says how far the answers are from those of the model, in which runtime, and what was not",
            f"proven. `{PROOF}/` holds the images, drawn by a program, to prove it elsewhere (`headstart verify`).",
            "No file here holds an image that the model was trained on.",
            "",
        ]
    )


def _thresholds(about: About) -> list[str]:
    """Say from which probability on labels hold."""
    if about.label_thresholds is None:
        return []
    pairs = [*zip(about.classes, about.label_thresholds.thresholds, strict=True)]
    texts = [f"{escape_markdown(name)} {value:.4g}" for name, value in pairs[:MAX_CLASSES]]
    more = ", ..." if len(pairs) > MAX_CLASSES else ""
    return [f"A label holds from its probability on, of each by itself: {', '.join(texts)}{more}.", ""]


def _decision(about: About) -> list[str]:
    """Say how the predicted class is found where it is not the most probable one."""
    if about.rule is None:
        return []
    found = {
        "web": "The page names the predicted class.",
        "hub": "A pipeline ignores that, and names the most probable class.",
        "coreml": "`classLabel` is the most probable class.",
    }.get(about.to, "The output `decision` is its number.")
    return [
        f"{escape_markdown(about.rule.describe(about.classes))}: the predicted class is not always the most probable "
        "one, but the column with the largest sum in `probabilities @ matrix`, with the `matrix` of `decision` in "
        f"`{PARITY}`. {found}",
        "",
    ]


def _input(format: Format, about: About) -> str:
    """Say what an export takes and gives."""
    size = (about.preprocess.height, about.preprocess.width)
    taken = "one decoded image of any size, RGB, uint8, `[1, height, width, 3]`"
    batch = 1 if format.one_image else "batch" if about.batch is None else about.batch
    if not about.any_size:
        taken = f"RGB, uint8, `[{batch}, {size[0]}, {size[1]}, 3]`"
    columns = "labels" if about.is_multi_label else "classes"
    outputs = f"`probabilities` `[{batch}, {columns}]`, and the OOD score, `distance` `[{batch}]`, 0 to 1"
    if about.rule is not None and about.to in DECIDES:
        outputs += f"; `decision` `[{batch}]` is the number of the predicted class"
    if about.is_multi_label and about.to in MODEL_API:
        outputs += "; `logits` are the scores before the sigmoid, which Intel's Model API takes"
    return f"`pixels`: {taken}\n- Outputs: {outputs}"
