"""The full choice: a fit to the labels as they are, and the head that is followed from then on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.classifier import FitOptions, FitResult, MultiLabelFitResult, fit_dataset, fit_multi_label
from headstart.data import Dataset
from headstart.features import Features
from headstart.features.features import Extract
from headstart.heads.live import LiveHead
from headstart.heads.live_labels import LiveLabels
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas


@dataclass(frozen=True)
class FullChoice:
    """The result of a fit to the labels of ``version``; ``ids`` are its training images."""

    result: FitResult | MultiLabelFitResult
    version: int
    seconds: float
    ids: tuple[str, ...]

    @property
    def held_out(self) -> dict[str, tuple[str, str, int]]:
        """Of each training image the label, the class predicted with its group left out, and the group."""
        assert isinstance(self.result, FitResult)
        evaluation, split = self.result.evaluations["leave_group_out"], self.result.data.split
        names = split.classes
        rows = zip(self.ids, split.labels, evaluation.predictions.predicted, split.groups.index, strict=True)
        return {id: (names[label], names[predicted], int(group)) for id, label, predicted, group in rows}


@dataclass(frozen=True)
class Fitted:
    """A fit of the images ``rows`` [n] of ``features``, of groups [n], and its head to follow, if it can be."""

    result: FitResult | MultiLabelFitResult
    features: Features
    rows: NDArray[np.int64]
    groups: NDArray[np.int64]
    backbone: Backbone
    head: LiveHead | LiveLabels | None


def fit_images(dataset: Dataset, options: FitOptions, extract: Extract) -> Fitted:
    """Fit to a dataset, of one class an image or of several labels. Raises HeadstartError."""
    if dataset.is_multi_label:
        labels = fit_multi_label(dataset, options, extract)
        features, rows, groups = labels.images.features, labels.split.train, labels.split.targets.groups
        training_set = TrainingSet.of(features.vectors(rows), np.zeros(len(rows), np.int64), groups)
        with single_threaded_blas():
            followed = LiveLabels.of(training_set, labels.selected.candidates)
        return Fitted(labels, features, rows, np.asarray(groups, np.int64), labels.images.backbone, followed)
    result = fit_dataset(dataset, options, extract)
    split, features = result.data.split, result.data.features
    training_set = TrainingSet.of(features.vectors(split.train), split.labels, split.groups.index)
    selected = result.selected
    with single_threaded_blas():
        head = LiveHead.of(training_set, selected.candidates, selected.head.temperature)
    return Fitted(result, features, split.train, split.groups.index, result.data.backbone, head)
