"""What differs between two models, by what their folders say; no image is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headstart.errors import ModelError, untrusted
from headstart.model.model import Model
from headstart.stats.accuracy import Accuracy, disjoint

OF_RUN = ("seed", "views", "class_weight", "runtime", "versions")
Pair = tuple[Any, Any]


@dataclass(frozen=True)
class ModelDiff:
    """The differences of two models.

    ``settings`` are pairs of the values that differ, by name, None where a model has none. ``only_first`` and
    ``only_second`` are classes of one model. ``training_images`` counts training images of both models, of the first
    only, and of the second only (None: a model does not know its own). ``accuracy`` has, by what it was measured on,
    that of both models, None where it was not measured. ``same_data`` says whether both were fitted and validated on
    the same images.
    """

    settings: Mapping[str, Pair]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    training_images: tuple[int, int, int] | None
    accuracy: Mapping[str, tuple[Accuracy | None, Accuracy | None]]
    same_data: bool

    def verdict(self, name: str) -> str:
        """Return in a few words what the two accuracies on ``name`` say."""
        first, second = self.accuracy[name]
        if first is None or second is None:
            return "measured for one model only"
        if not self.same_data:
            return "of different images"
        return "the intervals do not overlap" if disjoint(first.interval, second.interval) else "the intervals overlap"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        images = self.training_images
        return {
            "settings": [{"name": name, "first": a, "second": b} for name, (a, b) in self.settings.items()],
            "classes": {"only_first": list(self.only_first), "only_second": list(self.only_second)},
            "training_images": None
            if images is None
            else dict(zip(("both", "only_first", "only_second"), images, strict=True)),
            "accuracy": {
                name: [None if one is None else one.to_dict() for one in pair] for name, pair in self.accuracy.items()
            },
            "same_data": self.same_data,
        }


def diff_models(first: Model, second: Model) -> ModelDiff:
    """Compare what two models say of themselves: settings, classes, training images and accuracies.

    Raises ModelError where their ``run.json`` is damaged, or one gives an image several labels.
    """
    for model in (first, second):
        model.require_one_label("diff")
    with untrusted("run.json of a model", ModelError):
        settings = [dict(_flat(_settings(model))) for model in (first, second)]
        fingerprints = [model.run.get("data", {}).get("fingerprint") for model in (first, second)]
    accuracies = [first.accuracy, second.accuracy]
    names = dict.fromkeys((*settings[0], *settings[1]))
    pairs = {name: (settings[0].get(name), settings[1].get(name)) for name in names}
    return ModelDiff(
        {name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
        tuple(name for name in first.classes if name not in second.classes),
        tuple(name for name in second.classes if name not in first.classes),
        _training_images(first, second),
        {name: (accuracies[0].get(name), accuracies[1].get(name)) for name in accuracies[0] | accuracies[1]},
        fingerprints[0] is not None and fingerprints[0] == fingerprints[1],
    )


def _settings(model: Model) -> dict[str, Any]:
    run = model.run
    thresholds = model.thresholds
    return {
        **{key: run[key] for key in ("version", "author", "date") if run.get(key)},
        "backbone": dict(model.backbone),
        "preprocess": model.preprocess.to_dict(),
        "cut": list(model.head.taps),
        "head": {"kind": model.head.kind, **model.head.settings, "temperature": model.head.temperature},
        "coverage": thresholds.coverage,
        "false_alarms": thresholds.false_alarms,
        "decision": None if model.rule is None else model.rule.describe(model.classes),
        "groups": {key: value for key, value in run.get("groups", {}).items() if key in ("method", "count")},
        "images": {key: value for key, value in run.get("images", {}).items() if key in ("train", "validation")},
        "data": {key: value for key, value in run.get("data", {}).items() if key in ("uri", "fingerprint")},
        **{key: run[key] for key in OF_RUN if key in run},
    }


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
