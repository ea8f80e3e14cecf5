"""From what a fit has learned to what the report says."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from headstart.check import Finding, check_fitted
from headstart.classifier import ImageClassifier
from headstart.data import Dataset
from headstart.errors import ImageError, OptionError
from headstart.features.cache import FeatureCache
from headstart.features.features import Features
from headstart.images.decode import decode
from headstart.model import cam
from headstart.report import projection, reliability, thumbnails
from headstart.report.data import (
    MAX_IMAGES,
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
from headstart.splits.split import Learned
from headstart.stats.accuracy import confusion_matrix

LISTED = 18  # findings of a kind that are told
FILES = 6  # of one finding
THUMBNAILS = 320
LOOKED_AT = 12  # mistakes with an evidence map
TYPICAL, TYPICAL_CLASSES = 2, 8  # pictures of a class, and classes, with one
MAX_TOLD = 2_000  # characters of a name
FEW = 3_000  # pictures: up to here each has a small picture of 48 pixels, beyond of 32
COLUMNS = 50


@dataclass(frozen=True)
class _Answers:
    """Rows of the features that were measured: [m] which, the set of each, its true class, and probabilities [m, k]."""

    rows: NDArray[np.int64]
    measured: NDArray[np.int64]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def sure(self) -> NDArray[np.float64]:
        sure: NDArray[np.float64] = self.probabilities.max(axis=1)
        return sure

    @property
    def answer(self) -> NDArray[np.int64]:
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.answer == self.truth)

    def by_row(self, count: int) -> NDArray[np.float64]:
        """The probabilities in the order of the features, of ``count`` pictures."""
        values = np.zeros((count, self.probabilities.shape[1]))
        values[self.rows] = self.probabilities
        return values


def gather(classifier: ImageClassifier, cache: FeatureCache | None = None) -> Report:
    """What there is to say of a classifier that was fitted in this process. Raises OptionError for a loaded one.

    Small pictures and maps are looked up in ``cache``, and kept there.
    """
    started = time.perf_counter()
    learned: Learned | None = getattr(classifier, "learned_", None)
    if learned is None:
        raise OptionError("A report tells of a fit; this classifier was loaded or never fitted. Fit it here first.")
    dataset, features, split = learned.dataset, learned.features, learned.partition
    classes, answers = _answers(classifier, learned)
    rows = answers.rows[_shown(answers)]
    side = 48 if len(rows) <= FEW else 32
    place_of = {int(row): place for place, row in enumerate(rows)}
    names = _Names(dataset, features, rows)
    # Two things at a time, each with one thread of linear algebra: its threads wait for each other by spinning.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(1) as pool:
        checked = pool.submit(
            check_fitted, dataset, features, split.classes, answers.by_row(len(features.index)),
            learned.backbone.preprocess.at_least,
        )  # fmt: skip
        squares = thumbnails.tiles(dataset, features, rows.tolist(), side, cache, classifier.workers)
        in_place = ((place_of[row], square) for row, square in squares)
        sheet = thumbnails.sprite_sheet(in_place, side, COLUMNS, len(rows))
        shown = _pictures(answers, rows, names)
        layouts = _layouts(classifier, learned, answers, rows)
        reason, maps = _evidence(classifier, learned, shown, rows, cache)
        findings = checked.result()
    told = _told(findings, names)
    larger = rows[_larger(shown, told)].tolist()
    jpegs = thumbnails.thumbnails(dataset, features, larger, cache, classifier.workers)
    return Report(
        tuple(name[:MAX_TOLD] for name in classes), len(split.classes), len(answers.rows), shown,
        _measured(answers, len(classes)), layouts, sheet,
        {place_of[row]: data for row, data in jpegs.items()}, told, dict(Counter(f.kind for f in findings)), maps,
        reason, time.perf_counter() - started,
    )  # fmt: skip


def _answers(classifier: ImageClassifier, learned: Learned) -> tuple[tuple[str, ...], _Answers]:
    """All classes, those that were not learned last, and what was answered to every picture with its group left out."""
    features, split = learned.features, learned.partition
    labels = [str(learned.dataset.items[i].label) for i in features.index[split.validation]]
    classes = (*split.classes, *sorted(set(labels) - set(split.classes)))
    number = {name: i for i, name in enumerate(classes)}
    held = classifier.choice_.head.probabilities(features.matrix(classifier.choice_.head.taps, split.validation))
    return classes, _Answers(
        np.concatenate([split.validation, split.train]),
        np.repeat([0, 1], [len(split.validation), len(split.train)]),
        np.concatenate([np.array([number[name] for name in labels], np.int64), split.labels]),
        np.concatenate([held, classifier.choice_.probabilities]),
    )


def _shown(answers: _Answers) -> NDArray[np.int64]:
    """Which answers are shown one by one: all, or of very many the mistakes, the least sure, and an even choice."""
    count = len(answers.rows)
    if count <= MAX_IMAGES:
        return np.arange(count)
    odd = np.lexsort((answers.sure, answers.right))[: MAX_IMAGES // 2]
    rest = np.setdiff1d(np.arange(count), odd)
    even = rest[np.linspace(0, len(rest) - 1, MAX_IMAGES - len(odd)).round().astype(int)]
    return np.sort(np.concatenate([odd, even]))


class _Names:
    """Paths as the report tells them, without the folders that all have in common, and the place of each."""

    def __init__(self, dataset: Dataset, features: Features, rows: NDArray[np.int64]) -> None:
        paths = [dataset.items[int(i)].path for i in features.index]
        first, last = min(paths, default=""), max(paths, default="")  # all between begin as these two do
        alike = next(
            (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
        )
        self._drop = first[: first.rfind("/", 0, alike) + 1]
        self.places = {paths[row]: place for place, row in enumerate(rows)}
        self.shown = tuple(self.short(paths[row]) for row in rows)

    def short(self, path: str) -> str:
        return path.removeprefix(self._drop)[:MAX_TOLD]


def _told(findings: Sequence[Finding], names: _Names) -> tuple[FindingSummary, ...]:
    told, counts = [], Counter[str]()
    for finding in findings:
        counts[finding.kind] += 1
        if counts[finding.kind] <= LISTED:
            files = finding.files[:FILES]
            more = f", and {len(finding.files) - FILES} more" if len(finding.files) > FILES else ""
            places = tuple(names.places[f] for f in files if f in names.places)
            sure, why = float(np.clip(finding.confidence, 0, 1)), finding.why[:MAX_TOLD] + more
            shorter = tuple(map(names.short, files))
            told.append(FindingSummary(finding.kind, shorter, places, sure, finding.action[:MAX_TOLD], why))
    return tuple(told)


def _pictures(answers: _Answers, rows: NDArray[np.int64], names: _Names) -> tuple[ImageResult, ...]:
    found, at = [], np.empty(int(answers.rows.max(initial=-1)) + 1, np.int64)
    at[answers.rows] = np.arange(len(answers.rows))
    classes = answers.probabilities.shape[1]
    for path, i in zip(names.shown, at[rows], strict=True):
        row = answers.probabilities[i]
        first, second = (int(c) for c in np.argsort(-row, kind="stable")[:2])
        truth = int(answers.truth[i])
        own = float(row[truth]) if truth < classes else 0.0
        # Rounded here, not where they are written: a page made again from the file says the same.
        shares = (round(share, 6) for share in (float(row[first]), float(row[second]), own))
        found.append(ImageResult(path, int(answers.measured[i]), truth, first, second, *shares))
    return tuple(found)


def _measured(answers: _Answers, classes: int) -> tuple[EvaluationSummary, ...]:
    found = []
    for number, name in enumerate(SETS):
        own = answers.measured == number
        if own.any():
            table = confusion_matrix(answers.truth[own], answers.answer[own], classes)
            cells = tuple((int(i), int(j), int(table[i, j])) for i, j in np.argwhere(table))
            sure, right = answers.sure[own], answers.right[own]
            bins, risk = reliability.reliability_bins(sure, right), reliability.risk_coverage(sure, right)
            found.append(EvaluationSummary(name, cells, bins, risk))
    return tuple(found)


def _layouts(
    classifier: ImageClassifier, learned: Learned, answers: _Answers, rows: NDArray[np.int64]
) -> tuple[Projection, ...]:
    vectors = learned.features.matrix(classifier.choice_.head.taps, rows)
    probabilities = answers.by_row(len(learned.features.index))[rows]
    names = learned.partition.classes
    about = projection.predictions_description(names)
    places = (projection.project_features(vectors), projection.project_predictions(probabilities, vectors))
    titles = (("features", projection.FEATURES_DESCRIPTION), ("predictions", about))
    return tuple(
        Projection(*title, *projection.to_map_coordinates(points)) for title, points in zip(titles, places, strict=True)
    )


def _larger(shown: Sequence[ImageResult], told: Sequence[FindingSummary]) -> list[int]:
    """The places of pictures that get a larger thumbnail."""
    wanted = [*most_confident_errors(shown), *lowest_margin(shown), *(place for each in told for place in each.images)]
    return list(dict.fromkeys(wanted))[:THUMBNAILS]


def _evidence(
    classifier: ImageClassifier, learned: Learned, shown: Sequence[ImageResult], rows: NDArray[np.int64],
    cache: FeatureCache | None,
) -> tuple[str, tuple[ActivationMap, ...]]:  # fmt: skip
    """Why there are no evidence maps, and the maps: of mistakes, and of typical pictures of each class."""
    head, backbone, features = classifier.choice_.head, learned.backbone, learned.features
    if reason := cam.why_unavailable(backbone, head):
        return reason, ()
    mistakes = sorted(most_confident_errors(shown), key=lambda place: shown[place].set_index)[:LOOKED_AT]
    typical = _typical(features.matrix(head.taps, rows), shown, len(learned.partition.classes))
    places, pixels = [], []
    for place in (*mistakes, *typical):
        try:
            source = learned.dataset.read(int(features.index[rows[place]]))
            image = decode(source, at_least=backbone.preprocess.at_least)
        except ImageError:
            continue
        places.append(place)
        pixels.append(backbone.preprocess(image))
    content = [features.content_hashes[rows[place]].tobytes() for place in places]
    found = []
    for place, picture, own in zip(
        places, pixels, cam.feature_maps(backbone, head.taps, pixels, content, cache), strict=True
    ):
        vector = np.concatenate([own[tap].mean(axis=(0, 1)) for tap in head.taps])
        scores = head.scores(vector[None])[0]
        first, second = (int(c) for c in np.argsort(-scores, kind="stable")[:2])
        truth = shown[place].true_class
        against = truth if truth != first and truth < len(scores) else second
        grid, bias = cam.class_activation(head, own, first, against)
        if np.isfinite(bias):
            cells = tuple(tuple(float(f"{v:.4g}") for v in row) for row in grid)
            small = Image.fromarray(picture)
            small.thumbnail((thumbnails.THUMBNAIL, thumbnails.THUMBNAIL))
            score = float(grid.sum()) + bias
            found.append(ActivationMap(place, first, against, cells, bias, score, thumbnails.encode_jpeg(small)))
    return "", tuple(found)


def _typical(vectors: NDArray[np.float32], shown: Sequence[ImageResult], classes: int) -> list[int]:
    """Of every class the pictures, answered right, that are nearest to the mean of the class; of the most mistaken."""
    truth = np.array([p.true_class for p in shown])
    right = np.array([p.is_correct for p in shown])
    missed = Counter(p.true_class for p in shown if not p.is_correct)
    order = sorted(range(classes), key=lambda c: -missed[c])[:TYPICAL_CLASSES]
    found: list[int] = []
    for c in order:
        own = np.flatnonzero((truth == c) & right)
        if len(own):
            away = ((vectors[own] - vectors[own].mean(axis=0)) ** 2).sum(axis=1)
            found += own[np.argsort(away, kind="stable")[:TYPICAL]].tolist()
    return found
