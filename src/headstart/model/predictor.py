"""Predictor: model folder in, predictions out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.data import Dataset, Quarantined, ReadOptions, as_dataset, group_numbers
from headstart.data.label_sets import label_matrix
from headstart.errors import DataError, OptionError
from headstart.features import Compute, Features
from headstart.features.extractor import BATCH_SIZE, load_backbone_graph
from headstart.features.features import Progress, embed_exactly, remark_notes
from headstart.features.runtime import Graph
from headstart.model.folder import read_model
from headstart.model.golden import Verification, verify
from headstart.model.label_predictions import (
    MultiLabelEvaluation,
    MultiLabelPredictions,
    check_labels_to_compare,
    evaluate_labels,
)
from headstart.model.model import Model
from headstart.model.predictions import Evaluation, Predictions, encode_truth, evaluate
from headstart.stats.conformal import NOT_MEASURED

PART = 256  # images whose results are given together: less than 3 seconds of work, and seldom a pause between two


@dataclass(frozen=True, eq=False)  # compared and hashed as one object: arrays have no one answer
class Predictor:
    """A model that predicts, and what runs it. Threads may share one, and so may processes that are forked
    while none of them loads it.

    >>> predictor = Predictor.load("model")            # doctest: +SKIP
    >>> predictor.predict(["new.jpg"]).probabilities   # doctest: +SKIP
    """

    model: Model
    compute: Compute = field(default_factory=Compute)
    _graphs: dict[tuple[int, str, Compute], Graph] = field(default_factory=dict, init=False, repr=False, compare=False)
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

        ``images`` is a dataset, the path or URL of one, or a list of paths, file bytes, PIL images or arrays, uint8 or
        floating point, [height, width, 3] or [height, width] of grey. Where all images have labels, the predictions
        know the true classes. Raises DataError.
        """
        return self.predict_dataset(as_dataset(images), progress=progress)

    def predict_in_parts(
        self, images: Any, *, start: int = 0, progress: Progress | None = None
    ) -> Iterator[tuple[Dataset, Predictions]]:
        """Predict as ``predict`` does, from the image ``start`` on, and yield results while the rest is computed.

        Each is a part of the dataset and the predictions for it, whose ``rows`` are places in that part; the parts
        follow each other. True classes are not looked at. The last part has the notes about all images, and those that
        were refused while listing. Where nothing is left to predict, nothing is yielded.
        """
        dataset = as_dataset(images)
        remarks: Counter[str] = Counter()
        ends = _part_ends(len(dataset), BATCH_SIZE * self.compute.threads)
        for end in (end for end in ends if end > start or end == 0):
            is_last = end == len(dataset)
            part = replace(
                dataset,
                items=tuple(replace(item, label=None, labels=None, unknown=()) for item in dataset.items[start:end]),
                label_names=(),
                quarantined=dataset.quarantined if is_last else (),
            )
            predictions, features = self._predict(part, False, _shifted(progress, start, len(dataset)))
            remarks.update(features.remarks)
            notes = (*remark_notes(remarks), *self._unmeasured_notes) if is_last else ()
            yield part, replace(predictions, notes=notes)
            start = end

    def predict_dataset(self, dataset: Dataset, *, progress: Progress | None = None) -> Predictions:
        """Predict every readable image of a dataset."""
        if self.model.is_multi_label:
            return self._predict_labels(dataset, progress)
        is_labelled = all(item.label is not None for item in dataset.items)
        predictions, features = self._predict(dataset, is_labelled, progress)
        if not is_labelled:
            return predictions
        labels = [str(dataset.items[i].label) for i in features.index]
        truth, unknown = encode_truth(self.model.classes, labels)
        known = self.model.is_training_image(features.content_hashes)
        return replace(predictions, truth=truth, unknown_classes=unknown, is_training_image=known)

    def _predict_labels(self, dataset: Dataset, progress: Progress | None) -> MultiLabelPredictions:
        """Predict several labels an image, with the true labels where all images have them."""
        is_labelled = dataset.is_multi_label and all(item.labels is not None for item in dataset.items)
        predictions, features = self._predict(dataset, is_labelled, progress)
        assert isinstance(predictions, MultiLabelPredictions)
        if not is_labelled:
            return predictions
        values, known = label_matrix([dataset.items[i] for i in features.index], self.model.classes)
        is_training_image = self.model.is_training_image(features.content_hashes)
        return replace(predictions, label_truth=values, label_known=known, is_training_image=is_training_image)

    def _predict(
        self, dataset: Dataset, hashes: bool, progress: Progress | None = None
    ) -> tuple[Predictions, Features]:
        """Predict without true classes; the features are the outputs of the model, with hashes where asked for."""
        model = self.model
        features = embed_exactly(
            dataset,
            model.as_backbone(),
            self.compute_of_model,
            load=self._load_graph,
            is_loaded=any(process == os.getpid() for process, _, _ in tuple(self._graphs)),
            hashes=hashes,
            progress=progress,
        )
        predictions = predictions_of(
            model,
            tuple(dataset.items[i].path for i in features.index),
            features.index,
            np.asarray(features.values["probabilities"], np.float64).reshape(-1, len(model.classes)),
            np.asarray(features.values["distance"], np.float64).reshape(-1),
        )
        quarantined = (*dataset.quarantined, *features.quarantined)
        notes = (*features.notes, *self._unmeasured_notes)
        return replace(predictions, quarantined=quarantined, notes=notes), features

    @property
    def _unmeasured_notes(self) -> tuple[str, ...]:
        """What is to be said of a model for which nothing was measured."""
        return () if self.model.thresholds.is_measured else (NOT_MEASURED,)

    def features(self, images: Any, *, progress: Progress | None = None) -> NDArray[np.float32]:
        """Return the features [n, d] of images that the head turns into probabilities: the vectors of its taps.

        ``images`` is as for ``predict``. Raises DataError if one cannot be read: there is a row for each.
        """
        from headstart.model.compose import features_graph

        dataset, backbone = as_dataset(images), features_graph(self.model)
        features = embed_exactly(dataset, backbone, self.compute_of_model, load=self._load_graph, progress=progress)
        check_all_read((*dataset.quarantined, *features.quarantined))
        return np.asarray(features.deepest, np.float32).reshape(-1, backbone.taps[0].channels)

    def evaluate(self, images: Any, *, progress: Progress | None = None) -> Evaluation | MultiLabelEvaluation:
        """Evaluate the model on labelled images that had no part in training.

        Of a dataset with splits the validation images count, or the test images where there are none. Classes are
        matched by name. Where images have the name of a group (a column ``group`` of a table), intervals are by groups.
        A model of several labels gives a ``MultiLabelEvaluation``, and a table is read for it as one of several labels.
        Raises DataError where there are no labels, or no image can be read.
        """
        is_multi_label = self.model.is_multi_label
        dataset = as_dataset(images, options=ReadOptions(multi_label=True) if is_multi_label else None)
        if is_multi_label:
            notes = check_labels_to_compare(dataset, self.model.classes)
            dataset = labelled_part(dataset)
            found = self._predict_labels(dataset, progress)
            if not len(found):
                raise DataError(f"None of the {len(dataset)} images of {dataset.uri} can be read.")
            return evaluate_labels(replace(found, notes=(*found.notes, *notes)), _named_groups(dataset, found.rows))
        dataset.require_one_label("a model of one class an image")
        dataset = labelled_part(dataset)
        predictions = self.predict_dataset(dataset, progress=progress)
        if not len(predictions):
            raise DataError(f"None of the {len(dataset)} images of {dataset.uri} can be read.")
        return evaluate(predictions, _named_groups(dataset, predictions.rows))

    def _load_graph(self, backbone: Backbone, compute: Compute) -> Graph:
        """Load the graph once for each number of threads: compiling it takes longer than to predict an image.

        And once for each process: in one that was forked, a graph of OpenVINO waits for ever for threads that are not
        there.
        """
        with self._lock:
            key = (os.getpid(), backbone.id, compute)
            if key not in self._graphs:
                self._graphs[key] = load_backbone_graph(backbone, compute)
            return self._graphs[key]

    def verify(self) -> Verification:
        """Replay the golden sample on this machine. Raises VerifyError on a difference beyond the tolerance."""
        return verify(self.model, self.compute_of_model.resolve())


def predictions_of(
    model: Model,
    paths: tuple[str, ...],
    rows: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    ood_scores: NDArray[np.float64],
) -> Predictions:
    """Return what the outputs of a model mean: its ``probabilities`` [n, k] and ``ood_scores`` [n] for n images."""
    if not model.is_multi_label:
        probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    predictions = Predictions(
        model.classes,
        paths,
        rows,
        probabilities,
        thresholds=model.thresholds if model.thresholds.is_measured else None,
        ood_scores=ood_scores,
        rule=model.rule,
    )
    if not model.is_multi_label:
        return predictions
    return MultiLabelPredictions(**vars(predictions), label_thresholds=model.label_thresholds)


def _part_ends(count: int, smallest: int) -> Iterator[int]:
    """Yield where the parts of ``count`` images end: the first is small, so that its results come at once.

    None but a single part is smaller than ``smallest``: a graph is loaded for as many threads as there are batches.
    """
    end = min(smallest, count)
    while count - end >= smallest:
        yield end
        end = min(end + max(PART, smallest), count)
    yield count


def _shifted(progress: Progress | None, start: int, total: int) -> Progress | None:
    """Return the progress of a part as that of all images."""
    return None if progress is None else lambda done, _: progress(start + done, total)


def check_all_read(quarantined: Sequence[Quarantined]) -> None:
    """Raise DataError where images could not be read, naming the first."""
    if quarantined:
        first = quarantined[0]
        raise DataError(f"{len(quarantined)} images cannot be read, first {first.path}: {first.reason}")


def _named_groups(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    return group_numbers([dataset.items[i].group for i in rows])


def labelled_part(dataset: Dataset) -> Dataset:
    """Return the labelled images to evaluate on: those of the validation split, else of the test split, else all.

    Raises DataError where there are no labels.
    """
    for name in ("validation", "test"):
        if name in dataset.splits:
            dataset = dataset.split(name)
            break
    labelled = [
        i for i, item in enumerate(dataset.items) if (item.labels if dataset.is_multi_label else item.label) is not None
    ]
    if not len(dataset):
        raise DataError("There are no images to evaluate on; give some with their labels.")
    if not labelled:
        raise DataError(f"{dataset.uri} has no labels to compare with; put the images in one folder per class.")
    return dataset.select(labelled)
