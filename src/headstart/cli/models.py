"""predict, evaluate, verify."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.options import (
    JsonOption,
    PrecisionOption,
    ProgressOption,
    QuietOption,
    RuntimeOption,
    StrictOption,
    WorkersOption,
    app,
)
from headstart.cli.terminal import (
    line,
    print_answer,
    print_comparison,
    print_confusion,
    print_evaluation,
    print_json,
    progress_bar,
    tell_quarantine,
)
from headstart.errors import OptionError


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    pictures: Annotated[list[str], typer.Argument(help="Pictures, or folders, archives and tables of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values with a header.")] = False,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    strict: StrictOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Name the class of each picture, most probable first, or none of these; and the set that holds the true one."""
    from headstart.classifier import load
    from headstart.data import concatenate, from_images, open_dataset

    if as_json and as_csv:
        raise OptionError("--json and --csv exclude each other; give one.")
    classifier = load(model).set_params(runtime=runtime, precision=precision, workers=workers)
    dataset = from_images([p for p in pictures if not _holds_pictures(p)])
    for container in filter(_holds_pictures, pictures):
        dataset = concatenate(dataset, open_dataset(container))
    with progress_bar("Predicting", quiet, progress) as report:
        found = classifier.answer(dataset, progress=report)
    if found.promises is None and not quiet:
        print(line(f"note: {model} was made before there were prediction sets; fit it again."), file=sys.stderr)
    named = min(top, len(found.classes))
    writer = csv.writer(sys.stdout, lineterminator="\n") if as_csv else None
    if writer:
        columns = [f"{kind}_{i + 1}" for i in range(named) for kind in ("class", "probability")]
        writer.writerow(["path", *columns, "none_of_these", "set"])
    for place, path in enumerate(found.paths):
        row = found.probabilities[place]
        best = [(found.classes[i], float(row[i])) for i in row.argsort()[::-1][:named]]
        refused = None if found.none_of_these is None else bool(found.none_of_these[place])
        distance = None if found.distances is None else float(found.distances[place])
        could_be = found.set_of(place)
        if as_json:
            answer = {
                "path": path, "classes": [{"class": c, "probability": p} for c, p in best],
                "none_of_these": refused, "set": could_be, "distance": distance,
            }  # fmt: skip
            print(json.dumps(answer, ensure_ascii=False))
        elif writer:
            told = ["" if refused is None else str(refused).lower(), "|".join(could_be or [])]
            writer.writerow([path, *(value for c, p in best for value in (c, f"{p:.6f}")), *told])
        else:
            print_answer(found, place, named)
    if as_json:
        for unread in found.quarantined:
            print(json.dumps({"path": unread.path, "error": unread.reason}, ensure_ascii=False))
    tell_quarantine(found.quarantined, quiet)
    if not found.paths:
        raise typer.Exit(2)
    raise typer.Exit(1 if strict and found.quarantined else 0)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    more: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL]... DATA",
            help="Labelled pictures that had no part in training; before them further models to compare.",
        ),
    ],
    group_by: Annotated[str, typer.Option(help="To compare: auto (near duplicates), none, or a column.")] = "auto",
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Accuracy of MODEL on DATA, and which classes it confuses; of several models, which is really better."""
    *others, data = more
    with progress_bar("Predicting", quiet, progress) as report:
        if others:
            from headstart.compare.models import compare

            compared = compare(
                [model, *others], data, group_by=group_by, runtime=runtime, precision=precision, workers=workers,
                progress=report,
            )  # fmt: skip
            evaluations = compared.evaluations
        else:
            from headstart.classifier import load

            classifier = load(model).set_params(runtime=runtime, precision=precision, workers=workers)
            evaluations = (classifier.evaluate(data, progress=report),)
    tell_quarantine(evaluations[0].quarantined, quiet)
    for name, found in zip([model, *others], evaluations, strict=True):
        if found.unknown and not quiet:
            unknown = ", ".join(found.unknown)
            print(line(f"note: {name} does not know {unknown}; those pictures count as wrong."), file=sys.stderr)
    if as_json and others:
        print_json(compared.to_dict())
    elif as_json:
        print_json({"model": model, **evaluations[0].to_dict()})
    elif others:
        print_comparison(compared)
    else:
        print_evaluation(evaluations[0])
        print_confusion(evaluations[0].confusion, evaluations[0].classes)
    raise typer.Exit(1 if strict and evaluations[0].quarantined else 0)


@app.command()
def verify(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Replay the model's golden sample here: the same pictures must get the same answers."""
    from headstart.classifier import load

    found = load(model).set_params(runtime=runtime, precision=precision).verify()
    if as_json:
        print_json(
            {"model": model, "pictures": found.pictures, "difference": found.difference,
             "tolerance": found.tolerance, "distance": found.distance, "changed": found.changed,
             "runtime": found.runtime.key}
        )  # fmt: skip
    else:
        changed = f", {found.changed} on the border with another class" if found.changed else ""
        print(
            line(
                f"{model} answers as it should: {found.pictures} golden pictures, largest difference "
                f"{found.difference:.6f} ({found.tolerance:g} allowed){changed}, "
                f"{found.runtime.key} {found.runtime.version}"
            )
        )


def _holds_pictures(path: str) -> bool:
    from headstart.images.decode import is_image_name

    return Path(path).is_dir() or ("." in Path(path).name and not is_image_name(path) and Path(path).exists())
