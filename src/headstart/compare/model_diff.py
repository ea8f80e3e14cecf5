"""What differs between two models, by what their folders say, and by what they predict for images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.data import Dataset
from headstart.data.inputs import open_inputs
from headstart.errors import DataError, ModelError, OptionError, untrusted
from headstart.features import Compute
from headstart.features.features import Progress
from headstart.model import Predictor
from headstart.model.label_predictions import MultiLabelPredictions
from headstart.model.model import Model
from headstart.model.predictions import Predictions
from headstart.stats.accuracy import Accuracy, disjoint, target_text
from headstart.stats.label_metrics import Estimate
from headstart.stats.label_thresholds import LabelThresholds

OF_RUN = ("seed", "views", "class_weight", "runtime", "versions")
OF_DATA = ("uri", "fingerprint", "validation_fingerprint")
Pair = tuple[Any, Any]
Quality = Accuracy | Estimate
MEASURED_ON = {"validation": "validation", "leave_group_out": "training"}  # by what was measured, the images


@dataclass(frozen=True)
class ChangedImage:
    """An image that two models predict differently, with the classes or labels that only one of them predicts."""

    path: str
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


@dataclass(frozen=True)
class Decisions:
    """What two models predict for the same images: how many, those that differ, and notes for the user.

    Of several labels, the labels that both models know are compared.
    """

    images: int
    changed: tuple[ChangedImage, ...]
    notes: tuple[str, ...]

    @property
    def by_label(self) -> dict[str, tuple[int, int]]:
        """Of how many images only the first model predicts a class or label, and only the second, most first."""
        first, second = (
            Counter(name for image in self.changed for name in getattr(image, which))
            for which in ("only_first", "only_second")
        )
        names = sorted(first | second, key=lambda name: (-first[name] - second[name], name))
        return {name: (first[name], second[name]) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "images": self.images,
            "changed": [
                {"path": one.path, "only_first": list(one.only_first), "only_second": list(one.only_second)}
                for one in self.changed
            ],
        }


@dataclass(frozen=True)
class ModelDiff:
    """The differences of two models.

    ``settings`` are pairs of the values that differ, by name, None where a model has none. ``only_first`` and
    ``only_second`` are classes or labels of one model. ``training_images`` counts training images of both models, of
    the first only, and of the second only (None: a model does not know its own). ``same_images`` says by "training" and
    "validation" whether those of both models are the same, by their content (None: not known); there is no "validation"
    where neither has any. ``accuracy``, of several labels their mAP, has, by what it was measured on, that of both
    models, None where it was not measured. ``decisions`` are on images that were given, else None.
    """

    settings: Mapping[str, Pair]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    training_images: tuple[int, int, int] | None
    accuracy: Mapping[str, tuple[Quality | None, Quality | None]]
    same_images: Mapping[str, bool | None]
    is_multi_label: bool = False
    decisions: Decisions | None = None

    @property
    def same_data(self) -> bool:
        """Whether both were fitted and validated on the same images, as far as is known."""
        return all(is_same is True for is_same in self.same_images.values())

    def verdict(self, name: str) -> str:
        """Return in a few words what the two accuracies on ``name`` say."""
        first, second = self.accuracy[name]
        if first is None or second is None or first.interval is None or second.interval is None:
            return "measured for one model only"
        same = self.same_images.get(MEASURED_ON.get(name, name))
        if same is None:
            return "perhaps of different images"
        if not same:
            return "of different images"
        return "the intervals do not overlap" if disjoint(first.interval, second.interval) else "the intervals overlap"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        images = self.training_images
        return {
            "settings": [{"name": name, "first": a, "second": b} for name, (a, b) in self.settings.items()],
            "labels" if self.is_multi_label else "classes": {
                "only_first": list(self.only_first),
                "only_second": list(self.only_second),
            },
            "training_images": None
            if images is None
            else dict(zip(("both", "only_first", "only_second"), images, strict=True)),
            "mean_average_precision" if self.is_multi_label else "accuracy": {
                name: [None if one is None else one.to_dict() for one in pair] for name, pair in self.accuracy.items()
            },
            "same_data": self.same_data,
            "same_images": dict(self.same_images),
            **({} if self.decisions is None else {"decisions": self.decisions.to_dict()}),
        }


def diff_models(
    first: Model,
    second: Model,
    data: str | Dataset | None = None,
    compute: Compute | None = None,
    *,
    progress: Progress | None = None,
) -> ModelDiff:
    """Compare what two models say of themselves: settings, classes or labels, training images and accuracies.

    With ``data``, images with labels or without, also what both predict for them; a path is that of an image, folder,
    archive or table, in which every image counts. Raises ModelError where a ``run.json`` is damaged, OptionError for
    models of two kinds, DataError where no image can be read.
    """
    if first.is_multi_label != second.is_multi_label:
        raise OptionError("One of these models gives an image one class, the other several labels; diff one kind.")
    common = frozenset(first.classes) & frozenset(second.classes)
    with untrusted("run.json of a model", ModelError):
        settings = [dict(_flat(_settings(model, common))) for model in (first, second)]
        same_images = _same_images(first, second)
    qualities: list[Mapping[str, Quality]] = [
        model.mean_average_precision if model.is_multi_label else model.accuracy for model in (first, second)
    ]
    names = dict.fromkeys((*settings[0], *settings[1]))
    pairs = {name: (settings[0].get(name), settings[1].get(name)) for name in names}
    images = open_inputs([data]) if isinstance(data, str) else data
    return ModelDiff(
        {name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
        tuple(name for name in first.classes if name not in second.classes),
        tuple(name for name in second.classes if name not in first.classes),
        _training_images(first, second),
        {name: (qualities[0].get(name), qualities[1].get(name)) for name in {**qualities[0], **qualities[1]}},
        same_images,
        first.is_multi_label,
        None if images is None else _decisions(first, second, images, compute or Compute(), progress),
    )


def _decisions(first: Model, second: Model, dataset: Dataset, compute: Compute, progress: Progress | None) -> Decisions:
    """Predict images with both models, and return those that they predict differently."""
    items = tuple(replace(item, label=None, labels=None, unknown=()) for item in dataset.items)
    dataset = replace(dataset, items=items, label_names=())  # what the images show is not looked at
    found = [Predictor(model, compute).predict(dataset, progress=progress) for model in (first, second)]
    if found[0].paths != found[1].paths:
        raise DataError(f"The images of {dataset.uri} changed while they were read; compare again.")
    if not len(found[0]):
        reasons = "".join(f" {image.path}: {image.reason}" for image in found[0].quarantined[:1])
        raise DataError(f"No image can be read.{reasons}")
    common = {*first.classes} & {*second.classes}
    predicted = [_predicted(predictions) for predictions in found]
    changed = []
    for path, a, b in zip(found[0].paths, *predicted, strict=True):
        only = [tuple(name for name in one if name not in other) for one, other in ((a, b), (b, a))]
        if first.is_multi_label:
            only = [tuple(name for name in names if name in common) for names in only]
        if any(only):
            changed.append(ChangedImage(path, *only))
    quarantined = [f"{image.path} could not be read: {image.reason}" for image in found[0].quarantined]
    return Decisions(len(found[0]), tuple(changed), (*dataset.notes, *found[0].notes, *quarantined))


def _predicted(predictions: Predictions) -> list[list[str]]:
    """Return the labels that are said to hold of each image, or its class."""
    if isinstance(predictions, MultiLabelPredictions):
        return [[predictions.classes[c] for c in np.flatnonzero(row)] for row in predictions.decisions]
    return [[predictions.classes[c]] for c in predictions.predicted]


def _settings(model: Model, common: frozenset[str]) -> dict[str, Any]:
    run = model.run
    thresholds, of_labels = model.thresholds, model.label_thresholds
    return {
        **{key: run[key] for key in ("version", "author", "date") if run.get(key)},
        "backbone": dict(model.backbone),
        "preprocess": model.preprocess.to_dict(),
        "cut": list(model.head.taps),
        "head": {"kind": model.head.kind, **model.head.settings, "temperature": model.head.temperature},
        "coverage": thresholds.coverage,
        "false_alarms": thresholds.false_alarms,
        "decision": None if model.rule is None else model.rule.describe(model.classes),
        **({} if of_labels is None else _label_settings(model.classes, of_labels, common)),
        "groups": {key: value for key, value in run.get("groups", {}).items() if key in ("method", "count")},
        "images": {key: value for key, value in run.get("images", {}).items() if key in ("train", "validation")},
        "data": {key: value for key, value in run.get("data", {}).items() if key in OF_DATA},
        **{key: run[key] for key in OF_RUN if key in run},
    }


def _label_settings(labels: tuple[str, ...], thresholds: LabelThresholds, common: frozenset[str]) -> dict[str, Any]:
    """Return the target, and the thresholds of the labels that both models know; others are named beside."""
    target = f"{thresholds.target} {target_text(thresholds.share)}" if thresholds.target else None
    pairs = zip(labels, thresholds.thresholds, strict=True)
    return {"target": target, "threshold": {name: round(value, 4) for name, value in pairs if name in common}}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested objects, with their names joined by dots."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, one in value.items():
        yield from _flat(one, f"{name}.{key}" if name else str(key))


def _training_images(first: Model, second: Model) -> tuple[int, int, int] | None:
    if first.training_hashes is None or second.training_hashes is None:
        return None
    known = [{row.tobytes() for row in hashes} for hashes in (first.training_hashes, second.training_hashes)]
    both = len(known[0] & known[1])
    return both, len(known[0]) - both, len(known[1]) - both


def _same_images(first: Model, second: Model) -> dict[str, bool | None]:
    """Return ``same_images`` of two models.

    Models of earlier versions have a hash of all images alone, which tells of those for validation where the others are
    known.
    """
    records = [model.run.get("data", {}) for model in (first, second)]
    counts = _training_images(first, second)
    training = None if counts is None else counts[1:] == (0, 0)
    validation = None
    if all("validation_fingerprint" in record for record in records):
        fingerprints = [record["validation_fingerprint"] for record in records]
        if fingerprints == [None, None]:
            return {"training": training}
        validation = fingerprints[0] == fingerprints[1]
    elif training is not None and all(record.get("fingerprint") for record in records):
        all_same = records[0]["fingerprint"] == records[1]["fingerprint"]
        if all_same or training:
            validation = all_same and training
    return {"training": training, "validation": validation}
