"""fit, predict, evaluate, verify."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from headstart.cli.reports import write_report
from headstart.errors import OptionError
from headstart.terminal import line, print_confusion, print_fit, print_json, progress_bar, tell_quarantine

if TYPE_CHECKING:
    from headstart.backbones import InputOptions


@app.command()
def fit(
    data: Annotated[str, typer.Argument(help="Folder, zip or tar, table (.csv, .parquet, .jsonl) or URL of these.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")] = Path("model"),
    backbone: Annotated[str, typer.Option(help="headstart-s or onnx:FILE.")] = "headstart-s",
    cut: Annotated[
        str, typer.Option(help="auto, a tap, or several with commas; any tensor of an onnx: graph.")
    ] = "auto",
    head: Annotated[str, typer.Option(help="auto, ridge, lda, centroid or logistic.")] = "auto",
    dropout: Annotated[float | None, typer.Option(help="Dropout rate of the ridge head, in closed form.")] = None,
    group_by: Annotated[str, typer.Option(help="auto (near duplicates), none, or a table's column.")] = "auto",
    validation: Annotated[str | None, typer.Option(help="Data set, or share of the groups to hold out.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="onnx: the input's mean, of RGB in 0..1.")] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="onnx: the input's deviation, of RGB in 0..1.")
    ] = None,
    channels: Annotated[str | None, typer.Option(help="onnx: RGB or BGR.")] = None,
    input_size: Annotated[str | None, typer.Option(metavar="N|HxW", help="onnx: input size in pixels.")] = None,
    crop: Annotated[float | None, typer.Option(help="onnx: share of the shorter side to keep.")] = None,
    resize: Annotated[str | None, typer.Option(help="onnx: shortest (crop the centre) or squash.")] = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    seed: Annotated[int, typer.Option(help="For what is drawn at random.")] = 0,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep features on disk.")] = True,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write MODEL/report.html.")] = True,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Learn to tell the classes of DATA apart, and write a model folder."""
    started = time.perf_counter()
    from headstart.bundle import check_target
    from headstart.classifier import ImageClassifier

    check_target(output)  # before the work, not after it
    classifier = ImageClassifier(
        backbone=backbone, cut=cut, head=head, dropout=dropout, group_by=group_by,
        validation=_validation(validation), runtime=runtime, precision=precision, workers=workers, seed=seed,
        input_options=_input_options(mean, std, channels, input_size, crop, resize), cache=cache,
    )  # fmt: skip
    with progress_bar("Reading features", quiet, progress) as bar:
        classifier.fit(data, progress=bar)
    folder = classifier.save(output)
    if not quiet:
        for note in classifier.notes_:
            print(line(f"note: {note}"), file=sys.stderr)
    tell_quarantine(classifier.quarantined_, quiet)
    if not as_json:
        print_fit(classifier, folder, time.perf_counter() - started)
        sys.stdout.flush()  # the result is not kept waiting for the report
    page = write_report(classifier, folder, cache) if report else None
    if as_json:
        run = classifier.run_
        images = {**run["images"], "quarantined": len(run["images"]["quarantined"])}
        shown = {"model": folder, "classes": run["classes"], "images": images}
        keys = ("groups", "backbone", "cut", "head", "runtime", "accuracy", "seconds", "cache")
        print_json(shown | {key: run[key] for key in keys} | {"report": page})
    elif page is not None:
        print(line(f"Report      {page}"))
    raise typer.Exit(1 if strict and classifier.quarantined_ else 0)


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
    """Name the class of each picture, most probable first."""
    from headstart.classifier import load
    from headstart.datasets import from_pictures, join, open_dataset

    if as_json and as_csv:
        raise OptionError("--json and --csv exclude each other; give one.")
    classifier = load(model).set_params(runtime=runtime, precision=precision, workers=workers)
    dataset = from_pictures([p for p in pictures if not _holds_pictures(p)])
    for container in filter(_holds_pictures, pictures):
        dataset = join(dataset, open_dataset(container))
    with progress_bar("Predicting", quiet, progress) as report:
        found = classifier.answer(dataset, progress=report)
    writer = csv.writer(sys.stdout, lineterminator="\n") if as_csv else None
    if writer:
        writer.writerow(
            [
                "path",
                *(f"{kind}_{i + 1}" for i in range(min(top, len(found.classes))) for kind in ("class", "probability")),
            ]
        )
    for path, row in zip(found.paths, found.probabilities, strict=True):
        best = [(found.classes[i], float(row[i])) for i in row.argsort()[::-1][:top]]
        if as_json:
            print(
                json.dumps(
                    {"path": path, "classes": [{"class": c, "probability": p} for c, p in best]},
                    ensure_ascii=False,
                )
            )
        elif writer:
            writer.writerow([path, *(value for c, p in best for value in (c, f"{p:.6f}"))])
        else:
            print(line(f"{path}\t" + "\t".join(f"{c}\t{p:.1%}" for c, p in best)))
    if as_json:
        for refused in found.quarantined:
            print(json.dumps({"path": refused.path, "error": refused.reason}, ensure_ascii=False))
    tell_quarantine(found.quarantined, quiet)
    if not found.paths:
        raise typer.Exit(2)
    raise typer.Exit(1 if strict and found.quarantined else 0)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    data: Annotated[str, typer.Argument(help="Labelled pictures that had no part in training.")],
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Accuracy of MODEL on DATA with its interval, and which classes it confuses."""
    from headstart.classifier import load

    classifier = load(model).set_params(runtime=runtime, precision=precision, workers=workers)
    with progress_bar("Predicting", quiet, progress) as report:
        found = classifier.evaluate(data, progress=report)
    tell_quarantine(found.quarantined, quiet)
    if found.unknown and not quiet:
        names = ", ".join(found.unknown)
        print(line(f"note: the model does not know {names}; those pictures count as wrong."), file=sys.stderr)
    if as_json:
        print_json(
            {
                "model": model,
                "classes": list(found.classes),
                "images": {"count": len(found.paths), "quarantined": len(found.quarantined)},
                "accuracy": found.accuracy.to_dict(),
                "confusion": found.confusion.tolist(),
                "unknown_classes": list(found.unknown),
            }
        )
    else:
        print(f"Accuracy  {found.accuracy}")
        print_confusion(found.confusion, found.classes)
    raise typer.Exit(1 if strict and found.quarantined else 0)


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
             "tolerance": found.tolerance, "changed": found.changed, "runtime": found.runtime.key}
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
    from headstart.images import is_picture_name

    return Path(path).is_dir() or ("." in Path(path).name and not is_picture_name(path) and Path(path).exists())


def _validation(value: str | None) -> str | float | None:
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value


def _input_options(
    mean: str | None,
    std: str | None,
    channels: str | None,
    size: str | None,
    crop: float | None,
    resize: str | None,
) -> InputOptions | None:
    if all(value is None for value in (mean, std, channels, size, crop, resize)):
        return None
    from headstart.backbones import InputOptions

    return InputOptions(
        mean=_three(mean, "--mean"), std=_three(std, "--std"), channels=channels, size=_size(size), crop=crop,
        resize=resize,
    )  # fmt: skip


def _three(text: str | None, name: str) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise OptionError(f"{name} {text!r} cannot be read; expected three numbers like 0.485,0.456,0.406.")
    return (numbers[0], numbers[1], numbers[2])


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdecimal() for part in parts):
        raise OptionError(
            f"--input-size {text!r} cannot be read; expected pixels like 160, or height x width like 160x224."
        )
    return (int(parts[0]), int(parts[-1]))
