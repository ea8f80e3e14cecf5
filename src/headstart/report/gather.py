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

from headstart.check import Finding, check_from_features
from headstart.classifier import ImageClassifier
from headstart.data import Dataset
from headstart.errors import ImageError, OptionError
from headstart.features.cache import FeatureCache
from headstart.features.features import Features
from headstart.images.decode import decode
from headstart.model import cam as evidence
from headstart.report import projection as layout
from headstart.report import reliability as curves
from headstart.report import thumbnails as pictures
from headstart.report.data import (
    MAX_SHOWN,
    SETS,
    Evidence,
    Layout,
    Measured,
    Picture,
    Report,
    Told,
    unsure,
    worst,
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
LOOK = "By look: pictures that the network sees alike lie close together. Principal components of its features."
ANSWER = "By answer: pictures that were answered alike lie close together. "
TWO = (
    "From left to right the log-odds of {0}, measured with the picture left out; from bottom to top what else varies "
    "most in the features."
)
MANY = "Principal components of the logarithms of the probabilities, measured with the picture left out."


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
            check_from_features, dataset, features, split.classes, answers.by_row(len(features.index)),
            learned.backbone.preprocess.at_least,
        )  # fmt: skip
        squares = pictures.squares(dataset, features, rows.tolist(), side, cache, classifier.workers)
        in_place = ((place_of[row], square) for row, square in squares)
        sheet = pictures.sprite(in_place, side, COLUMNS, len(rows))
        shown = _pictures(answers, rows, names)
        layouts = _layouts(classifier, learned, answers, rows)
        reason, maps = _evidence(classifier, learned, shown, rows, cache)
        findings = checked.result()
    told = _told(findings, names)
    larger = rows[_larger(shown, told)].tolist()
    thumbnails = pictures.thumbnails(dataset, features, larger, cache, classifier.workers)
    return Report(
        tuple(name[:MAX_TOLD] for name in classes), len(split.classes), len(answers.rows), shown,
        _measured(answers, len(classes)), layouts, side, COLUMNS, sheet,
        {place_of[row]: data for row, data in thumbnails.items()}, told, dict(Counter(f.kind for f in findings)), maps,
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
    if count <= MAX_SHOWN:
        return np.arange(count)
    odd = np.lexsort((answers.sure, answers.right))[: MAX_SHOWN // 2]
    rest = np.setdiff1d(np.arange(count), odd)
    even = rest[np.linspace(0, len(rest) - 1, MAX_SHOWN - len(odd)).round().astype(int)]
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


def _told(findings: Sequence[Finding], names: _Names) -> tuple[Told, ...]:
    told, counts = [], Counter[str]()
    for finding in findings:
        counts[finding.kind] += 1
        if counts[finding.kind] <= LISTED:
            files = finding.files[:FILES]
            more = f", and {len(finding.files) - FILES} more" if len(finding.files) > FILES else ""
            places = tuple(names.places[f] for f in files if f in names.places)
            sure, why = float(np.clip(finding.confidence, 0, 1)), finding.why[:MAX_TOLD] + more
            shorter = tuple(map(names.short, files))
            told.append(Told(finding.kind, shorter, places, sure, finding.action[:MAX_TOLD], why))
    return tuple(told)


def _pictures(answers: _Answers, rows: NDArray[np.int64], names: _Names) -> tuple[Picture, ...]:
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
        found.append(Picture(path, int(answers.measured[i]), truth, first, second, *shares))
    return tuple(found)


def _measured(answers: _Answers, classes: int) -> tuple[Measured, ...]:
    found = []
    for number, name in enumerate(SETS):
        own = answers.measured == number
        if own.any():
            table = confusion_matrix(answers.truth[own], answers.answer[own], classes)
            cells = tuple((int(i), int(j), int(table[i, j])) for i, j in np.argwhere(table))
            sure, right = answers.sure[own], answers.right[own]
            found.append(Measured(name, cells, curves.reliability(sure, right), curves.risk(sure, right)))
    return tuple(found)


def _layouts(
    classifier: ImageClassifier, learned: Learned, answers: _Answers, rows: NDArray[np.int64]
) -> tuple[Layout, ...]:
    vectors = learned.features.matrix(classifier.choice_.head.taps, rows)
    probabilities = answers.by_row(len(learned.features.index))[rows]
    names = learned.partition.classes
    about = ANSWER + (TWO.format(names[1][:100]) if len(names) == 2 else MANY)
    places = (layout.by_look(vectors), layout.by_answer(probabilities, vectors))
    titles = (("look", LOOK), ("answer", about))
    return tuple(Layout(*title, *layout.on_paper(points)) for title, points in zip(titles, places, strict=True))


def _larger(shown: Sequence[Picture], told: Sequence[Told]) -> list[int]:
    """The places of pictures that get a larger thumbnail."""
    wanted = [*worst(shown), *unsure(shown), *(place for each in told for place in each.pictures)]
    return list(dict.fromkeys(wanted))[:THUMBNAILS]


def _evidence(
    classifier: ImageClassifier, learned: Learned, shown: Sequence[Picture], rows: NDArray[np.int64],
    cache: FeatureCache | None,
) -> tuple[str, tuple[Evidence, ...]]:  # fmt: skip
    """Why there are no evidence maps, and the maps: of mistakes, and of typical pictures of each class."""
    head, backbone, features = classifier.choice_.head, learned.backbone, learned.features
    if reason := evidence.unavailable(backbone, head):
        return reason, ()
    mistakes = sorted(worst(shown), key=lambda place: shown[place].measured)[:LOOKED_AT]
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
        places, pixels, evidence.maps(backbone, head.taps, pixels, content, cache), strict=True
    ):
        vector = np.concatenate([own[tap].mean(axis=(0, 1)) for tap in head.taps])
        scores = head.scores(vector[None])[0]
        first, second = (int(c) for c in np.argsort(-scores, kind="stable")[:2])
        truth = shown[place].truth
        against = truth if truth != first and truth < len(scores) else second
        grid, bias = evidence.contributions(head, own, first, against)
        if np.isfinite(bias):
            cells = tuple(tuple(float(f"{v:.4g}") for v in row) for row in grid)
            small = Image.fromarray(picture)
            small.thumbnail((pictures.THUMBNAIL, pictures.THUMBNAIL))
            score = float(grid.sum()) + bias
            found.append(Evidence(place, first, against, cells, bias, score, pictures.jpeg(small)))
    return "", tuple(found)


def _typical(vectors: NDArray[np.float32], shown: Sequence[Picture], classes: int) -> list[int]:
    """Of every class the pictures, answered right, that are nearest to the mean of the class; of the most mistaken."""
    truth = np.array([p.truth for p in shown])
    right = np.array([p.truth == p.answer for p in shown])
    missed = Counter(p.truth for p in shown if p.truth != p.answer)
    order = sorted(range(classes), key=lambda c: -missed[c])[:TYPICAL_CLASSES]
    found: list[int] = []
    for c in order:
        own = np.flatnonzero((truth == c) & right)
        if len(own):
            away = ((vectors[own] - vectors[own].mean(axis=0)) ** 2).sum(axis=1)
            found += own[np.argsort(away, kind="stable")[:TYPICAL]].tolist()
    return found
