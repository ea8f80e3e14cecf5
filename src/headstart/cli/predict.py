"""headstart predict"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.options import (
    CONDITION_FAILED,
    WRONG_INPUT,
    Format,
    Messages,
    ModelArgument,
    ReadFlags,
    RunOptions,
    save_memory,
)
from headstart.cli.terminal import line, print_json, print_notes, print_prediction, print_quarantined, print_skipped
from headstart.errors import DataError, ImageError, OptionError

if TYPE_CHECKING:
    from headstart.data import Dataset
    from headstart.model import Predictions


def predict(
    model: ModelArgument,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Images, or folders, archives and tables of them.")
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 1,
    reading: ReadFlags = ReadFlags(),
    form: Format = Format(),
    run: RunOptions = RunOptions(),
    messages: Messages = Messages(),
) -> None:
    """Predict the class of images, or none of these."""
    from headstart.model import Predictor

    if form.as_json and form.as_csv:
        raise OptionError("--json and --csv exclude each other; give one.")
    predictor = Predictor.load(model, run.compute)
    dataset = _open_inputs(images, reading)
    save_memory(len(dataset))
    with messages.bar("Predicting") as bar:
        predictions = predictor.predict(dataset, progress=bar)
    count = min(top, len(predictions.classes))
    if form.as_json:
        _print_json_lines(dataset, predictions, count)
    elif form.as_csv:
        _print_csv(dataset, predictions, count)
    else:
        for i in range(len(predictions)):
            print_prediction(predictions, i, count)
    print_notes([*dataset.notes, *predictions.notes])
    print_skipped(dataset)
    print_quarantined([vars(image) for image in predictions.quarantined])
    if not len(predictions):
        raise typer.Exit(WRONG_INPUT)
    if predictions.quarantined:
        raise typer.Exit(CONDITION_FAILED)


def _open_inputs(inputs: list[str], reading: ReadFlags) -> Dataset:
    """Open images, and folders, archives and tables of them, in the order given; one that cannot be opened stays."""
    from headstart.data import concatenate, from_images, open_dataset

    datasets: list[Dataset] = []
    for is_container, group in groupby(inputs, _is_container):
        if not is_container:
            datasets.append(from_images([*group]))
            continue
        for path in group:
            options = reading.read_options()
            if options.layout == "auto":
                options = replace(options, layout="image")  # every image is an input, whatever its folder
            try:
                datasets.append(open_dataset(path, options))
            except DataError as error:
                datasets.append(_unreadable(path, str(error)))
    return reduce(concatenate, datasets)


def _is_container(path: str) -> bool:
    from headstart.data.archives import ARCHIVE_SUFFIXES
    from headstart.data.table_files import is_table

    return os.path.isdir(path) or is_table(path) or path.lower().endswith(ARCHIVE_SUFFIXES)  # noqa: PTH112


def _unreadable(path: str, reason: str) -> Dataset:
    """Return a dataset of one input that cannot be read."""
    from headstart.data import from_images

    def read(_: int) -> bytes:
        raise ImageError(reason)

    return replace(from_images([path]), reader=read)


def _results(dataset: Dataset, predictions: Predictions) -> Iterator[tuple[str, int | None, str]]:
    """Yield, for every input in order, its path, its place in the predictions or None, and why it was not read."""
    place = {int(row): i for i, row in enumerate(predictions.rows)}
    reasons = {image.path: image.reason for image in predictions.quarantined}
    for row, item in enumerate(dataset.items):
        yield item.path, place.get(row), "" if row in place else reasons.get(item.path, "")
    for image in dataset.quarantined:
        yield image.path, None, image.reason


def _best(predictions: Predictions, i: int, count: int) -> list[tuple[str, float]]:
    probabilities = predictions.probabilities[i]
    return [(predictions.classes[c], float(probabilities[c])) for c in predictions.ranking(i)[:count]]


def _print_json_lines(dataset: Dataset, predictions: Predictions, count: int) -> None:
    for path, i, error in _results(dataset, predictions):
        if i is None:
            print_json({"path": path, "error": error})
            continue
        result: dict[str, Any] = {
            "path": path,
            "classes": [{"class": name, "probability": p} for name, p in _best(predictions, i, count)],
            "none_of_these": None if predictions.is_rejected is None else bool(predictions.is_rejected[i]),
            "set": predictions.prediction_set(i),
            "distance": None if predictions.ood_scores is None else float(predictions.ood_scores[i]),
        }
        print_json(result)


def _print_csv(dataset: Dataset, predictions: Predictions, count: int) -> None:
    from headstart.files import table_path, table_row, table_text

    show = line if sys.stdout.isatty() else str  # control characters could steer a terminal
    columns = [f"{kind}_{i + 1}" for i in range(count) for kind in ("class", "probability")]
    print(table_row(["path", *columns, "none_of_these", "set", "error"]), end="")
    for path, i, error in _results(dataset, predictions):
        if i is None:
            print(table_row([show(table_path(path)), *[""] * (len(columns) + 2), show(table_text(error))]), end="")
            continue
        best = [value for name, p in _best(predictions, i, count) for value in (show(table_text(name)), f"{p:.6f}")]
        is_rejected = "" if predictions.is_rejected is None else str(bool(predictions.is_rejected[i])).lower()
        names = show(table_text("|".join(predictions.prediction_set(i) or [])))
        print(table_row([show(table_path(path)), *best, is_rejected, names, ""]), end="")
