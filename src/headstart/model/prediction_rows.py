"""Predictions as rows of tables and objects of JSON: one for each input, in the order of the inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headstart.data import Dataset
from headstart.files import table_path, table_row, table_text
from headstart.model.predictions import Predictions


def input_rows(dataset: Dataset, predictions: Predictions) -> Iterator[tuple[str, int | None, str]]:
    """Yield, for every input in order, its path, its place in the predictions or None, and why it was not read."""
    place = {int(row): i for i, row in enumerate(predictions.rows)}
    reasons = {image.path: image.reason for image in predictions.quarantined}
    for row, item in enumerate(dataset.items):
        yield item.path, place.get(row), "" if row in place else reasons.get(item.path, "")
    for image in dataset.quarantined:
        yield image.path, None, image.reason


def best_classes(predictions: Predictions, i: int, count: int) -> list[tuple[str, float]]:
    """Return ``count`` classes of image ``i`` with their probabilities: the predicted one, then the most probable."""
    probabilities = predictions.probabilities[i]
    return [(predictions.classes[c], float(probabilities[c])) for c in predictions.ranking(i)[:count]]


def json_objects(dataset: Dataset, predictions: Predictions, count: int) -> Iterator[dict[str, Any]]:
    """Yield the JSON object of each input, with ``count`` classes."""
    for path, i, error in input_rows(dataset, predictions):
        if i is None:
            yield {"path": path, "error": error}
            continue
        yield {
            "path": path,
            "classes": [{"class": name, "probability": p} for name, p in best_classes(predictions, i, count)],
            "none_of_these": None if predictions.is_rejected is None else bool(predictions.is_rejected[i]),
            "set": predictions.prediction_set(i),
            "distance": None if predictions.ood_scores is None else float(predictions.ood_scores[i]),
        }


def table_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of a table with the probabilities of all classes."""
    fixed = ["path", "class", "probability", "none_of_these", "set", "distance", "error"]
    return fixed + [f"p_{name}" for name in classes]


def csv_rows(dataset: Dataset, predictions: Predictions) -> Iterator[str]:
    """Yield a line of comma-separated values for each input, with the columns of ``table_columns``."""
    for path, i, error in input_rows(dataset, predictions):
        if i is None:
            yield table_row([table_path(path), *[""] * 5, table_text(error), *[""] * len(predictions.classes)])
            continue
        ((name, probability),) = best_classes(predictions, i, 1)
        is_rejected = "" if predictions.is_rejected is None else str(bool(predictions.is_rejected[i])).lower()
        names = table_text("|".join(predictions.prediction_set(i) or []))
        distance = "" if predictions.ood_scores is None else f"{predictions.ood_scores[i]:.6f}"
        probabilities = [f"{p:.6f}" for p in predictions.probabilities[i]]
        first = [table_path(path), table_text(name), f"{probability:.6f}", is_rejected, names, distance, ""]
        yield table_row([*first, *probabilities])


def arrow_columns(dataset: Dataset, predictions: Predictions) -> dict[str, list[Any]]:
    """Return the columns of ``table_columns`` as lists with one value for each input, None where there is none."""
    rows: list[list[Any]] = []
    for path, i, error in input_rows(dataset, predictions):
        if i is None:
            rows.append([path, None, None, None, None, None, error, *[None] * len(predictions.classes)])
            continue
        ((name, probability),) = best_classes(predictions, i, 1)
        is_rejected = None if predictions.is_rejected is None else bool(predictions.is_rejected[i])
        distance = None if predictions.ood_scores is None else float(predictions.ood_scores[i])
        first = [path, name, probability, is_rejected, predictions.prediction_set(i), distance, None]
        rows.append([*first, *predictions.probabilities[i].tolist()])
    columns = table_columns(predictions.classes)
    return {name: [row[place] for row in rows] for place, name in enumerate(columns)}
