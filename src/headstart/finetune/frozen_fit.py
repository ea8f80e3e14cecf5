"""The fit that fine-tuning starts from: of one class an image, or of several labels an image.

What differs between the two is here; the procedure in ``run`` is the same.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.classifier.fit import FineTuningRecord, FitResult, FitTimes, make_result
from headstart.classifier.fit_labels import MultiLabelFitResult, make_label_result
from headstart.classifier.options import FitOptions
from headstart.data import Dataset
from headstart.features import Features
from headstart.finetune.label_verdict import LabelVerdict, compare_labels_to_frozen
from headstart.finetune.verdict import Array, Rows, Verdict, compare_to_frozen
from headstart.heads.head import Head, softmax
from headstart.heads.label_ridge import LabelTargets
from headstart.heads.label_selection import SelectedLabels, select_labels
from headstart.heads.ood import OodDetector
from headstart.heads.selection import SelectedHead, select_head
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas
from headstart.model.model import Model
from headstart.stats.platt import log_losses, platt_targets, sigmoid

MAX_NAMED = 5  # labels in an error
AnyFitResult = TypeVar("AnyFitResult", FitResult, MultiLabelFitResult)


class AnyVerdict(Protocol):
    """What ``run`` reads of a verdict."""

    @property
    def alpha(self) -> float:
        """How far the final weights are from the frozen ones, 0 to 1."""

    @property
    def is_better(self) -> bool:
        """Whether the fine-tuned model is significantly better."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form in ``run.json``."""


@dataclass(frozen=True)
class Tuned:
    """The fine-tuned network as parts of a model.

    ``head`` has the scores of the network, with a temperature of 1; ``scores`` [n, k] and ``ood_scores`` [n] are those
    of images held out; ``record`` is what ``run.json`` tells.
    """

    head: Head
    backbone: Backbone
    features: Features
    ood: OodDetector
    scores: Array
    ood_scores: Array
    record: FineTuningRecord


@dataclass(frozen=True)
class FrozenFit(ABC, Generic[AnyFitResult]):
    """A fit, and its n training images: rows ``train`` [n] of the features, their ``labels`` and ``groups`` [n].

    ``labels`` are classes [n], 0 to ``outputs`` - 1, or several labels [n, ``outputs``], float32: 1, 0, or NaN where
    that is not known. ``head`` is that of ``model``, ``start_head`` the one to start from.
    """

    options: FitOptions
    dataset: Dataset
    backbone: Backbone
    features: Features
    train: Rows
    labels: NDArray[Any]
    groups: Rows
    outputs: int
    head: Head
    start_head: Head
    model: Model
    result: AnyFitResult

    @property
    @abstractmethod
    def needs(self) -> str:
        """What it takes to make folds, in words."""

    def fit_head(self, rows: Rows) -> Head:
        """Fit a head to the frozen features of the training images ``rows`` alone, as that of all was, on its taps."""
        vectors = self.features.vectors(self.train[rows])
        groups = np.unique(self.groups[rows], return_inverse=True)[1]
        with single_threaded_blas():
            head = self._select({tap: vectors[tap] for tap in self.head.taps}, rows, groups)
        return head.on_taps(self.head.taps, {tap: vectors[tap].shape[1] for tap in self.head.taps})

    @abstractmethod
    def _select(self, vectors: Mapping[str, Any], rows: Rows, groups: Rows) -> Head:
        """Select a head for the training images ``rows``, given their vectors by tap and groups."""

    @abstractmethod
    def compare(self, frozen: Array, tuned: Array, labels: NDArray[Any], groups: Rows, folds: Rows) -> AnyVerdict:
        """Compare scores of images held out, as ``compare_to_frozen`` does."""

    def with_model(self, model: Model) -> AnyFitResult:
        """Return the result of the fit with another model."""
        return replace(self.result, model=model)

    @abstractmethod
    def tuned_result(self, tuned: Tuned, verdict: Any) -> AnyFitResult:
        """Make the result of the fine-tuned model; its seconds are those since the fit began."""


@dataclass(frozen=True)
class ClassFit(FrozenFit[FitResult]):
    """A fit of one class an image."""

    @classmethod
    def of(cls, result: FitResult) -> ClassFit:
        """Take what fine-tuning needs from the result of a fit."""
        data, selected = result.data, result.selected
        return cls(
            *(result.options, data.dataset, data.backbone, data.features, data.split.train, data.split.labels),
            *(data.split.groups.index, len(data.split.classes), selected.head, selected.unweighted_head, result.model),
            result,
        )

    @property
    def needs(self) -> str:
        """What it takes to make folds, in words."""
        return "every class needs images of at least two groups. Add images"

    def _select(self, vectors: Mapping[str, Any], rows: Rows, groups: Rows) -> Head:
        training_set = TrainingSet.of(vectors, self.labels[rows], groups)
        return select_head(training_set, self.options.head_options, workers=self.options.compute.threads).head

    def compare(self, frozen: Array, tuned: Array, labels: NDArray[Any], groups: Rows, folds: Rows) -> Verdict:
        """Compare scores of images held out, as ``compare_to_frozen`` does."""
        return compare_to_frozen(frozen, tuned, labels, groups, folds)

    def tuned_result(self, tuned: Tuned, verdict: Verdict) -> FitResult:
        """Make the result of the fine-tuned model; its seconds are those since the fit began."""
        head = replace(tuned.head, temperature=verdict.temperature)
        probabilities = softmax(tuned.scores / verdict.temperature)
        candidates = self.result.selected.candidates
        selected = SelectedHead(head, probabilities, candidates, tuned.ood, tuned.ood_scores)
        coarse = tuned.features.coarse_channels(self.train)
        # A rendered golden sample has features of the frozen backbone: training images take its place.
        data = replace(
            self.result.data, backbone=tuned.backbone, features=tuned.features, coarse_channels=coarse, golden=None
        )
        times = FitTimes(*_starts(self.model))
        return make_result(self.options, data, selected, times, fine_tuning=tuned.record)


@dataclass(frozen=True)
class LabelFit(FrozenFit[MultiLabelFitResult]):
    """A fit of several labels an image."""

    @classmethod
    def of(cls, result: MultiLabelFitResult) -> LabelFit:
        """Take what fine-tuning needs from the result of a fit."""
        images, split, head = result.images, result.split, result.selected.head
        labels = np.where(split.targets.known, split.targets.values, np.nan).astype(np.float32)
        return cls(
            *(images.options, images.dataset, images.backbone, images.features, split.train, labels),
            *(split.groups.index, len(split.names), head, head, result.model),
            result,
        )

    @property
    def needs(self) -> str:
        """What it takes to make folds, in words, with the labels for which it is missing."""
        answers = (
            (name, self.labels[:, i] == answer) for i, name in enumerate(self.result.split.names) for answer in (1, 0)
        )
        too_few = dict.fromkeys(name for name, rows in answers if len(np.unique(self.groups[rows])) < 2)
        named = [*too_few][:MAX_NAMED] + [f"{len(too_few) - MAX_NAMED} more"] * (len(too_few) > MAX_NAMED)
        return (
            "every label needs images that have it, and images that do not, of at least two groups each"
            f"{', unlike ' if named else ''}{', '.join(named)}. Add images, leave labels out (--classes)"
        )

    def _select(self, vectors: Mapping[str, Any], rows: Rows, groups: Rows) -> Head:
        targets = self.result.split.targets
        of_rows = LabelTargets(targets.values[rows], targets.known[rows], groups)
        training_set = TrainingSet.of(vectors, np.zeros(len(rows), np.int64), groups)
        threads = self.options.compute.threads
        return select_labels(training_set, of_rows, self.options.head_options.taps, workers=threads).head

    def compare(self, frozen: Array, tuned: Array, labels: NDArray[Any], groups: Rows, folds: Rows) -> LabelVerdict:
        """Compare scores of images held out, as ``compare_labels_to_frozen`` does."""
        return compare_labels_to_frozen(frozen, tuned, labels, groups, folds)

    def tuned_result(self, tuned: Tuned, verdict: LabelVerdict) -> MultiLabelFitResult:
        """Make the result of the fine-tuned model; its seconds are those since the fit began."""
        platt, targets = verdict.platt, self.result.split.targets
        bias = platt.logits(tuned.head.bias.astype(np.float64))
        weights = (tuned.head.weights * platt.slopes).astype(np.float32)
        head = replace(tuned.head, weights=weights, bias=bias.astype(np.float32))
        logits, smoothed = platt.logits(tuned.scores), platt_targets(targets.values, targets.known, targets.groups)
        losses = np.nanmean(np.where(targets.known, log_losses(logits, smoothed), np.nan), axis=0)
        probabilities = np.where(targets.known, sigmoid(logits), np.nan)
        candidates = self.result.selected.candidates
        selected = SelectedLabels(head, probabilities, losses, candidates, tuned.ood, tuned.ood_scores)
        # A rendered golden sample has features of the frozen backbone: training images take its place.
        images = replace(self.result.images, backbone=tuned.backbone, features=tuned.features, golden=None)
        starts = dict(zip(("start", "head"), _starts(self.model), strict=True))
        return make_label_result(images, self.result.split, selected, starts, fine_tuning=tuned.record)


def frozen_fit(result: AnyFitResult) -> FrozenFit[AnyFitResult]:
    """Take what fine-tuning needs from the result of a fit."""
    fit = ClassFit.of(result) if isinstance(result, FitResult) else LabelFit.of(result)
    return cast("FrozenFit[AnyFitResult]", fit)


def _starts(model: Model) -> tuple[float, float]:
    """Return when the fit of a model and the selection of its head began, were it to end now."""
    now, seconds = time.perf_counter(), model.run["seconds"]
    return now - seconds["total"], now - seconds["head"]
