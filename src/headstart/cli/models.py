"""fit, predict, evaluate, verify."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.options import (
    BatchOption,
    ChannelsOption,
    ClassWeightsOption,
    CoverageOption,
    CropOption,
    EpochsOption,
    FalseAlarmsOption,
    HiddenOption,
    JsonOption,
    MeanOption,
    OptimiserOption,
    PatienceOption,
    PrecisionOption,
    ProgressOption,
    QuietOption,
    RateOption,
    ResizeOption,
    RuntimeOption,
    SizeOption,
    StdOption,
    StopOption,
    StrictOption,
    WorkersOption,
    app,
)
from headstart.errors import OptionError
from headstart.terminal import (
    line,
    print_answer,
    print_comparison,
    print_confusion,
    print_evaluation,
    print_fit,
    print_json,
    progress_bar,
    tell_quarantine,
)

if TYPE_CHECKING:
    from headstart.backbones import InputOptions
    from headstart.heads import Training


@app.command()
def fit(
    data: Annotated[str, typer.Argument(help="Folder, zip or tar, table (.csv, .parquet, .jsonl) or URL of these.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")] = Path("model"),
    backbone: Annotated[str, typer.Option(help="headstart-s or onnx:FILE.")] = "headstart-s",
    cut: Annotated[
        str, typer.Option(help="auto, a tap, or several with commas; any tensor of an onnx: graph.")
    ] = "auto",
    head: Annotated[str, typer.Option(help="auto, ridge, lda, centroid, logistic or mlp.")] = "auto",
    dropout: Annotated[
        float | None, typer.Option(help="Dropout rate: of the ridge head in closed form, or of the mlp head.")
    ] = None,
    hidden: HiddenOption = None,
    optimiser: OptimiserOption = None,
    lr: RateOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    patience: PatienceOption = None,
    stop_at_accuracy: StopOption = None,
    class_weights: ClassWeightsOption = None,
    views: Annotated[int, typer.Option(min=1, help="Views of each training picture to learn from.")] = 1,
    augmentation: Annotated[str, typer.Option(help="How the views differ: flip, light or lesson.")] = "light",
    group_by: Annotated[str, typer.Option(help="auto (near duplicates), none, or a table's column.")] = "auto",
    validation: Annotated[str | None, typer.Option(help="Data set, or share of the groups to hold out.")] = None,
    coverage: CoverageOption = 0.95,
    false_alarms: FalseAlarmsOption = 0.05,
    mean: MeanOption = None,
    std: StdOption = None,
    channels: ChannelsOption = None,
    input_size: SizeOption = None,
    crop: CropOption = None,
    resize: ResizeOption = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    seed: Annotated[int, typer.Option(help="For what is drawn at random.")] = 0,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep features on disk.")] = True,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Learn to tell the classes of DATA apart, and write a model folder."""
    started = time.perf_counter()
    from headstart.bundle import check_target
    from headstart.classifier import ImageClassifier
    from headstart.curves import curves_svg, curves_text

    check_target(output)  # before the work, not after it
    training = _training(
        head, hidden=hidden, optimiser=optimiser, rate=lr, epochs=epochs, batch=batch_size, patience=patience,
        stop_at_accuracy=stop_at_accuracy, class_weights=class_weights,
    )  # fmt: skip
    classifier = ImageClassifier(
        backbone=backbone, cut=cut, head=head, dropout=dropout, group_by=group_by,
        validation=_validation(validation), coverage=coverage, false_alarms=false_alarms, runtime=runtime,
        precision=precision, workers=workers, seed=seed,
        input_options=_input_options(mean, std, channels, input_size, crop, resize), cache=cache, views=views,
        augmentation=augmentation, training=training,
    )  # fmt: skip
    with progress_bar("Reading features", quiet, progress) as report:
        classifier.fit(data, progress=report)
    folder = classifier.save(output)
    history = classifier.run_["training"]
    if history:
        (Path(folder) / "training.svg").write_text(curves_svg(history), "utf-8")
    if not quiet:
        for note in classifier.notes_:
            print(line(f"note: {note}"), file=sys.stderr)
    tell_quarantine(classifier.quarantined_, quiet)
    if as_json:
        run = classifier.run_
        images = {**run["images"], "quarantined": len(run["images"]["quarantined"])}
        shown = {"model": folder, "classes": run["classes"], "images": images}
        keys = ("groups", "backbone", "cut", "head", "runtime", "accuracy", "learning_curve", "seconds", "cache")
        print_json(shown | {key: run[key] for key in keys})
    else:
        print_fit(classifier, folder, time.perf_counter() - started)
        if history:
            print(curves_text(history))
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
    """Name the class of each picture, most probable first, or none of these; and the set that holds the true one."""
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
            from headstart.comparison import compare

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
    from headstart.images import is_picture_name

    return Path(path).is_dir() or ("." in Path(path).name and not is_picture_name(path) and Path(path).exists())


def _validation(value: str | None) -> str | float | None:
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value


def _training(head: str, **given: object) -> Training | None:
    """How an mlp head is trained: what was given, and the defaults."""
    from headstart.heads import Training

    some: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if some and head != "mlp":
        raise OptionError(f"Only the mlp head is trained; give --head mlp, or leave {', '.join(some)} out.")
    return Training(**some) if some else None


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
