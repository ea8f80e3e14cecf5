"""Fit a classifier to a dataset."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.classifier.class_settings import ClassSettings
from headstart.classifier.embedded import (
    EmbeddedImages,
    check_has_labels,
    embed_images,
    training_and_validation_images,
)
from headstart.classifier.kept_rows import check_options
from headstart.classifier.make_model import golden_images, make_model
from headstart.classifier.notes import (
    class_notes,
    contradiction_notes,
    coverage_notes,
    imbalance_notes,
    rare_class_notes,
    rounding_notes,
)
from headstart.classifier.options import FitOptions
from headstart.classifier.precision import PrecisionChoice
from headstart.classifier.run_info import FitRecord, RunInfo, left_out
from headstart.data import Dataset
from headstart.features import Features
from headstart.features.features import Extract, Progress, embed
from headstart.features.input_scaling import InputScaling
from headstart.features.rows import FeatureRows
from headstart.features.rows_folder import import_pyarrow
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.head import Head
from headstart.heads.learning_curve import LearningCurve, learning_curve
from headstart.heads.selection import SelectedHead, select_head
from headstart.heads.training_set import MANY_IMAGES, TrainingSet, deepest_basis
from headstart.machine import single_threaded_blas
from headstart.model.compose import compose
from headstart.model.folder import write_model
from headstart.model.golden import GoldenImages, make_golden
from headstart.model.metadata import graph_metadata
from headstart.model.model import Model
from headstart.model.predictions import Evaluation, Predictions, encode_truth, evaluate
from headstart.splits.split import Split, split_features
from headstart.stats.accuracy import Accuracy
from headstart.stats.conformal import fit_thresholds

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """What a head was fitted to: the images for training and validation, their features and split, and the backbone.

    ``notes`` are lines about them that the user must see. ``scaling`` is that of the backbone where it was open;
    ``precision_choice`` is None where "auto" had none to make; ``settings`` are what is set for the classes;
    ``coarse_channels`` are the shares of ``Features.coarse_channels``; ``golden`` are the features of a rendered golden
    sample (None: training images make it).
    """

    dataset: Dataset
    backbone: Backbone
    features: Features
    split: Split
    notes: tuple[str, ...]
    scaling: InputScaling | None = None
    precision_choice: PrecisionChoice | None = None
    settings: ClassSettings = field(default_factory=ClassSettings)
    coarse_channels: Mapping[str, float] = field(default_factory=dict)
    golden: Mapping[str, NDArray[np.float32]] | None = None


@dataclass(frozen=True, eq=False)  # compared and hashed as one object: arrays have no one answer
class FitResult:
    """Result of a fit; nothing is changed afterwards.

    ``selected`` is the head with the evidence for it. ``evaluations`` hold predictions and their quality: "validation",
    where there are such images, and "leave_group_out", the training images, each predicted with its group left out.
    ``learning_curve`` is None where there are too few groups for one. ``model`` is the finished model, whose ``run`` is
    the content of ``run.json``. ``notes`` are lines that the user must see. ``kept`` are the rows that the model folder
    is to keep, None where it keeps none.

    A result can be pickled and copied. Neither the pickle nor the copy holds images, so a report of it shows none.
    """

    options: FitOptions
    data: TrainingData
    selected: SelectedHead
    evaluations: Mapping[str, Evaluation]
    learning_curve: LearningCurve | None
    model: Model
    notes: tuple[str, ...]
    kept: FeatureRows | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: all but the images."""
        data = replace(self.data, dataset=self.data.dataset.without_images())
        return {**vars(self), "options": self.options.without_images(), "data": data}

    @property
    def accuracy(self) -> dict[str, Accuracy]:
        """The accuracies by what they were measured on."""
        return {name: evaluation.accuracy for name, evaluation in self.evaluations.items()}

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """The path of all that was skipped or could not be read, and why: the rows of ``skipped.csv``."""
        return left_out(self.data.dataset, self.data.features)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> str:
        """Write the model folder and return its path; ``overwrite`` replaces a model of other data, too.

        Raises OptionError, ModelError.
        """
        return str(write_model(self.model, folder, self.left_out, overwrite=overwrite, rows=self.kept))


def fit_dataset(
    dataset: Dataset,
    options: FitOptions | None = None,
    extract: Extract = embed,
    *,
    thumbnails: bool = False,
    keep_features: bool = False,
    progress: Progress | None = None,
    log: Callable[[str], None] = logger.info,
) -> FitResult:
    """Fit a classifier to the training images of a dataset.

    ``extract`` computes features and has the parameters of ``features.embed``. With ``thumbnails`` what a report shows
    of an image is kept in the cache while the image is decoded. With ``keep_features`` the model keeps the features of
    the images, and holds no image; what it is depends on the contents of the images alone. ``progress(done, total)``
    counts images; ``log`` receives lines of text about the trainings of an mlp head, before the first what all cost.
    Raises HeadstartError.
    """
    options = options or FitOptions()
    start = time.perf_counter()
    options.compute.resolve()
    check_has_labels(dataset)
    options.require_single_label_options()
    images = training_and_validation_images(dataset, options)
    settings = options.class_settings(images)
    if keep_features:
        check_options(options)
        import_pyarrow()  # before the work, not behind it
    embedded = embed_images(images, options, extract, thumbnails=thumbnails, rendered=keep_features, progress=progress)
    if keep_features:
        from headstart.classifier.refit import fit_and_keep  # which fits with this module

        result = fit_and_keep(embedded, settings, start=start, log=log)
        assert isinstance(result, FitResult)
        return result
    return fit_rows(embedded, settings, start=start, log=log)


def fit_rows(
    embedded: EmbeddedImages,
    settings: ClassSettings,
    *,
    start: float | None = None,
    log: Callable[[str], None] = logger.info,
) -> FitResult:
    """Fit a classifier to features: the second step of a fit, which reads no image where the golden sample is rendered.

    ``settings`` are what is set for the classes. ``start`` is when the fit began, by ``time.perf_counter`` (None: now);
    ``log`` is that of ``fit_dataset``. Raises HeadstartError.
    """
    head_start = time.perf_counter()
    options, features = embedded.options, embedded.features
    split, basis = _split(embedded)
    training_set = TrainingSet.of(
        embedded.training_values(split.train),
        np.tile(split.labels, options.views),
        np.tile(split.groups.index, options.views),
        images=len(split.labels),
        deepest_basis=basis,
    )
    with single_threaded_blas():
        selected = select_head(training_set, options.head_options, workers=options.compute.threads, log=log)
    coarse = features.coarse_channels(split.train)
    data = TrainingData(
        embedded.dataset,
        embedded.backbone,
        features,
        split,
        (*embedded.notes, *rounding_notes(coarse), *split.notes),
        embedded.scaling,
        embedded.precision_choice,
        settings,
        coarse,
        embedded.golden,
    )
    result = make_result(options, data, selected, FitTimes(head_start if start is None else start, head_start))
    for note in result.notes:
        logger.warning("%s", note)
    return result


def _split(embedded: EmbeddedImages) -> tuple[Split, Eigenbasis | None]:
    """Split the images. The basis of the deepest tap, which needs no groups, is computed meanwhile, if it will be used.

    It is None for many images, whose heads are compared in fewer directions, and where the training images are not
    known before.
    """
    options, features, rows = embedded.options, embedded.features, embedded.training_rows
    share = options.validation if isinstance(options.validation, float | int) else None
    is_used = share is None and options.views == 1 and 1 < len(rows) < MANY_IMAGES and options.head != "mlp"
    # The pool within: the basis is waited for with one thread still. With more it is another in its last digits, and
    # which came first decided over those of the model.
    with single_threaded_blas(), ThreadPoolExecutor(1) as pool:
        basis = pool.submit(deepest_basis, features.vectors(rows)) if is_used else None
        split = split_features(features, embedded.dataset, options.group_by, share, options.seed)
    return split, None if basis is None else basis.result()


@dataclass(frozen=True)
class FitTimes:
    """When a fit and the selection of its head began, by ``time.perf_counter``."""

    start: float
    head_start: float


@dataclass(frozen=True)
class FineTuningRecord:
    """What ``run.json`` tells of a fine-tuning: its ``info``, and the epochs of the training that made the model."""

    info: Mapping[str, Any]
    training: tuple[Mapping[str, Any], ...] = ()


def _record(options: FitOptions, data: TrainingData, head: Head, times: FitTimes) -> FitRecord:
    """Return what ``run.json`` holds of every fit, for one that ends now."""
    end = time.perf_counter()
    return FitRecord(
        data.dataset,
        data.features,
        data.split,
        data.backbone,
        head,
        options,
        {"total": end - times.start, "head": end - times.head_start},
        data.scaling,
        data.precision_choice,
        data.coarse_channels,
    )


def make_result(
    options: FitOptions,
    data: TrainingData,
    selected: SelectedHead,
    times: FitTimes,
    *,
    fine_tuning: FineTuningRecord | None = None,
) -> FitResult:
    """Make the result of a fit from a selected head: thresholds, evaluations, learning curve, model and run info.

    Whatever is measured is measured on the probabilities as the class weights of ``data`` change them, and on the
    decisions by its rule. The head comes without class weights.
    """
    split = data.split
    selected = selected.weighted(data.settings.class_weights(split.classes, split.labels))
    thresholds = fit_thresholds(
        selected.probabilities,
        split.labels,
        split.groups.index,
        selected.ood_scores,
        coverage=options.coverage,
        false_alarms=options.false_alarms,
    )
    with ThreadPoolExecutor(1) as pool:  # one: two threads of small steps would wait for each other
        images = pool.submit(_golden_images, data, selected)
        curve = pool.submit(_learning_curve, options, data, selected)
        evaluations = pool.submit(_evaluate, data, selected)
        backbone = data.backbone
        rule = data.settings.rule(split.classes)
        metadata = graph_metadata(split.classes, backbone.preprocess, thresholds, rule)
        graph = compose(backbone, selected.head, selected.ood, rule, metadata)
        golden = make_golden(graph, backbone.preprocess, backbone.batch, images.result())
    record = _record(options, data, selected.head, times)
    info = RunInfo(
        record,
        selected,
        evaluations.result(),
        curve.result(),
        None if fine_tuning is None else fine_tuning.info,
        () if fine_tuning is None else fine_tuning.training,
        data.settings,
    )
    model = make_model(data, selected, thresholds, graph, golden, info.to_dict())
    metrics = info.evaluations["leave_group_out"].metrics
    notes = (
        *(*data.notes, *coverage_notes(thresholds, split.groups.index), *class_notes(metrics)),
        *rare_class_notes(metrics, thresholds, split.labels, split.groups.index),
        *(*imbalance_notes(metrics, data.settings), *contradiction_notes(info.evaluations)),
    )
    # Without the basis: it holds all features.
    return FitResult(options, data, selected.without_arrays(), info.evaluations, curve.result(), model, notes)


def _golden_images(data: TrainingData, selected: SelectedHead) -> GoldenImages:
    parts = (selected.head, selected.ood)
    return golden_images(data.dataset, data.features, data.backbone, data.split.train, parts, golden=data.golden)


def _learning_curve(options: FitOptions, data: TrainingData, selected: SelectedHead) -> LearningCurve | None:
    split = data.split
    with single_threaded_blas():
        return learning_curve(
            selected,
            split.labels,
            split.groups.index,
            seed=options.seed,
            workers=options.compute.threads,
            rule=data.settings.rule(split.classes),
        )


def _evaluate(data: TrainingData, selected: SelectedHead) -> dict[str, Evaluation]:
    """Evaluate the head on the validation images, and on the training images with each one's group left out."""
    features, split, head = data.features, data.split, selected.head
    rule = data.settings.rule(split.classes)
    items = [data.dataset.items[i] for i in features.index]
    evaluations = {}
    if len(split.validation):
        truth, unknown = encode_truth(split.classes, [str(items[i].label) for i in split.validation])
        probabilities = head.probabilities(features.matrix(head.taps, split.validation))
        paths = tuple(items[i].path for i in split.validation)
        predictions = Predictions(split.classes, paths, split.validation, probabilities, truth, unknown, rule=rule)
        evaluations["validation"] = evaluate(predictions, split.validation_groups)
    paths = tuple(items[i].path for i in split.train)
    predictions = Predictions(split.classes, paths, split.train, selected.probabilities, split.labels, rule=rule)
    evaluations["leave_group_out"] = evaluate(predictions, split.groups.index)
    return evaluations
