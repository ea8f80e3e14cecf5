"""Predictor: model folder in, predictions out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.data import Dataset, Quarantined, as_dataset
from headstart.errors import DataError, OptionError
from headstart.features import Compute
from headstart.features.extractor import load_backbone_graph
from headstart.features.features import Progress, embed_exactly
from headstart.features.runtime import Graph
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
    _graphs: dict[tuple[str, Compute], Graph] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[Predictor], tuple[Model, Compute]]:
        """Return what travels to another process: all but the loaded graphs."""
        return Predictor, (self.model, self.compute)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], compute: Compute | None = None) -> Predictor:
        """Read a model folder. Raises ModelError for one that is damaged, hostile, or of another format."""
        return cls(read_model(folder), compute or Compute())

    @property
    def compute_of_model(self) -> Compute:
        """What runs the model: ``compute`` in int8 where the model is quantised, whatever else but bf16 it asks for.

        Raises OptionError where it asks for int8 and the model is not.
        """
        if self.model.precision != "int8":
            if self.compute.precision == "int8":
                raise OptionError("This model computes in fp32; leave out --precision int8, or fit it again with it.")
            return self.compute
        return self.compute if self.compute.precision == "bf16" else replace(self.compute, precision="int8")

    def predict(self, images: Any, *, progress: Progress | None = None) -> Predictions:
        """Predict every readable image; the others are quarantined.

        ``images`` is a dataset, the path or URL of one, or a list of paths, file bytes or uint8 arrays [height, width,
        3]. Where all images have labels, the predictions know the true classes. Raises DataError.
        """
        return self.predict_dataset(as_dataset(images), progress=progress)

    def predict_dataset(self, dataset: Dataset, *, progress: Progress | None = None) -> Predictions:
        """Predict every readable image of a dataset."""
        model = self.model
        is_labelled = all(item.label is not None for item in dataset.items)
        features = embed_exactly(
            dataset,
            model.as_backbone(),
            self.compute_of_model,
            load=self._load_graph,
            is_loaded=bool(self._graphs),
            hashes=is_labelled,
            progress=progress,
        )
        values = features.values["probabilities"].astype(np.float64).reshape(-1, len(model.classes))
        items = [dataset.items[i] for i in features.index]
        predictions = Predictions(
            model.classes,
            tuple(item.path for item in items),
            features.index,
            values / values.sum(axis=1, keepdims=True),
            quarantined=(*dataset.quarantined, *features.quarantined),
            thresholds=model.thresholds,
            ood_scores=features.values["distance"].astype(np.float64).reshape(-1),
            notes=features.notes,
            rule=model.rule,
        )
        if not is_labelled:
            return predictions
        truth, unknown = encode_truth(model.classes, [str(item.label) for item in items])
        known = model.is_training_image(features.content_hashes)
        return replace(predictions, truth=truth, unknown_classes=unknown, is_training_image=known)

    def features(self, images: Any, *, progress: Progress | None = None) -> NDArray[np.float32]:
        """Return the features [n, d] of images that the head turns into probabilities: the vectors of its taps.

        ``images`` is as for ``predict``. Raises DataError if one cannot be read: there is a row for each.
        """
        from headstart.model.compose import features_graph

        dataset, backbone = as_dataset(images), features_graph(self.model)
        features = embed_exactly(dataset, backbone, self.compute_of_model, load=self._load_graph, progress=progress)
        check_all_read((*dataset.quarantined, *features.quarantined))
        return features.deepest.astype(np.float32, copy=False).reshape(-1, backbone.taps[0].channels)

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

    def _load_graph(self, backbone: Backbone, compute: Compute) -> Graph:
        """Load the graph once for each number of threads: compiling it takes longer than to predict an image."""
        with self._lock:
            key = (backbone.id, compute)
            if key not in self._graphs:
                self._graphs[key] = load_backbone_graph(backbone, compute)
            return self._graphs[key]

    def verify(self) -> Verification:
        """Replay the golden sample on this machine. Raises VerifyError on a difference beyond the tolerance."""
        return verify(self.model, self.compute_of_model.resolve())


def check_all_read(quarantined: Sequence[Quarantined]) -> None:
    """Raise DataError where images could not be read, naming the first."""
    if quarantined:
        first = quarantined[0]
        raise DataError(f"{len(quarantined)} images cannot be read, first {first.path}: {first.reason}")


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
