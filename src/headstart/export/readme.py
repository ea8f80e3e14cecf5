"""The README of an export: what it is, how it is used, and how it is verified."""

from __future__ import annotations

from headstart.export.about import PARITY, PROOF, About
from headstart.export.formats import Format
from headstart.model.card import MAX_CLASSES, escape_markdown
from headstart.model.model import Model


def readme(format: Format, about: About, model: Model) -> str:
    """Write Markdown."""
    names = [escape_markdown(name) for name in about.classes[:MAX_CLASSES]]
    if len(about.classes) > MAX_CLASSES:
        names.append(f"and {len(about.classes) - MAX_CLASSES} more")
    limit = model.thresholds.to_dict()["reject_threshold"]
    rejects = (
        "No image is rejected." if limit is None else f"An image whose `distance` is above {limit:.6g} is none of them."
    )
    return "\n".join(
        [
            f"# An image classifier for {format.name}, exported by Headstart",
            "",
            f"It distinguishes {len(about.classes)} classes: {', '.join(names)}. {rejects}",
            "",
            f"- Input {_input(about) if format.input is None else format.input(about)}",
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


def _input(about: About) -> str:
    """Say what an export takes and gives."""
    size = (about.preprocess.height, about.preprocess.width)
    taken = "one decoded image of any size, RGB, uint8, `[1, height, width, 3]`"
    batch = "batch" if about.batch is None else about.batch
    if not about.any_size:
        taken = f"RGB, uint8, `[{batch}, {size[0]}, {size[1]}, 3]`"
    outputs = f"`probabilities` `[{batch}, classes]`, and the OOD score, `distance` `[{batch}]`, 0 to 1"
    return f"`pixels`: {taken}\n- Outputs: {outputs}"
