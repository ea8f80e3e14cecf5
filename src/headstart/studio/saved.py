"""The model that a project has saved, and whether a new one is better: a paired test on the same images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.classifier import MultiLabelFitResult
from headstart.compare.models import MAX_NAMED, compare_label_pairs
from headstart.errors import HeadstartError
from headstart.files import read_json, to_json, write_atomic
from headstart.model import Predictor
from headstart.model.label_predictions import MultiLabelPredictions, evaluate_labels
from headstart.splits.groups import to_groups
from headstart.stats.label_thresholds import LabelThresholds
from headstart.stats.paired import MetricDifference, PairedDifference, paired_difference
from headstart.studio.choice import FullChoice
from headstart.studio.embedded import dataset_of
from headstart.studio.engine import Engine
from headstart.studio.moves import HIDDEN
from headstart.studio.project import Project

RECORD = "saved.json"
LIMIT = 64 * 2**20  # bytes of it
QUALITIES = ("new_accuracy", "saved_accuracy", "new_mean_average_precision", "saved_mean_average_precision")
MAX_NEW = 2000  # images that the saved model is asked about: more would take too long


@dataclass(frozen=True)
class SavedModel:
    """What is known of the last saved model; ``predicted`` are its held-out predictions by image id.

    Of several ``labels`` [k] an image these are probabilities [k], NaN where a cell was not known, and ``thresholds``
    [k] decide.
    """

    at: str
    version: int
    sha256: str
    predicted: Mapping[str, str]
    labels: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    probabilities: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A new model against the saved one; ``verdict`` is better, worse, no_difference, no_saved_model, not_comparable.

    ``difference`` is the accuracy of the new one less that of the saved one on the same ``images``. Of several labels
    an image, all are mean average precisions.
    """

    verdict: str
    why: str
    images: int = 0
    new_accuracy: float | None = None
    saved_accuracy: float | None = None
    difference: PairedDifference | MetricDifference | None = None
    new_mean_average_precision: float | None = None
    saved_mean_average_precision: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        paired = self.difference
        return {
            **{name: getattr(self, name) for name in ("verdict", "why", "images")},
            **{name: value for name, value in asdict(self).items() if name in QUALITIES and self._is_told(name)},
            "difference": None if paired is None else paired.difference,
            "interval": None if paired is None else list(paired.interval),
            "p": None if paired is None else paired.p_value,
        }

    def _is_told(self, name: str) -> bool:
        is_of_labels = self.new_mean_average_precision is not None
        return name.endswith("precision") == is_of_labels


def model_folder(project: Project) -> Path:
    """Return where the model of a project is saved: beside its folder."""
    return project.folder.parent / f"{project.folder.name}-model"


def read_saved(project: Project) -> SavedModel | None:
    """Return what is known of the last saved model, None where there is none, or nothing that can be used."""
    try:
        values = read_json(project.folder / HIDDEN / RECORD, LIMIT)
        about = (str(values["at"]), int(values["version"]), str(values["sha256"]))
        if project.multi_label:
            saved = SavedModel(*about, {}, *_read_probabilities(values))
        else:
            saved = SavedModel(*about, {str(id): str(name) for id, name in values["predicted"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return saved if model_folder(project).is_dir() else None


def _read_probabilities(
    values: Mapping[str, Any],
) -> tuple[tuple[str, ...], tuple[float, ...], dict[str, tuple[float, ...]]]:
    """Return labels, thresholds and probabilities by id. Raises ValueError, KeyError, TypeError, AttributeError."""
    labels = tuple(map(str, values["labels"]))
    thresholds = tuple(map(float, values["thresholds"]))
    found = {
        str(id): tuple(math.nan if p is None else float(p) for p in row) for id, row in values["probabilities"].items()
    }
    if len(thresholds) != len(labels) or any(len(row) != len(labels) for row in found.values()):
        raise ValueError("not a number for each label")
    return labels, thresholds, found


def save(project: Project, full: FullChoice) -> Path:
    """Write the model folder, which replaces the last one whole, and remember its predictions.

    Raises OptionError where the folder holds anything else, ModelError.
    """
    folder = model_folder(project)
    full.result.save(folder, overwrite=True)
    values = {
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "version": full.version,
        "sha256": full.result.model.sha256,
        **_predictions(full),
    }
    write_atomic(project.folder / HIDDEN / RECORD, to_json(values))
    return folder


def _predictions(full: FullChoice) -> dict[str, object]:
    """Return what a model predicted of the images that it learned from, with their group left out."""
    if not isinstance(full.result, MultiLabelFitResult):
        return {"predicted": {id: predicted for id, (_, predicted, _) in full.held_out.items()}}
    decided, rows = full.result.model.label_thresholds, full.result.selected.probabilities.tolist()
    assert decided is not None
    return {
        "labels": full.result.split.names,
        "thresholds": decided.thresholds,
        "probabilities": {
            id: [None if math.isnan(p) else round(p, 6) for p in row] for id, row in zip(full.ids, rows, strict=True)
        },
    }


def compare(engine: Engine, full: FullChoice) -> Comparison:
    """Compare a new choice with the saved model on the labels that the new one learned from.

    The new model is asked with each image's group left out, and so was the saved one, when it was saved; images that
    have come since it never saw, and is asked about now.
    """
    saved = read_saved(engine.project)
    if saved is None:
        return Comparison("no_saved_model", "No model has been saved yet.")
    if isinstance(full.result, MultiLabelFitResult):
        return _compare_labels(engine, full, full.result, saved)
    new = full.held_out
    gone = set(saved.predicted.values()) - {label for label, _, _ in new.values()}
    if gone:  # by its old name every answer would be wrong
        why = f"The saved model predicts {min(gone)}, a class that is not there any more."
        return Comparison("not_comparable", why)
    predicted = {id: saved.predicted[id] for id in new if id in saved.predicted}
    unseen = [id for id in new if id not in predicted]
    if len(unseen) <= MAX_NEW:
        try:
            predicted |= _predict_now(engine, saved, unseen)
        except HeadstartError as error:
            return Comparison("not_comparable", f"The saved model cannot be asked: {error}")
    ids = [id for id in new if id in predicted]
    if len(ids) < 2:
        return Comparison("not_comparable", "There are no images that both models can be asked about.")
    first = np.array([predicted[id] == new[id][0] for id in ids])
    second = np.array([new[id][1] == new[id][0] for id in ids])
    paired = paired_difference(first, second, np.array([new[id][2] for id in ids]))
    verdict, why = _verdict(paired, len(ids))
    return Comparison(verdict, why, len(ids), float(second.mean()), float(first.mean()), paired)


def _compare_labels(engine: Engine, full: FullChoice, result: MultiLabelFitResult, saved: SavedModel) -> Comparison:
    """Compare by the labels that both models know, with the test of ``headstart evaluate``."""
    names = [name for name in result.split.names if name in saved.labels]
    if not names:
        return Comparison("not_comparable", "The saved model knows none of these labels.")
    before = dict(saved.probabilities)
    unseen = [id for id in full.ids if id not in before]
    if len(unseen) <= MAX_NEW:
        try:
            before |= _probabilities_now(engine, saved, unseen)
        except HeadstartError as error:
            return Comparison("not_comparable", f"The saved model cannot be asked: {error}")
    rows = np.array([i for i, id in enumerate(full.ids) if id in before], np.int64)
    groups = result.split.targets.groups[rows]
    if len(np.unique(groups)) < 2:
        return Comparison("not_comparable", "There are no images of two groups that both models can be asked about.")
    columns = np.array([result.split.names.index(name) for name in names], np.int64)
    first = np.array([before[full.ids[i]] for i in rows])[:, [saved.labels.index(name) for name in names]]
    second = result.selected.probabilities[np.ix_(rows, columns)]
    values, known = (
        cells[np.ix_(rows, columns)] for cells in (result.split.targets.values, result.split.targets.known)
    )
    known = known & ~np.isnan(first)  # of a cell that was not known then the saved model has no prediction
    decided = result.model.label_thresholds
    assert decided is not None
    thresholds = (
        [saved.thresholds[saved.labels.index(name)] for name in names],
        [decided.thresholds[c] for c in columns.tolist()],
    )
    evaluations = [
        evaluate_labels(_label_predictions(names, probabilities, least, values, known), groups)
        for probabilities, least in zip((first, second), thresholds, strict=True)
    ]
    mean = compare_label_pairs(evaluations, to_groups(groups, ""))[0].mean_average_precision
    assert mean is not None
    verdict, why = _verdict(mean, len(rows))
    left_out = sorted({*result.split.names, *saved.labels} - {*names})
    if left_out:
        why += f" Not compared, since not both know them: {', '.join(left_out[:MAX_NAMED])}."
    old, new = (evaluation.metrics.mean_average_precision.value for evaluation in evaluations)
    return Comparison(
        *(verdict, why, len(rows)), difference=mean, new_mean_average_precision=new, saved_mean_average_precision=old
    )


def _label_predictions(
    names: list[str],
    probabilities: NDArray[np.float64],
    thresholds: list[float],
    values: NDArray[np.bool_],
    known: NDArray[np.bool_],
) -> MultiLabelPredictions:
    return MultiLabelPredictions(
        tuple(names),
        tuple(map(str, range(len(values)))),
        np.arange(len(values)),
        np.where(known, probabilities, 0.0),
        label_thresholds=LabelThresholds(tuple(thresholds), (False,) * len(names)),
        label_truth=values,
        label_known=known,
    )


def _verdict(paired: PairedDifference | MetricDifference, images: int) -> tuple[str, str]:
    """Return the verdict on a difference, and a sentence that says why."""
    if not paired.significant:
        return "no_difference", "The difference could be chance."
    verdict = "better" if paired.difference > 0 else "worse"
    return verdict, f"On the same {images} images the new model is {verdict} than the saved one, beyond chance."


def _probabilities_now(engine: Engine, saved: SavedModel, ids: list[str]) -> dict[str, tuple[float, ...]]:
    """Ask the saved model for the probabilities of its labels, of images that it was not trained on."""
    records = [engine.project.state.records[id] for id in ids if id in engine.project.state.records]
    if not records:
        return {}
    predictor = _saved_predictor(engine, saved)
    predictions = predictor.predict_dataset(dataset_of(engine.project, records))
    if predictions.classes != saved.labels:
        raise HeadstartError("the model folder was written by something else since.")
    rows = zip(predictions.rows, predictions.probabilities.tolist(), strict=True)
    return {records[row].id: tuple(found) for row, found in rows}


def _saved_predictor(engine: Engine, saved: SavedModel) -> Predictor:
    predictor = Predictor.load(model_folder(engine.project), engine.options.compute)
    if predictor.model.sha256 != saved.sha256:
        raise HeadstartError("the model folder was written by something else since.")
    return predictor


def _predict_now(engine: Engine, saved: SavedModel, ids: list[str]) -> dict[str, str]:
    """Ask the saved model about images that it was not trained on."""
    records = [engine.project.state.records[id] for id in ids if id in engine.project.state.records]
    if not records:
        return {}
    predictor = _saved_predictor(engine, saved)
    predictor.model.require_one_label("the studio")
    predictions = predictor.predict_dataset(dataset_of(engine.project, records))
    names = predictions.classes
    return {records[row].id: names[c] for row, c in zip(predictions.rows, predictions.predicted, strict=True)}
