"""From the result of a fit to the content of its report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.check import Finding, check_from_features
from headstart.classifier import FitResult
from headstart.classifier.fit import TrainingData
from headstart.errors import ImageError
from headstart.features import FeatureCache
from headstart.heads.head import Head
from headstart.images.decoding import decode
from headstart.machine import single_threaded_blas
from headstart.model import cam
from headstart.report import projection, reliability, thumbnails
from headstart.report.data import (
    SETS,
    ActivationMap,
    EvaluationSummary,
    FindingSummary,
    ImageResult,
    Projection,
    Report,
    lowest_margin,
    most_confident_errors,
)
from headstart.report.shown import COLUMNS, MAX_TEXT, MAX_THUMBNAILS, Paths, choose, tile_side, validation_groups
from headstart.report.thresholds import class_thresholds
from headstart.stats.classification import confusion_matrix

MAX_FINDINGS = 60  # of a kind
MAX_FILES = 6  # of a finding
MAX_ERROR_MAPS = 12  # errors with an activation map
TYPICAL_IMAGES, TYPICAL_CLASSES = 2, 8  # typical images of a class, and classes, with an activation map
Rows = NDArray[np.int64]


def gather(result: FitResult, cache: FeatureCache | None = None) -> Report:
    """Collect the content of the report of a fit. Small images and maps are looked up in ``cache`` and stored there."""
    start = time.perf_counter()
    data, head = result.data, result.selected.head
    dataset, features, workers = data.dataset, data.features, result.options.compute.workers
    predictions = _all_predictions(result)
    rows = predictions.rows[_individually_shown(predictions)]
    index_of = {int(row): i for i, row in enumerate(rows)}
    paths = Paths(dataset, features, rows)
    side = tile_side(len(rows))
    # Two threads, each with one thread of linear algebra: threads of a BLAS wait for each other by spinning.
    with single_threaded_blas(), ThreadPoolExecutor(1) as pool:
        findings_future = pool.submit(_findings, data, predictions)
        tiles = thumbnails.tiles(dataset, features, rows.tolist(), side, cache, workers)
        sprite = thumbnails.sprite_sheet(((index_of[row], tile) for row, tile in tiles), side, COLUMNS, len(rows))
        groups = _groups_by_row(result, predictions)
        images = _image_results(predictions, rows, paths.short_paths, groups)
        projections = _projections(data, head, predictions, rows)
        maps_unavailable = cam.why_unavailable(data.backbone, head)
        activation_maps = () if maps_unavailable else _activation_maps(data, head, images, rows, cache)
        findings = findings_future.result()
    if not activation_maps and not maps_unavailable:
        maps_unavailable = "None of the images could be read again."
    summaries = _finding_summaries(findings, paths)
    large = rows[_images_with_thumbnail(images, summaries)].tolist()
    jpegs = thumbnails.thumbnails(dataset, features, large, cache, workers)
    return Report(
        tuple(name[:MAX_TEXT] for name in predictions.classes),
        len(data.split.classes),
        len(predictions.rows),
        images,
        _evaluation_summaries(predictions, groups),
        projections,
        sprite,
        {index_of[row]: jpeg for row, jpeg in jpegs.items()},
        summaries,
        dict(Counter(finding.kind for finding in findings)),
        activation_maps,
        maps_unavailable,
        time.perf_counter() - start,
        time.strftime("%Y-%m-%d", time.gmtime()),
    )


@dataclass(frozen=True)
class _AllPredictions:
    """Predictions for all n images of a fit, validation images first.

    ``classes`` are those of the model, then those that only validation images have. ``rows`` [n] are rows of the
    features, ``set_index`` [n] indices into ``SETS``, ``truth`` [n] true classes, ``predicted`` [n] predicted ones,
    ``probabilities`` [n, k].
    """

    classes: tuple[str, ...]
    rows: Rows
    set_index: Rows
    truth: Rows
    predicted: Rows
    probabilities: NDArray[np.float64]

    @property
    def confidence(self) -> NDArray[np.float64]:
        confidence: NDArray[np.float64] = self.probabilities[np.arange(len(self.predicted)), self.predicted]
        return confidence

    @property
    def is_correct(self) -> NDArray[np.bool_]:
        return np.asarray(self.predicted == self.truth)

    def by_row(self, count: int) -> NDArray[np.float64]:
        """Return the probabilities [count, k] in the order of the rows of the features."""
        values = np.zeros((count, self.probabilities.shape[1]))
        values[self.rows] = self.probabilities
        return values


def _all_predictions(result: FitResult) -> _AllPredictions:
    evaluated = [(i, result.evaluations[name].predictions) for i, name in enumerate(SETS) if name in result.evaluations]
    truth = []
    for _, predictions in evaluated:
        assert predictions.truth is not None  # a fit knows the labels
        truth.append(predictions.truth)
    return _AllPredictions(
        max((predictions.labels for _, predictions in evaluated), key=len),
        np.concatenate([predictions.rows for _, predictions in evaluated]),
        np.concatenate([np.full(len(predictions), i, np.int64) for i, predictions in evaluated]),
        np.concatenate(truth),
        np.concatenate([predictions.predicted for _, predictions in evaluated]),
        np.concatenate([predictions.probabilities for _, predictions in evaluated]),
    )


def _groups_by_row(result: FitResult, predictions: _AllPredictions) -> dict[int, int]:
    split, data = result.data.split, result.data
    is_validation = predictions.set_index == SETS.index("validation")
    rows, truth = predictions.rows[is_validation], predictions.truth[is_validation]
    groups = dict(zip(split.train.tolist(), split.groups.index.tolist(), strict=True))
    return groups | validation_groups(data.features, data.dataset, rows, truth, result.options.group_by)


def _individually_shown(predictions: _AllPredictions) -> Rows:
    """Return which predictions are shown one by one: all, or of very many a choice.

    Half of the choice are the errors, most confident first, and the least confident correct predictions; the other half
    is spread evenly over the rest.
    """
    is_correct, confidence = predictions.is_correct, predictions.confidence
    return choose(np.lexsort((np.where(is_correct, confidence, -confidence), is_correct)))


def _findings(data: TrainingData, predictions: _AllPredictions) -> tuple[Finding, ...]:
    probabilities = predictions.by_row(len(data.features.index))
    return check_from_features(
        data.dataset, data.features, data.split.classes, probabilities, data.backbone.preprocess.min_size
    )


def _finding_summaries(findings: Sequence[Finding], paths: Paths) -> tuple[FindingSummary, ...]:
    summaries, counts = [], Counter[str]()
    for finding in findings:
        counts[finding.kind] += 1
        if counts[finding.kind] > MAX_FINDINGS:
            continue
        files = finding.files[:MAX_FILES]
        more = f", and {len(finding.files) - MAX_FILES} more" if len(finding.files) > MAX_FILES else ""
        summaries.append(
            FindingSummary(
                finding.kind,
                tuple(map(paths.shorten, files)),
                tuple(paths.index_of[file] for file in files if file in paths.index_of),
                finding.certainty,
                float(np.clip(finding.confidence, 0, 1)),
                finding.action[:MAX_TEXT],
                finding.why[:MAX_TEXT] + more,
            )
        )
    return tuple(summaries)


def _image_results(
    predictions: _AllPredictions, rows: Rows, paths: Sequence[str], groups: Mapping[int, int]
) -> tuple[ImageResult, ...]:
    place = np.empty(int(predictions.rows.max(initial=-1)) + 1, np.int64)
    place[predictions.rows] = np.arange(len(predictions.rows))
    classes = predictions.probabilities.shape[1]
    images = []
    for path, row, i in zip(paths, rows.tolist(), place[rows], strict=True):
        probabilities = predictions.probabilities[i]
        order, first = np.argsort(-probabilities, kind="stable"), int(predictions.predicted[i])
        second = int(order[1] if order[0] == first else order[0])
        truth = int(predictions.truth[i])
        of_truth = float(probabilities[truth]) if truth < classes else 0.0
        # Rounded here, not where they are written: a page made again from the file says the same.
        first_p, second_p, truth_p = (
            round(p, 6) for p in (float(probabilities[first]), float(probabilities[second]), of_truth)
        )
        set_index, group = int(predictions.set_index[i]), groups.get(row, -1)
        images.append(ImageResult(path, set_index, truth, first, second, first_p, second_p, truth_p, group))
    return tuple(images)


def _evaluation_summaries(predictions: _AllPredictions, groups: Mapping[int, int]) -> tuple[EvaluationSummary, ...]:
    summaries = []
    group_of = np.array([groups.get(row, -1 - row) for row in predictions.rows.tolist()], np.int64)
    for i, name in enumerate(SETS):
        members = predictions.set_index == i
        if not members.any():
            continue
        truth, predicted = predictions.truth[members], predictions.predicted[members]
        counts = confusion_matrix(truth, predicted, len(predictions.classes))
        cells = tuple((int(t), int(p), int(counts[t, p])) for t, p in np.argwhere(counts))
        confidence, is_correct = predictions.confidence[members], predictions.is_correct[members]
        summaries.append(
            EvaluationSummary(
                name,
                cells,
                reliability.reliability_bins(confidence, is_correct, group_of[members]),
                reliability.risk_coverage(confidence, is_correct),
                class_thresholds(predictions.probabilities[members], truth, predicted),
            )
        )
    return tuple(summaries)


def _projections(
    data: TrainingData, head: Head, predictions: _AllPredictions, rows: Rows
) -> tuple[Projection, Projection]:
    vectors = data.features.matrix(head.taps, rows)
    probabilities = predictions.by_row(len(data.features.index))[rows]
    by_features = projection.to_map_coordinates(projection.project_features(vectors))
    by_prediction = projection.to_map_coordinates(projection.project_predictions(probabilities, vectors))
    description = projection.predictions_description(data.split.classes)
    return (
        Projection("features", projection.FEATURES_DESCRIPTION, *by_features),
        Projection("predictions", description, *by_prediction),
    )


def _images_with_thumbnail(images: Sequence[ImageResult], findings: Sequence[FindingSummary]) -> list[int]:
    """Return the indices of the images that get a larger thumbnail, the most important first."""
    of_findings = (i for finding in findings for i in finding.images)
    return list(dict.fromkeys([*most_confident_errors(images), *lowest_margin(images), *of_findings]))[:MAX_THUMBNAILS]


def _activation_maps(
    data: TrainingData, head: Head, images: Sequence[ImageResult], rows: Rows, cache: FeatureCache | None
) -> tuple[ActivationMap, ...]:
    """Return the activation maps of errors, validation images first, and of typical images of each class."""
    features, preprocess, rule = data.features, data.backbone.preprocess, data.settings.rule(data.split.classes)
    errors = sorted(most_confident_errors(images), key=lambda i: images[i].set_index)[:MAX_ERROR_MAPS]
    typical = _typical_images(features.matrix(head.taps, rows), images, len(data.split.classes))
    indices, pixels = [], []
    for i in (*errors, *typical):
        try:
            image = decode(
                data.dataset.read(int(features.index[rows[i]])),
                min_size=preprocess.min_size,
                sample_range=preprocess.sample_range,
                scaled=preprocess.is_scaled,
            )
        except ImageError:
            continue
        indices.append(i)
        pixels.append(preprocess(image))
    hashes = [features.content_hashes[rows[i]].tobytes() for i in indices]
    all_maps = cam.feature_maps(data.backbone, head.taps, pixels, hashes, cache)
    maps = []
    for i, image, image_maps in zip(indices, pixels, all_maps, strict=True):
        vector = np.concatenate([image_maps[tap].mean(axis=(0, 1)) for tap in head.taps])
        scores = head.scores(vector[None])[0]
        order = np.argsort(-scores, kind="stable")
        positive = int(order[0] if rule is None else rule.decide(head.probabilities(vector[None]))[0])
        second = int(order[1] if order[0] == positive else order[0])
        truth = images[i].true_class
        negative = truth if truth != positive and truth < len(scores) else second
        grid, bias = cam.class_activation(head, image_maps, positive, negative)
        if not np.isfinite(bias):
            continue
        cells = tuple(tuple(float(f"{value:.4g}") for value in row) for row in grid)
        small = Image.fromarray(image)
        small.thumbnail((thumbnails.THUMBNAIL, thumbnails.THUMBNAIL))
        jpeg = thumbnails.encode_jpeg(small)
        maps.append(ActivationMap(i, positive, negative, cells, bias, float(grid.sum()) + bias, jpeg))
    return tuple(maps)


def _typical_images(vectors: NDArray[np.float32], images: Sequence[ImageResult], classes: int) -> list[int]:
    """Return, of the classes with most errors, the correctly classified images nearest to the mean of their class."""
    truth = np.array([image.true_class for image in images])
    is_correct = np.array([image.is_correct for image in images])
    error_counts = Counter(image.true_class for image in images if not image.is_correct)
    typical: list[int] = []
    for c in sorted(range(classes), key=lambda c: -error_counts[c])[:TYPICAL_CLASSES]:
        members = np.flatnonzero((truth == c) & is_correct)
        if len(members):
            distances = ((vectors[members] - vectors[members].mean(axis=0)) ** 2).sum(axis=1)
            typical += members[np.argsort(distances, kind="stable")[:TYPICAL_IMAGES]].tolist()
    return typical
