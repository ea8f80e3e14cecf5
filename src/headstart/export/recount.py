"""What a model with fewer bits is worth: accuracy, coverage and rejections, counted again on labelled images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset, Item, ReadOptions, open_dataset
from headstart.data.class_names import with_class_names
from headstart.data.label_sets import label_matrix
from headstart.errors import HeadstartError, ImageError
from headstart.export.answers import Answers
from headstart.export.proof import DataProof
from headstart.model.label_predictions import MultiLabelPredictions
from headstart.model.model import HASH_BYTES, Model
from headstart.model.predictions import encode_truth, evaluate
from headstart.model.predictor import labelled_part, predictions_of

MAX_LOSS = 0.01  # of the images, and at least one of them


@dataclass(frozen=True)
class Recount:
    """Counts before and after, of ``images`` of which the model was trained on ``training``.

    ``correct``, ``covered`` (the true class is in the prediction set) and ``rejected``, each (before, after). Where an
    image may have ``several_labels``, it is correct if every label is, and covered if all that it has are in its set.
    """

    images: int
    training: int
    correct: tuple[int, int]
    covered: tuple[int, int]
    rejected: tuple[int, int]
    several_labels: bool = False

    @property
    def allowed(self) -> int:
        """How many images each count may lose."""
        return max(1, int(MAX_LOSS * self.images))

    @property
    def problems(self) -> list[str]:
        """What is lost beyond what is allowed, each as a text."""
        right = "images with every label right" if self.several_labels else "correct answers"
        covers = "all labels that hold" if self.several_labels else "the true class"
        lost = {
            right: self.correct[0] - self.correct[1],
            f"prediction sets with {covers}": self.covered[0] - self.covered[1],
            "images that are not rejected": self.rejected[1] - self.rejected[0],
        }
        return [
            f"{count} of {self.images} {name} are lost, {self.allowed} may be"
            for name, count in lost.items()
            if count > self.allowed
        ]

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        pairs = {name: {"before": pair[0], "after": pair[1]} for name, pair in self._pairs().items()}
        return {"images": self.images, "training": self.training, "allowed": self.allowed, **pairs}

    def _pairs(self) -> dict[str, tuple[int, int]]:
        return {"correct": self.correct, "covered": self.covered, "rejected": self.rejected}


def recount(model: Model, dataset: Dataset, proof: DataProof) -> Recount | None:
    """Count on the labelled images of a proof on data; None where none is labelled with a class of the model."""
    chosen = [
        i for i, row in enumerate(proof.rows) if _is_labelled(model, dataset.items[row]) and i not in proof.found.unread
    ]
    if not chosen:
        return None
    before, after = (_counts(model, dataset, proof, chosen, answers) for answers in (proof.expected, proof.found))
    hashes = np.stack([_hash(dataset.read(proof.rows[i])) for i in chosen])
    return Recount(
        len(chosen),
        int(model.is_training_image(hashes).sum()),
        (before[0], after[0]),
        (before[1], after[1]),
        (before[2], after[2]),
        model.is_multi_label,
    )


def _is_labelled(model: Model, item: Item) -> bool:
    return item.labels is not None if model.is_multi_label else item.label in model.classes


def _counts(
    model: Model, dataset: Dataset, proof: DataProof, chosen: list[int], answers: Answers
) -> tuple[int, int, int]:
    """Return how many of the chosen images are correct, covered and rejected."""
    items = [dataset.items[proof.rows[i]] for i in chosen]
    chosen_answers = answers.rows(chosen)
    predictions = predictions_of(
        model,
        tuple(item.path for item in items),
        np.array([proof.rows[i] for i in chosen]),
        np.nan_to_num(chosen_answers.probabilities),
        np.nan_to_num(chosen_answers.ood_scores, nan=1.0),
    )
    if isinstance(predictions, MultiLabelPredictions):
        return _label_counts(predictions, items)
    truth, _ = encode_truth(model.classes, [str(item.label) for item in items])
    found = evaluate(replace(predictions, truth=truth))
    correct, covered, rejected = (
        0 if value is None else int(value.correct) for value in (found.accuracy, found.coverage, found.false_rejections)
    )
    return correct, covered, rejected


def _label_counts(predictions: MultiLabelPredictions, items: Sequence[Item]) -> tuple[int, int, int]:
    """Return the counts of several labels an image; what is not known of an image speaks for neither."""
    truth, known = label_matrix(items, predictions.classes)
    sets, rejected = predictions.sets, predictions.is_rejected
    assert sets is not None
    is_right = (predictions.decisions == truth) | ~known
    is_covered = sets | ~(truth & known)
    counts = (is_right.all(axis=1), is_covered.all(axis=1), np.zeros(1) if rejected is None else rejected)
    correct, covered, away = (int(count.sum()) for count in counts)
    return correct, covered, away


def _hash(source: object) -> NDArray[np.uint8]:
    assert isinstance(source, bytes)
    return np.frombuffer(hashlib.sha256(source).digest(), np.uint8)


def recorded_data(model: Model) -> tuple[Dataset | None, str]:
    """Return the validation images of the data that a model was fitted to, if they are still there and the same.

    Else None, and why. The hashes of all its training images must be found among the images there. Where validation
    images are a share of a class, they are those that the model was not trained on; where there are none, all count.
    """
    record = model.run.get("data", {})
    uri = record.get("uri") if isinstance(record, dict) else None
    if not isinstance(uri, str) or not Path(uri).exists():
        return None, "the data that the model was fitted to are not here"
    if model.training_hashes is None:
        return None, "the model does not know its training images"
    names = record.get("class_names")
    try:
        dataset = open_dataset(uri, ReadOptions(multi_label=True) if model.is_multi_label else None)
        if isinstance(names, dict):
            dataset = with_class_names(dataset, names)
        wanted = {row.tobytes() for row in model.training_hashes}
        found = {_hash(source)[:HASH_BYTES].tobytes() for source in _training_files(dataset)}
        if not wanted <= found:
            return None, f"{len(wanted - found)} of {len(wanted)} training images are not in {uri} any more"
        labelled = labelled_part(dataset)
        if not model.run.get("images", {}).get("validation"):
            return labelled, ""
        new = [i for i, item in enumerate(labelled.items) if item.split != "train" or _is_new(labelled, i, wanted)]
        return labelled.select(new) if new else labelled, ""
    except HeadstartError as error:
        return None, str(error)


def _is_new(dataset: Dataset, place: int, training: set[bytes]) -> bool:
    try:
        source = dataset.read(place)
    except ImageError:
        return False
    return isinstance(source, bytes) and _hash(source)[:HASH_BYTES].tobytes() not in training


def _training_files(dataset: Dataset) -> Iterator[bytes]:
    for i, item in enumerate(dataset.items):
        if item.split == "train":
            with suppress(ImageError):
                source = dataset.read(i)
                if isinstance(source, bytes):
                    yield source
