"""From the result of a fit to several labels an image to the content of its report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.check.cells import SuspectCells, suspect_cells
from headstart.check.finding import MISSING, WRONG
from headstart.classifier import MultiLabelFitResult
from headstart.features import FeatureCache
from headstart.machine import single_threaded_blas
from headstart.report import reliability, thumbnails
from headstart.report.data import SETS
from headstart.report.labels.data import (
    MAX_CELLS,
    MAX_CURVES,
    MAX_MEMBERS,
    MAX_PAIRED,
    MAX_SUSPECTS,
    Cell,
    LabelCounts,
    LabelCurve,
    LabelledImage,
    LabelReport,
    LabelSummary,
    Suspect,
)
from headstart.report.shown import COLUMNS, MAX_TEXT, MAX_THUMBNAILS, Paths, choose, tile_side, validation_groups
from headstart.stats.label_metrics import average_precisions

MAX_POINTS = 60  # of a curve
Array = NDArray[np.float64]
Cells = NDArray[np.bool_]
Rows = NDArray[np.int64]


def gather_labels(result: MultiLabelFitResult, cache: FeatureCache | None = None) -> LabelReport:
    """Collect the content of the report of a fit. Small images are looked up in ``cache`` and stored there."""
    start = time.perf_counter()
    dataset, features, workers = result.images.dataset, result.images.features, result.options.compute.workers
    predictions = _all_predictions(result)
    cells = suspect_cells(predictions.truth, predictions.known, predictions.probabilities)
    suspects_first = (cells.is_suspect + predictions.contradictions).max(axis=1)
    shown = choose(np.argsort(-suspects_first, kind="stable"))
    rows = predictions.rows[shown]
    paths = Paths(dataset, features, rows)
    images = tuple(_image(predictions, int(i), path) for i, path in zip(shown, paths.short_paths, strict=True))
    suspects = _suspects(predictions, cells, shown)
    large = list(dict.fromkeys([*(s.images[0] for s in suspects), *(i for s in suspects for i in s.images)]))
    index_of, side = {int(row): i for i, row in enumerate(rows)}, tile_side(len(rows))
    with single_threaded_blas():
        tiles = thumbnails.tiles(dataset, features, rows.tolist(), side, cache, workers)
        sprite = thumbnails.sprite_sheet(((index_of[row], tile) for row, tile in tiles), side, COLUMNS, len(rows))
        jpegs = thumbnails.thumbnails(dataset, features, rows[large[:MAX_THUMBNAILS]].tolist(), cache, workers)
    return LabelReport(
        tuple(name[:MAX_TEXT] for name in result.split.names),
        len(predictions.rows),
        images,
        tuple(_summary(predictions, name) for name in SETS if name in result.evaluations),
        tuple(_first_of_each_kind(suspects)),
        dict(Counter(suspect.kind for suspect in suspects)),
        sprite,
        {index_of[row]: jpeg for row, jpeg in jpegs.items()},
        time.perf_counter() - start,
        time.strftime("%Y-%m-%d", time.gmtime()),
    )


@dataclass(frozen=True)
class _AllPredictions:
    """Predictions for all n images of a fit, validation images first.

    ``rows`` [n] are rows of the features, ``set_index`` [n] indices into ``SETS``, ``groups`` [n] -1 where they are not
    known. ``probabilities``, ``truth``, ``known`` and ``said`` are [n, k]; a probability is 0 where there is none,
    of a training image of which the label is not known.
    """

    rows: Rows
    set_index: Rows
    groups: Rows
    probabilities: Array
    truth: Cells
    known: Cells
    said: Cells

    @property
    def contradictions(self) -> Array:
        """How far each probability [n, k] is from what the label says, 0 to 1; 0 where that is not known."""
        values: Array = np.where(self.known, np.abs(self.probabilities - self.truth), 0.0)
        return values


def _all_predictions(result: MultiLabelFitResult) -> _AllPredictions:
    split = result.split
    evaluated = [(i, result.evaluations[name].predictions) for i, name in enumerate(SETS) if name in result.evaluations]
    rows = np.concatenate([predictions.rows for _, predictions in evaluated])
    groups = dict(zip(split.train.tolist(), split.groups.index.tolist(), strict=True)) | validation_groups(
        result.images.features,
        result.images.dataset,
        split.validation,
        split.validation_values & split.validation_known,
        result.options.group_by,
    )

    def joined(name: str) -> NDArray[np.generic]:
        values: NDArray[np.generic] = np.concatenate([getattr(predictions, name) for _, predictions in evaluated])
        return values

    known = joined("label_known").astype(bool)
    return _AllPredictions(
        rows,
        np.concatenate([np.full(len(predictions), i, np.int64) for i, predictions in evaluated]),
        np.array([groups.get(row, -1) for row in rows.tolist()], np.int64),
        np.nan_to_num(joined("probabilities").astype(np.float64)),
        joined("label_truth").astype(bool) & known,
        known,
        joined("decisions").astype(bool),
    )


def _image(predictions: _AllPredictions, i: int, path: str) -> LabelledImage:
    truth, known, said = predictions.truth[i], predictions.known[i], predictions.said[i]
    probabilities = predictions.probabilities[i]
    chosen = np.flatnonzero(truth | said)
    if not len(chosen):
        chosen = np.array([probabilities.argmax()])
    is_error = (truth != said) & known
    chosen = chosen[np.lexsort((-probabilities[chosen], ~is_error[chosen]))][:MAX_CELLS]
    cells = tuple(
        # Rounded here, not where they are written: a page made again from the file says the same.
        Cell(c, round(float(probabilities[c]), 6), bool(truth[c]) if known[c] else None, bool(said[c]))
        for c in chosen[np.argsort(-probabilities[chosen], kind="stable")].tolist()
    )
    return LabelledImage(path, int(predictions.set_index[i]), int(predictions.groups[i]), cells, int((~known).sum()))


def _summary(predictions: _AllPredictions, name: str) -> LabelSummary:
    members = predictions.set_index == SETS.index(name)
    truth, known, said = predictions.truth[members], predictions.known[members], predictions.said[members]
    probabilities = predictions.probabilities[members]
    counts = [(cells & known).sum(axis=0).tolist() for cells in (truth & said, truth & ~said, said & ~truth)]
    rejected = (known & ~truth & ~said).sum(axis=0).tolist()
    groups = np.where(predictions.groups < 0, -1 - predictions.rows, predictions.groups)[members]
    average = average_precisions(probabilities, truth, known)
    lowest = [int(c) for c in np.argsort(average, kind="stable") if np.isfinite(average[c])][:MAX_CURVES]
    frequent = np.sort(np.argsort(-(truth | said).sum(axis=0), kind="stable")[:MAX_PAIRED])
    return LabelSummary(
        name,
        tuple(LabelCounts(*of_label) for of_label in zip(*counts, rejected, strict=True)),
        tuple(LabelCurve(c, _curve(probabilities[known[:, c], c], truth[known[:, c], c])) for c in lowest),
        reliability.reliability_bins(probabilities[known], truth[known], groups[np.nonzero(known)[0]]),
        _pairs(truth, frequent),
        _pairs(said & known, frequent),
    )


def _curve(probabilities: Array, truth: Cells) -> tuple[tuple[float, float], ...]:
    """Return recall and precision at every threshold, at ``MAX_POINTS`` of them where there are more."""
    order = np.argsort(-probabilities, kind="stable")
    found = np.cumsum(truth[order])
    ends = np.flatnonzero(np.append(np.diff(probabilities[order]) < 0, True))
    if len(ends) > MAX_POINTS:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, MAX_POINTS).round().astype(int))]
    return tuple((round(float(found[i] / found[-1]), 5), round(float(found[i] / (i + 1)), 5)) for i in ends)


def _pairs(cells: Cells, labels: Rows) -> tuple[tuple[int, int, int], ...]:
    """Return how many images have each label of ``labels``, and each two of them, of ``cells`` [n, k]."""
    held = cells[:, labels].astype(np.float64)
    counts = np.tril(held.T @ held).round().astype(int)
    return tuple((int(labels[a]), int(labels[b]), int(counts[a, b])) for a, b in np.argwhere(counts))


def _suspects(predictions: _AllPredictions, suspect: SuspectCells, shown: Rows) -> list[Suspect]:
    """Return the suspect labels of images ``shown``: likely ones first, then by how far the probability contradicts."""
    contradictions, is_likely = predictions.contradictions[shown], suspect.is_likely[shown]
    scenes: dict[tuple[int, bool, int, int], list[int]] = {}
    cells = np.argwhere(suspect.is_suspect[shown])
    at = tuple(cells.T)
    for i, label in cells[np.lexsort((-contradictions[at], ~is_likely[at]))].tolist():
        row = int(shown[i])
        group = int(predictions.groups[row])
        key = (label, bool(predictions.truth[row, label]), int(predictions.set_index[row]))
        scenes.setdefault((*key, group if group >= 0 else -1 - i), []).append(i)
    return [
        Suspect(
            WRONG if is_true else MISSING,
            bool(is_likely[members[0], label]),  # as all cells of this label and kind
            label,
            tuple(members[:MAX_MEMBERS]),
            round(float(predictions.probabilities[shown[members[0]], label]), 6),
        )
        for (label, is_true, _, _), members in scenes.items()
    ]


def _first_of_each_kind(suspects: Sequence[Suspect]) -> list[Suspect]:
    return [s for kind in (MISSING, WRONG) for s in [s for s in suspects if s.kind == kind][:MAX_SUSPECTS]]
