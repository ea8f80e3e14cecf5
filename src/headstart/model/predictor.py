"""Predictor: model folder in, predictions out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from headstart.data import Dataset, as_dataset
from headstart.errors import DataError
from headstart.features import Compute, embed
from headstart.features.features import Progress
from headstart.model.folder import read_model
from headstart.model.golden import Verification, verify
from headstart.model.model import Model
from headstart.model.predictions import Evaluation, Predictions, encode_truth, evaluate


@dataclass(frozen=True)
class Predictor:
    """A model that predicts, and what runs it.

    >>> predictor = Predictor.load("model")            # doctest: +SKIP
    >>> predictor.predict(["new.jpg"]).probabilities   # doctest: +SKIP
    """

    model: Model
    compute: Compute = field(default_factory=Compute)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], compute: Compute | None = None) -> Predictor:
        """Read a model folder. Raises ModelError for one that is damaged, hostile, or of another format."""
        return cls(read_model(folder), compute or Compute())

    def predict(self, images: Any, *, progress: Progress | None = None) -> Predictions:
        """Predict every readable image; the others are quarantined.

        ``images`` is a dataset, the path or URL of one, or a list of paths, file bytes or uint8 arrays [height, width,
        3]. Where all images have labels, the predictions know the true classes. Raises DataError.
        """
        return self.predict_dataset(as_dataset(images), progress=progress)

    def predict_dataset(self, dataset: Dataset, *, progress: Progress | None = None) -> Predictions:
        """Predict every readable image of a dataset."""
        model = self.model
        features = embed(dataset, model.as_backbone(), self.compute, exact=True, progress=progress)
        values = features.values["probabilities"].astype(np.float64).reshape(-1, len(model.classes))
        items = [dataset.items[i] for i in features.index]
        predictions = Predictions(
            model.classes,
            tuple(item.path for item in items),
            np.arange(len(items)),
            values / values.sum(axis=1, keepdims=True),
            quarantined=(*dataset.quarantined, *features.quarantined),
            thresholds=model.thresholds,
            ood_scores=features.values["distance"].astype(np.float64).reshape(-1),
        )
        if any(item.label is None for item in items):
            return predictions
        truth, unknown = encode_truth(model.classes, [str(item.label) for item in items])
        return replace(predictions, truth=truth, unknown_classes=unknown)

    def evaluate(self, images: Any, *, progress: Progress | None = None) -> Evaluation:
        """Evaluate the model on labelled images that had no part in training.

        Of a dataset with splits the validation images count, or the test images where there are none. Classes are
        matched by name. Raises DataError where there are no labels, or no image can be read.
        """
        dataset = labelled_part(as_dataset(images))
        predictions = self.predict_dataset(dataset, progress=progress)
        if not len(predictions):
            raise DataError(f"None of the {len(dataset)} images of {dataset.uri} can be read.")
        return evaluate(predictions)

    def verify(self) -> Verification:
        """Replay the golden sample on this machine. Raises VerifyError on a difference beyond the tolerance."""
        return verify(self.model, self.compute.resolve())


def labelled_part(dataset: Dataset) -> Dataset:
    """Return the labelled images to evaluate on: those of the validation split, else of the test split, else all.

    Raises DataError where there are no labels.
    """
    for name in ("validation", "test"):
        if name in dataset.splits:
            dataset = dataset.split(name)
            break
    labelled = [i for i, item in enumerate(dataset.items) if item.label is not None]
    if not labelled:
        raise DataError(f"{dataset.uri} has no labels to compare with; put the images in one folder per class.")
    return dataset.select(labelled)
