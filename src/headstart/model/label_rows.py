"""Predictions of several labels as rows of tables and objects of JSON: one for each input, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headstart.data import Dataset
from headstart.files import table_path, table_row, table_text
from headstart.model.label_predictions import MultiLabelPredictions
from headstart.model.prediction_rows import input_rows

FIXED = ["path", "labels", "none_of_these", "set", "distance", "error"]


def json_objects(dataset: Dataset, predictions: MultiLabelPredictions) -> Iterator[dict[str, Any]]:
    """Yield the JSON object of each input, with every label, its probability and whether it is said to hold."""
    decisions = predictions.decisions
    for path, i, error in input_rows(dataset, predictions):
        if i is None:
            yield {"path": path, "error": error}
            continue
        yield {
            "path": path,
            "labels": [
                {
                    "label": predictions.classes[c],
                    "probability": float(predictions.probabilities[i, c]),
                    "holds": bool(decisions[i, c]),
                }
                for c in predictions.ranking(i)
            ],
            "none_of_these": None if predictions.is_rejected is None else bool(predictions.is_rejected[i]),
            "set": predictions.prediction_set(i),
            "distance": None if predictions.ood_scores is None else float(predictions.ood_scores[i]),
        }


def table_columns(labels: Sequence[str]) -> list[str]:
    """Return the columns of a table: two for each label, its probability and whether it is said to hold (0 or 1)."""
    return FIXED + [f"{kind}_{name}" for name in labels for kind in ("p", "has")]


def csv_rows(dataset: Dataset, predictions: MultiLabelPredictions) -> Iterator[str]:
    """Yield a line of comma-separated values for each input, with the columns of ``table_columns``."""
    decisions = predictions.decisions
    for path, i, error in input_rows(dataset, predictions):
        if i is None:
            yield table_row([table_path(path), *[""] * 4, table_text(error), *[""] * (2 * len(predictions.classes))])
            continue
        is_rejected = "" if predictions.is_rejected is None else str(bool(predictions.is_rejected[i])).lower()
        names, members = ("|".join(found) for found in (predictions.names(i), predictions.prediction_set(i) or []))
        distance = "" if predictions.ood_scores is None else f"{predictions.ood_scores[i]:.6f}"
        cells = [
            cell
            for p, holds in zip(predictions.probabilities[i], decisions[i], strict=True)
            for cell in (f"{p:.6f}", str(int(holds)))
        ]
        first = [table_path(path), table_text(names), is_rejected, table_text(members), distance, ""]
        yield table_row([*first, *cells])


def arrow_columns(dataset: Dataset, predictions: MultiLabelPredictions) -> dict[str, list[Any]]:
    """Return the columns of ``table_columns`` as lists with one value for each input, None where there is none."""
    decisions = predictions.decisions
    rows: list[list[Any]] = []
    for path, i, error in input_rows(dataset, predictions):
        if i is None:
            rows.append([path, None, None, None, None, error, *[None] * (2 * len(predictions.classes))])
            continue
        is_rejected = None if predictions.is_rejected is None else bool(predictions.is_rejected[i])
        distance = None if predictions.ood_scores is None else float(predictions.ood_scores[i])
        first = [path, predictions.names(i), is_rejected, predictions.prediction_set(i), distance, None]
        pairs = zip(predictions.probabilities[i].tolist(), decisions[i].tolist(), strict=True)
        rows.append([*first, *(value for pair in pairs for value in pair)])
    columns = table_columns(predictions.classes)
    return {name: [row[place] for row in rows] for place, name in enumerate(columns)}
