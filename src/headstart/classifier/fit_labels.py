"""Fit a classifier of several labels an image to a multi-label dataset."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from headstart.classifier.embedded import EmbeddedImages, embed_images, training_and_validation_images
from headstart.classifier.fit import FineTuningRecord
from headstart.classifier.kept_rows import check_options
from headstart.classifier.make_model import golden_images
from headstart.classifier.notes import label_notes, rounding_notes
from headstart.classifier.options import FitOptions
from headstart.classifier.run_info import FitRecord, left_out
from headstart.data import Dataset
from headstart.errors import DataError
from headstart.features.features import Extract, Progress, embed
from headstart.features.rows import FeatureRows
from headstart.features.rows_folder import import_pyarrow
from headstart.heads.label_ridge import LabelTargets
from headstart.heads.label_selection import SelectedLabels, select_labels
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas
from headstart.model.compose import compose
from headstart.model.folder import write_model
from headstart.model.golden import make_golden
from headstart.model.label_predictions import MultiLabelEvaluation, MultiLabelPredictions, evaluate_labels
from headstart.model.metadata import MULTI_LABEL, graph_metadata
from headstart.model.model import HASH_BYTES, Model, describe_backbone
from headstart.splits.label_split import LabelSplit, split_labels
from headstart.stats.conformal import ConformalThresholds, check_targets, group_quantile
from headstart.stats.label_thresholds import LabelThresholds, fit_label_thresholds, set_thresholds

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)  # compared and hashed as one object: arrays have no one answer
class MultiLabelFitResult:
    """Result of a fit to a multi-label dataset; nothing is changed afterwards.

    ``images`` are the embedded images, ``split`` says which were trained on. ``evaluations`` hold predictions and their
    quality: "validation", where there are such images, and "leave_group_out", the training images, each predicted with
    its group left out. ``model`` is the finished model, ``notes`` are lines that the user must see; ``kept`` are the
    rows that the model folder is to keep, None where it keeps none. As of a ``FitResult`` a pickle holds no images.
    """

    options: FitOptions
    images: EmbeddedImages
    split: LabelSplit
    selected: SelectedLabels
    evaluations: Mapping[str, MultiLabelEvaluation]
    model: Model
    notes: tuple[str, ...]
    kept: FeatureRows | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: all but the images."""
        options = self.images.options.without_images()
        images = replace(self.images, dataset=self.images.dataset.without_images(), options=options)
        return {**vars(self), "options": self.options.without_images(), "images": images}

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """The path of all that was skipped or could not be read, and why: the rows of ``skipped.csv``."""
        return left_out(self.images.dataset, self.images.features)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> str:
        """Write the model folder and return its path; ``overwrite`` replaces a model of other data, too.

        Raises OptionError, ModelError.
        """
        return str(write_model(self.model, folder, self.left_out, overwrite=overwrite, rows=self.kept))


def fit_multi_label(
    dataset: Dataset,
    options: FitOptions | None = None,
    extract: Extract = embed,
    *,
    thumbnails: bool = False,
    keep_features: bool = False,
    progress: Progress | None = None,
) -> MultiLabelFitResult:
    """Fit a classifier of several labels an image to the training images of a multi-label dataset.

    The parameters are those of ``fit_dataset``. Raises HeadstartError.
    """
    options = options or FitOptions()
    start = time.perf_counter()
    options.compute.resolve()
    options.require_multi_label_options()
    check_targets(options.coverage, options.false_alarms)
    if not dataset.is_multi_label:
        raise DataError(
            f"{dataset.uri} has one class an image; fit it with fit_dataset, or read it as multi-label "
            "(ReadOptions(multi_label=True))."
        )
    if keep_features:
        check_options(options)
        import_pyarrow()  # before the work, not behind it
    images = training_and_validation_images(dataset, options)
    embedded = embed_images(images, options, extract, thumbnails=thumbnails, rendered=keep_features, progress=progress)
    if keep_features:
        from headstart.classifier.refit import fit_and_keep  # which fits with this module

        result = fit_and_keep(embedded, None, start=start)
        assert isinstance(result, MultiLabelFitResult)
        return result
    return fit_label_rows(embedded, start=start)


def fit_label_rows(embedded: EmbeddedImages, *, start: float | None = None) -> MultiLabelFitResult:
    """Fit a classifier of several labels an image to features, as ``fit.fit_rows`` does for classes."""
    options, features = embedded.options, embedded.features
    head_start = time.perf_counter()
    share = options.validation if isinstance(options.validation, float | int) else None
    split = split_labels(features, embedded.dataset, options.group_by, share, options.seed)
    selected = _select(embedded, split)
    starts = {"start": head_start if start is None else start, "head": head_start}
    result = make_label_result(embedded, split, selected, starts)
    for note in result.notes:
        logger.warning("%s", note)
    return result


def _select(embedded: EmbeddedImages, split: LabelSplit) -> SelectedLabels:
    options, targets = embedded.options, split.targets
    groups = np.tile(targets.groups, options.views)
    training_set = TrainingSet.of(
        embedded.training_values(split.train), np.zeros(len(groups), np.int64), groups, images=len(split.train)
    )
    repeats = (options.views, 1)
    repeated = LabelTargets(np.tile(targets.values, repeats), np.tile(targets.known, repeats), groups)
    with single_threaded_blas():
        return select_labels(training_set, repeated, options.head_options.taps, workers=options.compute.threads)


def make_label_result(
    embedded: EmbeddedImages,
    split: LabelSplit,
    selected: SelectedLabels,
    starts: Mapping[str, float],
    *,
    fine_tuning: FineTuningRecord | None = None,
) -> MultiLabelFitResult:
    """Make the result: thresholds, evaluations, model and run info. ``starts`` are when the fit and its head began."""
    options, targets, backbone = embedded.options, split.targets, embedded.backbone
    held_out = (selected.probabilities, targets.values, targets.known, targets.groups)
    label_thresholds = fit_label_thresholds(*held_out, *options.label_target)
    thresholds = ConformalThresholds(
        options.coverage,
        set_thresholds(*held_out, options.coverage, label_thresholds),
        options.false_alarms,
        group_quantile(selected.ood_scores, targets.groups, 1 - options.false_alarms),
    )
    metadata = graph_metadata(split.names, backbone.preprocess, thresholds, None, label_thresholds)
    graph = compose(backbone, selected.head, selected.ood, None, metadata)
    parts = (selected.head, selected.ood)
    images = golden_images(embedded.dataset, embedded.features, backbone, split.train, parts, golden=embedded.golden)
    golden = make_golden(graph, backbone.preprocess, backbone.batch, images)
    evaluations = _evaluate(embedded, split, selected, label_thresholds)
    end = time.perf_counter()
    seconds = {"total": end - starts["start"], "head": end - starts["head"]}
    record = _record(embedded, split, selected, seconds)
    run = _run_info(record, selected, evaluations, label_thresholds)
    if fine_tuning is not None:
        run |= {"training": [*fine_tuning.training], "fine_tuning": dict(fine_tuning.info)}
    model = Model(
        split.names,
        backbone.preprocess,
        describe_backbone(backbone),
        selected.head,
        selected.ood,
        thresholds,
        graph,
        hashlib.sha256(graph).hexdigest(),
        backbone.batch,
        golden,
        run,
        np.unique(embedded.features.content_hashes[split.train, :HASH_BYTES], axis=0),
        label_thresholds=label_thresholds,
    )
    metrics = evaluations["leave_group_out"].metrics
    notes = (
        *(*embedded.notes, *split.notes, *rounding_notes(record.coarse_channels)),
        *label_notes(metrics, label_thresholds, thresholds, targets.groups),
    )
    return MultiLabelFitResult(options, embedded, split, selected, evaluations, model, notes)


def _record(
    embedded: EmbeddedImages, split: LabelSplit, selected: SelectedLabels, seconds: Mapping[str, float]
) -> FitRecord:
    return FitRecord(
        embedded.dataset,
        embedded.features,
        split,
        embedded.backbone,
        selected.head,
        embedded.options,
        seconds,
        embedded.scaling,
        embedded.precision_choice,
        embedded.features.coarse_channels(split.train),
    )


def _evaluate(
    embedded: EmbeddedImages, split: LabelSplit, selected: SelectedLabels, label_thresholds: LabelThresholds
) -> dict[str, MultiLabelEvaluation]:
    """Evaluate the head on the validation images, and on the training images with each one's group left out."""
    features, evaluations = embedded.features, {}
    paths = [embedded.dataset.items[i].path for i in features.index]
    if len(split.validation):
        predictions = MultiLabelPredictions(
            split.names,
            tuple(paths[i] for i in split.validation),
            split.validation,
            selected.head.probabilities(features.matrix(selected.head.taps, split.validation)),
            label_thresholds=label_thresholds,
            label_truth=split.validation_values,
            label_known=split.validation_known,
        )
        evaluations["validation"] = evaluate_labels(predictions, split.validation_groups)
    predictions = MultiLabelPredictions(
        split.names,
        tuple(paths[i] for i in split.train),
        split.train,
        selected.probabilities,
        label_thresholds=label_thresholds,
        label_truth=split.targets.values,
        label_known=split.targets.known,
    )
    evaluations["leave_group_out"] = evaluate_labels(predictions, split.targets.groups)
    return evaluations


def _run_info(
    record: FitRecord,
    selected: SelectedLabels,
    evaluations: Mapping[str, MultiLabelEvaluation],
    label_thresholds: LabelThresholds,
) -> dict[str, Any]:
    """Return what ``run.json`` holds."""
    return {
        **record.to_dict(),
        "problem_type": MULTI_LABEL,
        "labels": record.dataset.label_summary,
        "label_thresholds": label_thresholds.to_dict(),
        "metrics": {name: evaluation.metrics.to_dict() for name, evaluation in evaluations.items()},
        "candidates": [c.to_dict() for c in sorted(selected.candidates, key=lambda c: float(c.losses.mean()))],
    }
