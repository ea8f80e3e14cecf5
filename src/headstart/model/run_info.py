"""What ``run.json`` holds: how a model came about."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np

from headstart.backbones import Backbone
from headstart.data import Dataset
from headstart.features.features import Features
from headstart.heads import Choice
from headstart.heads.learning_curve import LearningCurve
from headstart.splits.split import Partition
from headstart.stats.accuracy import Accuracy


def record(
    dataset: Dataset,
    split: Partition,
    backbone: Backbone,
    choice: Choice,
    features: Features,
    accuracy: Mapping[str, Accuracy],
    curve: LearningCurve | None,
    *,
    seconds: Mapping[str, float],
    seed: int,
    views: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a fit, as JSON holds it; ``seconds`` has "total" and "head"."""
    quarantined = (*dataset.quarantined, *features.quarantined)
    return {
        "classes": list(split.classes),
        "images": {
            "train": len(split.train),
            "validation": len(split.validation),
            "quarantined": [{"path": q.path, "reason": q.reason} for q in quarantined],
            "skipped": dict(dataset.skipped),
        },
        "groups": {
            "count": split.groups.count,
            "largest": split.groups.largest,
            "method": split.groups.method,
        },
        "backbone": {"id": backbone.id, "sha256": backbone.sha256, "licence": backbone.licence},
        "cut": list(choice.head.taps),
        "head": {
            "kind": choice.head.kind,
            **choice.head.settings,
            "temperature": choice.head.temperature,
        },
        "runtime": {
            "name": features.runtime.name,
            "version": features.runtime.version,
            "precision": features.runtime.precision,
        },
        "accuracy": {name: found.to_dict() for name, found in accuracy.items()},
        "learning_curve": None if curve is None else curve.to_dict(),
        "seconds": {
            "total": seconds["total"],
            "decode": features.seconds["decode"],
            "features": features.seconds["features"],
            "head": seconds["head"],
        },
        "cache": {"hits": features.hits, "misses": features.misses},
        "seed": seed,
        "views": dict(views),
        "data": {"uri": dataset.uri, "fingerprint": _fingerprint(features)},
        "versions": _versions(),
        "training": [asdict(epoch) for epoch in choice.history],
        "candidates": [c.to_dict() for c in sorted(choice.candidates, key=lambda c: c.log_loss)],
    }


def _fingerprint(features: Features) -> str:
    return hashlib.sha256(np.sort(features.content_hashes, axis=0).tobytes()).hexdigest()[:16]


def _versions() -> dict[str, str]:
    names = ("headstart", "numpy", "pillow", "simplejpeg", "onnx", "onnxruntime")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
