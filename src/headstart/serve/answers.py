"""Answers as JSON: the list of the Hugging Face task, and the whole answer."""

from __future__ import annotations

from typing import Any

from headstart.model.prediction_rows import best_classes
from headstart.serve.engine import Activation, Answer, Engine

TOP = 5  # classes in an answer, as the Hugging Face task has it


def scores(answer: Answer, top: int) -> list[dict[str, Any]]:
    """Return the ``top`` classes with their probabilities: the predicted one, then the most probable."""
    return [{"label": label, "score": score} for label, score in best_classes(answer.predictions, 0, top)]


def full(answer: Answer, engine: Engine, top: int | None, explain: bool) -> dict[str, Any]:
    """Return all that the model says of an image."""
    predictions, thresholds = answer.predictions, engine.model.thresholds
    assert predictions.ood_scores is not None
    values: dict[str, Any] = {
        "predictions": scores(answer, top or len(predictions.classes)),
        "set": predictions.prediction_set(0),
        "none_of_these": None if predictions.is_rejected is None else bool(predictions.is_rejected[0]),
        "distance": float(predictions.ood_scores[0]),
        "reject_threshold": thresholds.to_dict()["reject_threshold"],
        "coverage": thresholds.coverage,
        "model": engine.model.sha256,
    }
    if explain:
        values["activation"] = None if answer.activation is None else _activation(answer.activation, engine)
    return values


def _activation(activation: Activation, engine: Engine) -> dict[str, Any]:
    return {
        "box": list(activation.box),
        "values": activation.values.tolist(),
        "positive": engine.model.classes[activation.positive],
        "negative": engine.model.classes[activation.negative],
    }
