"""Answers as JSON: the list of the Hugging Face task, and the whole answer."""

from __future__ import annotations

from typing import Any

from headstart.model.label_predictions import MultiLabelPredictions
from headstart.model.prediction_rows import best_classes
from headstart.serve.engine import Activation, Answer, Engine
from headstart.stats.conformal import NOT_MEASURED

TOP = 5  # classes in an answer, as the Hugging Face task has it


def scores(answer: Answer, top: int | None) -> list[dict[str, Any]]:
    """Return the ``top`` classes with their probabilities: the predicted one, then the most probable.

    Of several labels an image all are given by default, each with the probability from which on it holds.
    """
    predictions = answer.predictions
    if isinstance(predictions, MultiLabelPredictions):
        assert predictions.label_thresholds is not None
        thresholds, holds = predictions.label_thresholds.thresholds, predictions.decisions[0]
        return [
            {
                "label": predictions.classes[c],
                "score": float(predictions.probabilities[0, c]),
                "threshold": thresholds[c],
                "holds": bool(holds[c]),
            }
            for c in predictions.ranking(0)[:top]
        ]
    return [{"label": label, "score": score} for label, score in best_classes(predictions, 0, top or TOP)]


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
        "coverage": thresholds.coverage if thresholds.is_measured else None,
        "model": engine.model.sha256,
    }
    if not thresholds.is_measured:
        values["note"] = NOT_MEASURED
    activations = [_activation(activation, engine) for activation in answer.activations]
    if isinstance(predictions, MultiLabelPredictions):
        values |= {"labels": predictions.names(0), "could_have": predictions.further(0)}
        return values | {"activations": activations} if explain else values
    return values | {"activation": activations[0] if activations else None} if explain else values


def _activation(activation: Activation, engine: Engine) -> dict[str, Any]:
    return {
        "box": list(activation.box),
        "values": activation.values.tolist(),
        "positive": engine.model.classes[activation.positive],
        "negative": None if activation.negative is None else engine.model.classes[activation.negative],
    }
