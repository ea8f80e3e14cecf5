"""Training curves in ``run.json``: of the training of an mlp head, or of the folds of a fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart.report.training_curves import Curve, Curves
from headstart.report.view.run_values import RunValues, finite_number

MAX_EPOCHS = 100_000
MAX_TRAININGS = 50
SERIES = {"": "training images", "held_out_": "groups left out", "validation_": "validation for early stopping"}
ALL_IMAGES = "all images"  # the name in run.json of a fine-tuning's last training, which leaves no images out


def read_training_curves(run: RunValues) -> Curves | None:
    """Return the curves of a training, None where nothing was trained.

    Of a fine-tuning they are the means over the trainings that each leave a fold out. A training that stopped earlier
    than others counts on with its last epoch.
    """
    trainings = run.get("fine_tuning", "trainings")
    if isinstance(trainings, Mapping):
        folds = [_epochs(epochs) for name, epochs in list(trainings.items())[:MAX_TRAININGS] if name != ALL_IMAGES]
        folds = [fold for fold in folds if fold]
        title = f"mean of {len(folds)} folds"
    else:
        folds, title = [_epochs(run.get("training"))], ""
    if not folds or not folds[0]:
        return None
    return Curves(title, _curves(folds, "accuracy"), _curves(folds, "loss"))


def _epochs(entries: Any) -> list[Mapping[str, Any]]:
    """Return the records of epochs that have a training accuracy and loss."""
    records = entries[:MAX_EPOCHS] if isinstance(entries, list) else []
    return [
        record
        for record in records
        if isinstance(record, Mapping)
        and _number(record, "accuracy") is not None
        and _number(record, "loss") is not None
    ]


def _curves(folds: Sequence[Sequence[Mapping[str, Any]]], quantity: str) -> tuple[Curve, ...]:
    """Return the curves of a quantity that were measured, each the mean over the folds."""
    curves = []
    for prefix, name in SERIES.items():
        values = []
        for i in range(max(map(len, folds))):
            found = [_number(fold[min(i, len(fold) - 1)], f"{prefix}{quantity}") for fold in folds]
            numbers = [value for value in found if value is not None]
            values.append(sum(numbers) / len(numbers) if numbers else None)
        if any(value is not None for value in values):
            curves.append(Curve(name, tuple(values)))
    return tuple(curves)


def _number(record: Mapping[str, Any], key: str) -> float | None:
    """Return a value of an epoch that is not negative, and no accuracy above 1; else None."""
    value = finite_number(record.get(key))
    if value is None or value < 0 or (key.endswith("accuracy") and value > 1):
        return None
    return value
