"""headstart diff"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.options import JsonOption, ModelArgument
from headstart.cli.terminal import counted, line, listed, print_json, print_notes

if TYPE_CHECKING:
    from headstart.compare.model_diff import ModelDiff

MAX_CLASSES = 20
TITLES = {"validation": "validation", "leave_group_out": "leaving one group out"}


def diff(
    model: ModelArgument,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Another model folder.")],
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two models, accuracy included."""
    from headstart.compare.model_diff import diff_models
    from headstart.model.folder import read_model

    result = diff_models(read_model(model), read_model(other))
    if as_json:
        print_json({"models": [model, other], **result.to_dict()})
        return
    _print_accuracy(result)
    _print_classes_and_images(result, model, other)
    width = max(map(len, result.settings), default=0)
    for name, (first, second) in result.settings.items():
        print(line(f"{name:{width}}  {_text(first)} -> {_text(second)}"))
    if not (result.settings or result.only_first or result.only_second):
        print("No difference in settings and classes.")
    if result.accuracy and not result.same_data:
        print_notes(
            [
                "the accuracies are of different images; to compare both models on the same ones: headstart evaluate "
                f"{model} {other} DATA"
            ]
        )


def _print_accuracy(result: ModelDiff) -> None:
    for name, (first, second) in result.accuracy.items():
        values = " -> ".join("not measured" if one is None else str(one) for one in (first, second))
        print(line(f"Accuracy    {TITLES.get(name, name)}: {values}; {result.verdict(name)}"))


def _print_classes_and_images(result: ModelDiff, model: str, other: str) -> None:
    for name, classes in ((model, result.only_first), (other, result.only_second)):
        if classes:
            print(line(f"Classes     only of {name}: {listed(classes, MAX_CLASSES)}"))
    if result.training_images is None:
        print("Images      not known: a model has no training_images.bin")
        return
    both, first, second = result.training_images
    print(
        line(
            f"Images      {counted(both, 'training image')} of both, {first} only of {model}, {second} only of {other}"
        )
    )


def _text(value: object) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
