"""headstart predict"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.options import (
    CONDITION_FAILED,
    WRONG_INPUT,
    Format,
    Messages,
    ModelArgument,
    RunOptions,
    save_memory,
)
from headstart.cli.terminal import print_prediction, print_quarantined
from headstart.errors import OptionError

if TYPE_CHECKING:
    from headstart.data import Dataset
    from headstart.model import Predictions


def predict(
    model: ModelArgument,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Images, or folders, archives and tables of them.")
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 1,
    form: Format = Format(),
    run: RunOptions = RunOptions(),
    messages: Messages = Messages(),
) -> None:
    """Predict the class of images, or none of these."""
    from headstart.model import Predictor

    if form.as_json and form.as_csv:
        raise OptionError("--json and --csv exclude each other; give one.")
    predictor = Predictor.load(model, run.compute)
    dataset = _open_inputs(images)
    save_memory(len(dataset))
    with messages.bar("Predicting") as bar:
        predictions = predictor.predict_dataset(dataset, progress=bar)
    count = min(top, len(predictions.classes))
    if form.as_json:
        _print_json_lines(predictions, count)
    elif form.as_csv:
        _print_csv(predictions, count)
    else:
        for i in range(len(predictions)):
            print_prediction(predictions, i, count)
    print_quarantined([vars(image) for image in predictions.quarantined], messages.quiet)
    if not len(predictions):
        raise typer.Exit(WRONG_INPUT)
    if predictions.quarantined:
        raise typer.Exit(CONDITION_FAILED)


def _open_inputs(inputs: list[str]) -> Dataset:
    """Open single images and behind them all folders, archives and tables."""
    from headstart.data import concatenate, from_images, open_dataset

    dataset = from_images([path for path in inputs if not _is_container(path)])
    for path in filter(_is_container, inputs):
        dataset = concatenate(dataset, open_dataset(path))
    return dataset


def _is_container(path: str) -> bool:
    from headstart.images.decode import is_image_name

    return Path(path).is_dir() or ("." in Path(path).name and not is_image_name(path) and Path(path).exists())


def _best(predictions: Predictions, i: int, count: int) -> list[tuple[str, float]]:
    probabilities = predictions.probabilities[i]
    return [(predictions.classes[c], float(probabilities[c])) for c in probabilities.argsort()[::-1][:count]]


def _print_json_lines(predictions: Predictions, count: int) -> None:
    for i, path in enumerate(predictions.paths):
        result: dict[str, Any] = {
            "path": path,
            "classes": [{"class": name, "probability": p} for name, p in _best(predictions, i, count)],
            "none_of_these": None if predictions.is_rejected is None else bool(predictions.is_rejected[i]),
            "set": predictions.prediction_set(i),
            "distance": None if predictions.ood_scores is None else float(predictions.ood_scores[i]),
        }
        print(json.dumps(result, ensure_ascii=False))
    for image in predictions.quarantined:
        print(json.dumps({"path": image.path, "error": image.reason}, ensure_ascii=False))


def _print_csv(predictions: Predictions, count: int) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    columns = [f"{kind}_{i + 1}" for i in range(count) for kind in ("class", "probability")]
    writer.writerow(["path", *columns, "none_of_these", "set"])
    for i, path in enumerate(predictions.paths):
        best = [value for name, p in _best(predictions, i, count) for value in (name, f"{p:.6f}")]
        is_rejected = "" if predictions.is_rejected is None else str(bool(predictions.is_rejected[i])).lower()
        writer.writerow([path, *best, is_rejected, "|".join(predictions.prediction_set(i) or [])])
