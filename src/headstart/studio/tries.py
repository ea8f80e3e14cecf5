"""Trying the model on an image that is not in the project, and keeping the last ones to add them where it was wrong."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import ImageError
from headstart.images.decoding import decode
from headstart.model import Predictor
from headstart.model.explain import Explainer, side_by_side
from headstart.model.label_predictions import MultiLabelPredictions
from headstart.model.model import Model
from headstart.studio.choice import FullChoice
from headstart.studio.engine import Engine
from headstart.studio.image_files import png, suffix_of
from headstart.studio.opening import ID_LENGTH

KEPT = 32  # images
MAX_KEPT_BYTES = 128 * 2**20


class Tries:
    """The images that were tried last, and the loaded model. Safe with several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: OrderedDict[str, tuple[bytes, str]] = OrderedDict()
        self._lock = threading.Lock()
        self._loaded: tuple[FullChoice, Predictor, Explainer | None] | None = None

    def kept(self, id: str) -> tuple[bytes, str]:
        """Return the bytes and the ending of an image that was tried. Raises KeyError."""
        with self._lock:
            return self._kept[id]

    def predict(self, full: FullChoice, data: bytes, *, with_map: bool) -> dict[str, Any]:
        """Predict one image, in the JSON form of the API. Raises ImageError."""
        suffix = suffix_of(data)
        predictor, explainer = self._load(full)
        predictions = predictor.predict([data])
        if not len(predictions):
            raise ImageError(predictions.quarantined[0].reason)
        if isinstance(predictions, MultiLabelPredictions):
            values = _label_values(predictions)
            picture = None
            if with_map and explainer is not None:
                picture = _label_map(predictor.model, explainer, data, predictions.ranking(0)[0])
            return {"try": self._keep(data, suffix), **values, "map": picture, "model_version": full.version}
        thresholds, scores = predictions.thresholds, predictions.ood_scores
        assert thresholds is not None
        assert scores is not None
        assert predictions.is_rejected is not None
        ranking, names = predictions.ranking(0), predictions.classes
        picture = None
        if with_map and explainer is not None:
            picture = _map(predictor.model, explainer, data, ranking)
        return {
            "try": self._keep(data, suffix),
            "probabilities": [{"label": names[c], "score": float(predictions.probabilities[0, c])} for c in ranking],
            "predicted": names[ranking[0]],
            "set": predictions.prediction_set(0),
            "coverage": thresholds.coverage,
            "none_of_these": bool(predictions.is_rejected[0]),
            "ood_score": float(scores[0]),
            "ood_threshold": thresholds.to_dict()["reject_threshold"],
            "map": picture,
            "model_version": full.version,
        }

    def _load(self, full: FullChoice) -> tuple[Predictor, Explainer | None]:
        with self._lock:
            if self._loaded is None or self._loaded[0] is not full:
                model = full.result.model
                explainer = Explainer.of_locations(model)
                self._loaded = (full, Predictor(model, self._engine.options.compute), explainer)
            return self._loaded[1], self._loaded[2]

    def _keep(self, data: bytes, suffix: str) -> str:
        id = hashlib.sha256(data).hexdigest()[:ID_LENGTH]
        with self._lock:
            self._kept[id] = (data, suffix)
            self._kept.move_to_end(id)
            while len(self._kept) > KEPT or sum(len(kept) for kept, _ in self._kept.values()) > MAX_KEPT_BYTES:
                self._kept.popitem(last=False)
        return id


def _label_values(predictions: MultiLabelPredictions) -> dict[str, Any]:
    """Return what a model says of one image that may have several labels."""
    thresholds, scores, decided = predictions.thresholds, predictions.ood_scores, predictions.label_thresholds
    assert thresholds is not None
    assert scores is not None
    assert decided is not None
    assert predictions.is_rejected is not None
    holds = predictions.decisions[0]
    return {
        "probabilities": [
            {
                "label": predictions.classes[c],
                "score": float(predictions.probabilities[0, c]),
                "threshold": decided.thresholds[c],
                "holds": bool(holds[c]),
            }
            for c in predictions.ranking(0)
        ],
        "labels": predictions.names(0),
        "could_have": predictions.further(0),
        "coverage": thresholds.coverage,
        "none_of_these": bool(predictions.is_rejected[0]),
        "ood_score": float(scores[0]),
        "ood_threshold": thresholds.to_dict()["reject_threshold"],
    }


def _label_map(model: Model, explainer: Explainer, data: bytes, label: int) -> str:
    """Return the image under the class activation map of a label, as a data address."""
    pixels = _pixels(model, data)
    (maps,) = explainer.label_activations(pixels[None], [[label]])
    return _picture(pixels, maps[0])


def _map(model: Model, explainer: Explainer, data: bytes, ranking: list[int]) -> str:
    """Return the image under its class activation map, of the predicted class against the next, as a data address."""
    pixels = _pixels(model, data)
    activation, _ = next(explainer.activations(pixels[None], np.array(ranking[:1]), np.array(ranking[1:2])))
    return _picture(pixels, activation)


def _pixels(model: Model, data: bytes) -> NDArray[np.uint8]:
    """Return an image as the network sees it."""
    preprocess = model.preprocess
    decoded = decode(
        data, min_size=preprocess.min_size, sample_range=preprocess.sample_range, scaled=preprocess.is_scaled
    )
    return preprocess(Image.fromarray(decoded))


def _picture(pixels: NDArray[np.uint8], activation: NDArray[np.float64]) -> str:
    both = np.asarray(side_by_side(pixels, activation))
    return "data:image/png;base64," + base64.b64encode(png(both[:, pixels.shape[1] :])).decode()
