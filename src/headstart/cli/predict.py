"""headstart predict"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.label_output import print_labels
from headstart.cli.options import (
    CONDITION_FAILED,
    WRONG_INPUT,
    Format,
    Messages,
    ModelArgument,
    ReadFlags,
    RunOptions,
    common,
    files_follow,
    save_memory,
)
from headstart.cli.terminal import line, print_json, print_notes, print_prediction, print_quarantined, print_skipped
from headstart.errors import OptionError

if TYPE_CHECKING:
    from headstart.data import Dataset, Quarantined
    from headstart.model import Predictions, Predictor
    from headstart.model.explain import Explainer
    from headstart.model.model import Model
    from headstart.model.prediction_file import PredictionFile


@dataclass(frozen=True)
class PredictFlags:
    """What becomes of the predictions."""

    output: Annotated[
        Path | None,
        common(
            "-o",
            "--output",
            metavar="FILE",
            help="Write all probabilities to FILE (.csv, .jsonl, .parquet); a run that was stopped is continued.",
        ),
    ] = None
    top: Annotated[int, common(min=1, help="How many classes to name on standard output.")] = 1
    explain: Annotated[
        Path | None, common(metavar="DIR", help="Write each image with its class activation map to DIR, or DIR/LABEL.")
    ] = None
    copy_to: Annotated[
        Path | None, common(metavar="DIR", help="Copy each image to DIR/CLASS, or DIR/LABEL; no file is overwritten.")
    ] = None


def predict(
    model: ModelArgument,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Images, or folders, archives and tables of them.")
    ],
    flags: PredictFlags = PredictFlags(),
    reading: ReadFlags = ReadFlags(),
    form: Format = Format(),
    run: RunOptions = RunOptions(),
    messages: Messages = Messages(),
) -> None:
    """Predict the class of images, or none of these."""
    from headstart.data.inputs import open_inputs
    from headstart.model import Predictor

    if form.as_json and form.as_csv:
        raise OptionError("--json and --csv exclude each other; give one.")
    if flags.output is not None and (form.as_json or form.as_csv):
        raise OptionError("The form of a file is that of its name; leave --json and --csv out, or -o.")
    _check_places([flags.output, flags.explain, flags.copy_to], images)
    predictor = Predictor.load(model, run.compute)
    if predictor.model.is_multi_label:
        _check_flags_of_labels(flags)
    explainer = None if flags.explain is None else _explainer(predictor)
    dataset = open_inputs(images, reading.read_options())
    save_memory(len(dataset))
    file, start = _begin_file(flags.output, images, dataset, predictor)
    if flags.output is None and messages.progress is None and sys.stdout.isatty():
        messages = replace(messages, progress=False)  # the rows are the progress, and a bar would be among them
    notes: list[str] = [*dataset.notes]
    quarantined: list[Quarantined] = []
    without_label = 0
    if file is None and form.as_csv:
        print(_csv_header(predictor.model, flags.top), end="")
    with messages.bar("Predicting") as bar:
        for part, predictions in predictor.predict_in_parts(dataset, start=start, progress=bar):
            without_label += _write_images(explainer, part, predictions, flags)
            if file is None:
                with files_follow() if flags.explain or flags.copy_to else nullcontext():
                    _print_rows(part, predictions, form, flags.top)
            else:
                file.add(part, predictions, start)
            start += len(part)
            notes += predictions.notes
            quarantined += predictions.quarantined
    count = len(dataset) + len(dataset.quarantined)
    errors = len(quarantined) if file is None else file.finish(start)
    if file is not None:
        print(line(f"{file.path} has {count} rows, {errors} of which could not be read"))
    if without_label:
        images_have = "1 image has" if without_label == 1 else f"{without_label:,} images have"
        notes.append(f"{images_have} no label: the map is that of the most probable one, in {flags.explain}/_no_label.")
    print_notes(notes)
    print_skipped(dataset)
    print_quarantined([vars(image) for image in quarantined])
    if errors:
        raise typer.Exit(WRONG_INPUT if errors == count else CONDITION_FAILED)


def _check_flags_of_labels(flags: PredictFlags) -> None:
    """Raise OptionError for what is of one class an image."""
    if flags.top != 1:
        raise OptionError("This model gives an image several labels, and every one is named; leave --top out.")


def _begin_file(
    path: Path | None, images: list[str], dataset: Dataset, predictor: Predictor
) -> tuple[PredictionFile | None, int]:
    """Return the file to write and how many of its inputs it has already, from a run that was stopped."""
    if path is None:
        return None, 0
    from headstart.model.prediction_file import prediction_file

    runtime = predictor.compute_of_model.resolve().key
    file = prediction_file(path, images, dataset, predictor.model, runtime)
    start = file.begin()
    if start:
        print_notes([f"{file.part} has the first {start:,} of {len(dataset):,} inputs already; the rest follows."])
    return file, start


def _check_places(places: list[Path | None], images: list[str]) -> None:
    """Raise OptionError for a place that is or lies in an input: the next run would read what this one writes."""
    folders = {os.path.realpath(name): name for name in images if os.path.isdir(name)}  # noqa: PTH112
    for place in places:
        real = None if place is None else Path(os.path.realpath(place))
        inside = [] if real is None else [folders[str(p)] for p in (real, *real.parents) if str(p) in folders]
        if inside:
            where = "is" if str(real) in folders else "lies in"
            raise OptionError(f"{place} {where} {inside[0]}, whose images are predicted; give a place outside of it.")


def _explainer(predictor: Predictor) -> Explainer:
    from headstart.model.explain import Explainer

    return Explainer.of(predictor.model)


def _write_images(explainer: Explainer | None, part: Dataset, predictions: Predictions, flags: PredictFlags) -> int:
    """Write the class activation maps and the sorted copies of some images, where they are asked for.

    Return how many maps are of a label that does not hold, since none does.
    """
    without_label = 0
    if explainer is not None and flags.explain is not None:
        without_label = explainer.write(part, predictions, flags.explain)
    if flags.copy_to is not None:
        from headstart.model.sorted_copies import copy_sorted

        copy_sorted(part, predictions, flags.copy_to)
    return without_label


def _print_rows(part: Dataset, predictions: Predictions, form: Format, top: int) -> None:
    """Print predictions as they come; whoever reads them has them at once."""
    from headstart.model import label_rows
    from headstart.model.label_predictions import MultiLabelPredictions
    from headstart.model.prediction_rows import json_objects

    count = min(top, len(predictions.classes))
    if isinstance(predictions, MultiLabelPredictions):
        if form.as_json:
            for value in label_rows.json_objects(part, predictions):
                print_json(value)
        elif form.as_csv:
            for row in label_rows.csv_rows(part, predictions):
                print(_shown(row), end="")
        else:
            for i in range(len(predictions)):
                print_labels(predictions, i)
    elif form.as_json:
        for value in json_objects(part, predictions, count):
            print_json(value)
    elif form.as_csv:
        _print_csv(part, predictions, count)
    else:
        for i in range(len(predictions)):
            print_prediction(predictions, i, count)
    sys.stdout.flush()


def _shown(row: str) -> str:
    """Return a row of a table as it is, on a terminal without control characters, which could steer it."""
    return f"{line(row.rstrip())}\n" if sys.stdout.isatty() else row


def _csv_header(model: Model, top: int) -> str:
    from headstart.files import table_row, table_text
    from headstart.model import label_rows

    if model.is_multi_label:
        return _shown(table_row([table_text(name) for name in label_rows.table_columns(model.classes)]))
    count = min(top, len(model.classes))
    columns = [f"{kind}_{i + 1}" for i in range(count) for kind in ("class", "probability")]
    return table_row(["path", *columns, "none_of_these", "set", "error"])


def _print_csv(part: Dataset, predictions: Predictions, count: int) -> None:
    from headstart.files import table_path, table_row, table_text
    from headstart.model.prediction_rows import best_classes, input_rows

    show = line if sys.stdout.isatty() else str  # control characters could steer a terminal
    for path, i, error in input_rows(part, predictions):
        if i is None:
            print(table_row([show(table_path(path)), *[""] * (2 * count + 2), show(table_text(error))]), end="")
            continue
        best = best_classes(predictions, i, count)
        cells = [value for name, p in best for value in (show(table_text(name)), f"{p:.6f}")]
        is_rejected = "" if predictions.is_rejected is None else str(bool(predictions.is_rejected[i])).lower()
        names = show(table_text("|".join(predictions.prediction_set(i) or [])))
        print(table_row([show(table_path(path)), *cells, is_rejected, names, ""]), end="")
