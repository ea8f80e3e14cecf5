"""Model: what a finished classifier consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, Tap
from headstart.errors import ModelError, untrusted
from headstart.heads.head import Head
from headstart.heads.ood import OodDetector
from headstart.images.preprocess import Preprocess
from headstart.stats.accuracy import Accuracy
from headstart.stats.conformal import ConformalThresholds
from headstart.stats.decision import DecisionRule, decide
from headstart.stats.label_metrics import Estimate
from headstart.stats.label_thresholds import LabelThresholds


@dataclass(frozen=True)
class GoldenSample:
    """A few images with the predictions that they had where the model was made.

    ``files`` are encoded images, ``decoded`` [n, height, width, 3] uint8 what they decode to, ``pixels`` (the same
    shape) those they were made of, ``probabilities`` [n, k] and ``ood_scores`` [n] float32 the predictions for
    ``pixels``. ``precision`` is that of the machine; ``tolerance`` and ``ood_tolerance`` map a precision to the largest
    difference in a probability and in an OOD score that it may show.
    """

    files: tuple[bytes, ...]
    decoded: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    ood_scores: NDArray[np.float32]
    precision: str
    tolerance: Mapping[str, float]
    ood_tolerance: Mapping[str, float]


HASH_BYTES = 16  # of a SHA-256 that are kept: enough to tell images apart


@dataclass(frozen=True, eq=False)  # compared and hashed as one object: arrays have no one answer
class Model:
    """A finished classifier.

    ``backbone`` describes the backbone: id, sha256, licence, source and precision. ``graph`` is the content of
    ``model.onnx``, ``sha256`` its hash, ``batch`` the only batch size it allows (None: any). ``run`` is the content of
    ``run.json``.
    ``training_hashes`` [n, 16] uint8 are the first bytes of the SHA-256 of the training images (None: not known).
    ``rule`` decides which class is predicted (None: the most probable one).

    Where an image may have several labels, ``label_thresholds`` decide which hold (None: one class an image), and
    ``classes`` are the labels.
    """

    classes: tuple[str, ...]
    preprocess: Preprocess
    backbone: Mapping[str, str]
    head: Head
    ood: OodDetector = field(repr=False)
    thresholds: ConformalThresholds
    graph: bytes = field(repr=False)
    sha256: str
    batch: int | None
    golden: GoldenSample | None = field(default=None, repr=False)
    run: Mapping[str, Any] = field(default_factory=dict, repr=False)
    training_hashes: NDArray[np.uint8] | None = field(default=None, repr=False)
    rule: DecisionRule | None = None
    label_thresholds: LabelThresholds | None = None

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.label_thresholds is not None

    def require_one_label(self, what: str) -> None:
        """Raise ModelError for a model that gives an image several labels, which ``what`` cannot handle."""
        if self.is_multi_label:
            raise ModelError(
                f"This model gives an image several labels ({', '.join(self.classes[:3])}, ...), and {what} needs a "
                "model of one class an image."
            )

    @property
    def accuracy(self) -> dict[str, Accuracy]:
        """The accuracies of the fit by what they were measured on, "validation" and "leave_group_out".

        Raises ModelError where ``run.json``, from which they are, is damaged.
        """
        with untrusted("run.json: accuracy", ModelError):
            return {str(name): _read_accuracy(value) for name, value in self.run.get("accuracy", {}).items()}

    @property
    def mean_average_precision(self) -> dict[str, Estimate]:
        """The mAP of the fit of several labels by what it was measured on, as ``accuracy`` is that of one class.

        Raises ModelError where ``run.json``, from which it is, is damaged.
        """
        with untrusted("run.json: metrics", ModelError):
            return {
                str(name): Estimate.from_dict(value["mean_average_precision"])
                for name, value in self.run.get("metrics", {}).items()
            }

    def decide(self, probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the predicted class [n] from probabilities [n, k]. Raises ModelError where there may be several."""
        self.require_one_label("a prediction of one class")
        return decide(probabilities, self.rule)

    def count_changed(self, first: NDArray[np.floating], second: NDArray[np.floating]) -> int:
        """Return of how many images two sets of probabilities [n, k] give other classes or labels."""
        return count_changed(first, second, self.rule, self.label_thresholds)

    def is_training_image(self, content_hashes: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which images [n] with these SHA-256 [n, 32] the model was trained on, as far as it knows."""
        return np.array([row.tobytes() in self._known_hashes for row in content_hashes[:, :HASH_BYTES]], bool)

    @cached_property
    def _known_hashes(self) -> frozenset[bytes]:
        return (
            frozenset(row.tobytes() for row in self.training_hashes)
            if self.training_hashes is not None
            else frozenset()
        )

    @property
    def precision(self) -> str:
        """ "int8" where the backbone in the graph is quantised, else "fp32"."""
        return "int8" if self.backbone.get("precision") == "int8" else "fp32"

    def as_backbone(self) -> Backbone:
        """Return the whole model as a backbone whose taps are its outputs, so that images take the same path."""
        taps = (Tap("probabilities", len(self.classes), 1.0, None), Tap("distance", 1, 1.0, None))
        return Backbone(
            "model", self.graph, self.sha256, self.preprocess, taps, "", "", batch=self.batch, precision=self.precision
        )


def count_changed(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    rule: DecisionRule | None,
    label_thresholds: LabelThresholds | None,
) -> int:
    """Return of how many images two sets of probabilities [n, k] give other classes, or any other label."""
    if label_thresholds is None:
        return int((decide(first, rule) != decide(second, rule)).sum())
    return int((label_thresholds.decide(first) != label_thresholds.decide(second)).any(axis=1).sum())


def _read_accuracy(value: Mapping[str, Any]) -> Accuracy:
    correct, count, (low, high) = value["correct"], value["count"], value["interval"]
    if not (type(correct) is type(count) is int and 0 <= correct <= count and count > 0):
        raise ValueError(f"{correct!r} of {count!r} is no share")
    return Accuracy(correct, count, (float(low), float(high)), str(value["method"]))


def describe_backbone(backbone: Backbone) -> dict[str, str]:
    """Return what a model records of its backbone."""
    return {
        "id": backbone.id,
        "sha256": backbone.sha256,
        "licence": backbone.licence,
        "source": backbone.source,
        "precision": backbone.precision,
    }
