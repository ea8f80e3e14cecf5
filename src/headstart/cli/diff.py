"""headstart diff"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.options import JsonOption, Messages, ModelArgument, RunOptions
from headstart.cli.terminal import (
    MAX_QUARANTINED,
    NAME_WIDTH,
    counted,
    fitted,
    line,
    listed,
    print_json,
    print_notes,
    print_skipped,
)
from headstart.errors import shell_word

if TYPE_CHECKING:
    from headstart.compare.model_diff import Decisions, ModelDiff

MAX_CLASSES = 20
MAX_IMAGES = 10  # that are predicted differently
SAME_IMAGES = {True: "the same", False: "not the same", None: "not known"}
TITLES = {"validation": "validation", "leave_group_out": "leaving one group out"}


def diff(
    model: ModelArgument,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Another model folder.")],
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="Images to predict with both, with labels or without.")
    ] = None,
    as_json: JsonOption = False,
    run: RunOptions = RunOptions(),
    messages: Messages = Messages(),
) -> None:
    """Show what differs between two models, accuracy included."""
    from headstart.compare.model_diff import diff_models
    from headstart.data.inputs import open_inputs
    from headstart.model.folder import read_model

    first, second = read_model(model), read_model(other)
    images = None if data is None else open_inputs([data])
    with messages.bar("Predicting") as bar:
        result = diff_models(first, second, images, run.compute, progress=bar)
    if images is not None and result.decisions is not None:
        print_notes(result.decisions.notes[:MAX_QUARANTINED])
        print_skipped(images)
    if as_json:
        print_json({"models": [model, other], **result.to_dict()})
        return
    _print_accuracy(result)
    _print_classes_and_images(result, model, other)
    if result.decisions is not None:
        _print_decisions(result.decisions, model, other)
    width = max(map(len, result.settings), default=0)
    for name, (value, other_value) in result.settings.items():
        print(line(f"{name:{width}}  {_text(value)} -> {_text(other_value)}"))
    if not (result.settings or result.only_first or result.only_second):
        print(f"No difference in settings and {'labels' if result.is_multi_label else 'classes'}.")
    if any(result.verdict(name).endswith("of different images") for name in result.accuracy):
        how = f"headstart evaluate {shell_word(model)} {shell_word(other)} DATA"
        print_notes([f"to compare both models on the same images: {how}"])


def _print_accuracy(result: ModelDiff) -> None:
    title = "mAP" if result.is_multi_label else "Accuracy"
    for name, (first, second) in result.accuracy.items():
        values = " -> ".join("not measured" if one is None else str(one) for one in (first, second))
        print(line(f"{title:11} {TITLES.get(name, name)}: {values}; {result.verdict(name)}"))


def _print_classes_and_images(result: ModelDiff, model: str, other: str) -> None:
    title = "Labels" if result.is_multi_label else "Classes"
    for name, classes in ((model, result.only_first), (other, result.only_second)):
        if classes:
            print(line(f"{title:11} only of {name}: {listed(classes, MAX_CLASSES)}"))
    training = "training images not known: a model has no training_images.bin"
    if result.training_images is not None:
        both, first, second = result.training_images
        training = f"{counted(both, 'training image')} of both, {first} only of {model}, {second} only of {other}"
    validation = "no validation images"
    if "validation" in result.same_images:
        validation = f"validation images {SAME_IMAGES[result.same_images['validation']]}"
    print(line(f"Images      {training}; {validation}"))


def _print_decisions(decisions: Decisions, model: str, other: str) -> None:
    """Print how many images are predicted differently, by class or label, and the first of them."""
    images = counted(decisions.images, "image")
    print(f"Predicted   differently: {len(decisions.changed)} of {images}")
    if not decisions.changed:
        return
    heads = [f"only by {fitted(name, NAME_WIDTH)}" for name in (model, other)]
    print(f"            {'':{NAME_WIDTH}}  {heads[0]}  {heads[1]}")
    rows = [*decisions.by_label.items()]
    for name, counts in rows[:MAX_CLASSES]:
        cells = "  ".join(f"{count:{len(head)}}" for count, head in zip(counts, heads, strict=True))
        print(f"            {fitted(name, NAME_WIDTH):{NAME_WIDTH}}  {cells}")
    if len(rows) > MAX_CLASSES:
        print(f"            and {len(rows) - MAX_CLASSES} more: see --json")
    for image in decisions.changed[:MAX_IMAGES]:
        first, second = (listed(names, MAX_CLASSES) or "-" for names in (image.only_first, image.only_second))
        print(line(f"            {image.path}: {first} -> {second}"))
    if len(decisions.changed) > MAX_IMAGES:
        print(f"            and {len(decisions.changed) - MAX_IMAGES} more images: see --json")


def _text(value: object) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
