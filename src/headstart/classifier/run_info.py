"""What ``run.json`` holds: how a model was made."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import __version__
from headstart.backbones import Backbone
from headstart.backbones.steps import steps_sha256
from headstart.classifier.class_settings import ClassSettings
from headstart.classifier.options import FitOptions
from headstart.classifier.precision import PrecisionChoice
from headstart.data import Dataset
from headstart.data.dataset import paths_by_reason
from headstart.features import Features
from headstart.features.input_scaling import InputScaling
from headstart.features.runtime import RuntimeInfo, onnxruntime_version
from headstart.heads.head import Head
from headstart.heads.learning_curve import LearningCurve
from headstart.heads.selection import SelectedHead
from headstart.model.predictions import Evaluation
from headstart.splits.label_split import LabelSplit
from headstart.splits.split import Split

MAX_NAMED = 100  # of what was skipped, for each reason
LIBRARIES = ("numpy", "pillow", "simplejpeg", "onnx")
OPTIONAL_LIBRARIES = {  # by the module whose import tells that the fit used it
    "openvino": "openvino",
    "sklearn": "scikit-learn",
    "torch": "torch",
    "timm": "timm",
    "keras": "keras",
    "pyarrow": "pyarrow",
}


@dataclass(frozen=True)
class FitRecord:
    """The parts of every fit that ``run.json`` records, of one class or of several labels an image.

    ``seconds`` has "total" and "head"; ``scaling`` is that of the backbone's input, where it was open;
    ``coarse_channels`` are the shares of ``Features.coarse_channels``.
    """

    dataset: Dataset
    features: Features
    split: Split | LabelSplit
    backbone: Backbone
    head: Head
    options: FitOptions
    seconds: Mapping[str, float]
    scaling: InputScaling | None = None
    precision_choice: PrecisionChoice | None = None
    coarse_channels: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        features, split, head, options = self.features, self.split, self.head, self.options
        return {
            "version": options.model_version,
            "author": options.author,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "classes": list(split.names if isinstance(split, LabelSplit) else split.classes),
            "images": images_used(self.dataset, features, split),
            "groups": split.groups.to_dict(),
            "backbone": backbone_used(self.backbone, self.scaling),
            "cut": list(head.taps),
            "head": {"kind": head.kind, **head.settings, "temperature": head.temperature},
            "runtime": features.runtime.to_dict(),
            "rounding": rounding_of(features, self.coarse_channels),
            "precision_choice": None if self.precision_choice is None else self.precision_choice.to_dict(),
            "seconds": {
                "total": self.seconds["total"],
                "decode": features.seconds["decode"],
                "features": features.seconds["features"],
                "head": self.seconds["head"],
            },
            "cache": {"hits": features.hits, "misses": features.misses},
            "seed": options.seed,
            "views": {"count": options.views, "augmentation": options.augmentation if options.views > 1 else None},
            "data": {
                "uri": self.dataset.uri,
                "fingerprint": fingerprint(features.content_hashes),
                "validation_fingerprint": (
                    fingerprint(features.content_hashes[split.validation]) if len(split.validation) else None
                ),
                "class_names": dict(self.dataset.class_names),
            },
            "versions": versions(features.runtime),
        }


@dataclass(frozen=True)
class RunInfo:
    """The parts of a fit of one class an image that ``run.json`` records.

    ``record`` are those of every fit. ``fine_tuning`` is the record of a fine-tuning, and ``training`` the epochs of
    the training that made the model, both empty where there was none; ``settings`` are what is set for the classes.
    """

    record: FitRecord
    selected: SelectedHead
    evaluations: Mapping[str, Evaluation]
    learning_curve: LearningCurve | None
    fine_tuning: Mapping[str, Any] | None = None
    training: tuple[Mapping[str, Any], ...] = ()
    settings: ClassSettings = field(default_factory=ClassSettings)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        split, selected = self.record.split, self.selected
        assert isinstance(split, Split)
        info = {
            **self.record.to_dict(),
            "accuracy": {name: evaluation.accuracy.to_dict() for name, evaluation in self.evaluations.items()},
            "metrics": {name: evaluation.metrics.to_dict() for name, evaluation in self.evaluations.items()},
            "weak_classes": {
                name: [weak.to_dict() for weak in evaluation.weak_classes]
                for name, evaluation in self.evaluations.items()
            },
            "learning_curve": None if self.learning_curve is None else self.learning_curve.to_dict(),
            "training": [*self.training] or [asdict(epoch) for epoch in selected.history],
            "candidates": [c.to_dict() for c in sorted(selected.candidates, key=lambda c: c.log_loss)],
        }
        info |= self.settings.to_dict(split.classes, split.labels)
        costs = {name: e.cost.to_dict() for name, e in self.evaluations.items() if e.cost is not None}
        info |= {"cost": costs} if costs else {}
        return info if self.fine_tuning is None else {**info, "fine_tuning": dict(self.fine_tuning)}


def images_used(dataset: Dataset, features: Features, split: Split | LabelSplit) -> dict[str, Any]:
    """Return which images took part in a fit, and which did not and why."""
    quarantined = (*dataset.quarantined, *features.quarantined)
    return {
        "train": len(split.train),
        "validation": len(split.validation),
        "quarantined": [{"path": image.path, "reason": image.reason} for image in quarantined],
        "skipped": dataset.skip_counts,
        "skipped_files": {  # skipped.csv has all
            reason: paths[:MAX_NAMED] for reason, paths in paths_by_reason(dataset.skipped).items()
        },
        "layout": dataset.layout,
    }


def left_out(dataset: Dataset, features: Features) -> tuple[tuple[str, str], ...]:
    """Return the path of all that was skipped or could not be read, and why: the rows of ``skipped.csv``."""
    skipped = tuple((item.path, item.reason) for item in dataset.skipped)
    return skipped + tuple((image.path, image.reason) for image in (*dataset.quarantined, *features.quarantined))


def backbone_used(backbone: Backbone, scaling: InputScaling | None) -> dict[str, Any]:
    """Return what is recorded of the backbone, and of its scaling where that was open."""
    return {
        "id": backbone.id,
        "sha256": backbone.sha256,
        "licence": backbone.licence,
        "precision": backbone.precision,
        "steps_sha256": steps_sha256(backbone.taps),
        "scaling": None if scaling is None else scaling.to_dict(),
    }


def rounding_of(features: Features, coarse_channels: Mapping[str, float]) -> dict[str, Any]:
    """Return what the rounding of features changed: values that were cut off, and shares of coarse channels, by tap."""
    cut_off = {tap: count for tap, count in features.cut_off.items() if count}
    return {"cut_off": cut_off, "coarse_channels": dict(coarse_channels)}


def fingerprint(content_hashes: NDArray[np.uint8]) -> str:
    """Return a hash, 16 hexadecimal digits, of the contents of images, in any order, by their SHA-256 [n, 32]."""
    return hashlib.sha256(np.sort(content_hashes, axis=0).tobytes()).hexdigest()[:16]


def versions(runtime: RuntimeInfo | None = None) -> dict[str, str]:
    """Return the versions of Python, Headstart and the libraries that a fit used.

    That of the ``runtime`` that computed the features is one of them also where all came from the cache, and it was not
    imported; not where they were computed elsewhere, by another version or without one here.
    """

    def is_used(module: str, name: str) -> bool:
        if module in sys.modules:
            return True
        if runtime is None or runtime.name != module or find_spec(module) is None:
            return False
        return metadata.version(name) == runtime.version

    used = [name for module, name in OPTIONAL_LIBRARIES.items() if is_used(module, name)]
    libraries = {name: metadata.version(name) for name in (*LIBRARIES, *used)} | {"onnxruntime": onnxruntime_version()}
    return {"python": platform.python_version(), "headstart": __version__, **libraries}
