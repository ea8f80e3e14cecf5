"""The model that a project has saved, and whether a new one is better: a paired test on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from headstart.errors import HeadstartError
from headstart.files import read_json, to_json, write_atomic
from headstart.model import Predictor
from headstart.stats.paired import PairedDifference, paired_difference
from headstart.studio.embedded import dataset_of
from headstart.studio.engine import Engine, FullChoice
from headstart.studio.moves import HIDDEN
from headstart.studio.project import Project

RECORD = "saved.json"
LIMIT = 64 * 2**20  # bytes of it
MAX_NEW = 2000  # images that the saved model is asked about: more would take too long


@dataclass(frozen=True)
class SavedModel:
    """What is known of the last saved model; ``predicted`` are its held-out predictions by image id."""

    at: str
    version: int
    sha256: str
    predicted: Mapping[str, str]


@dataclass(frozen=True)
class Comparison:
    """A new model against the saved one; ``verdict`` is better, worse, no_difference, no_saved_model, not_comparable.

    ``difference`` is the accuracy of the new one less that of the saved one on the same ``images``.
    """

    verdict: str
    why: str
    images: int = 0
    new_accuracy: float | None = None
    saved_accuracy: float | None = None
    difference: PairedDifference | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        paired = self.difference
        return {
            **{name: value for name, value in asdict(self).items() if name != "difference"},
            "difference": None if paired is None else paired.difference,
            "interval": None if paired is None else list(paired.interval),
            "p": None if paired is None else paired.p_value,
        }


def model_folder(project: Project) -> Path:
    """Return where the model of a project is saved: beside its folder."""
    return project.folder.parent / f"{project.folder.name}-model"


def read_saved(project: Project) -> SavedModel | None:
    """Return what is known of the last saved model, None where there is none, or nothing that can be used."""
    try:
        values = read_json(project.folder / HIDDEN / RECORD, LIMIT)
        predicted = {str(id): str(name) for id, name in values["predicted"].items()}
        saved = SavedModel(str(values["at"]), int(values["version"]), str(values["sha256"]), predicted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return saved if model_folder(project).is_dir() else None


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
        "predicted": {id: predicted for id, (_, predicted, _) in full.held_out.items()},
    }
    write_atomic(project.folder / HIDDEN / RECORD, to_json(values))
    return folder


def compare(engine: Engine, full: FullChoice) -> Comparison:
    """Compare a new choice with the saved model on the labels that the new one learned from.

    The new model is asked with each image's group left out, and so was the saved one, when it was saved; images that
    have come since it never saw, and is asked about now.
    """
    saved = read_saved(engine.project)
    if saved is None:
        return Comparison("no_saved_model", "No model has been saved yet.")
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
    verdict, why = "no_difference", "The difference could be chance."
    if paired.significant:
        verdict = "better" if paired.difference > 0 else "worse"
        why = f"On the same {len(ids)} images the new model is {verdict} than the saved one, beyond chance."
    return Comparison(verdict, why, len(ids), float(second.mean()), float(first.mean()), paired)


def _predict_now(engine: Engine, saved: SavedModel, ids: list[str]) -> dict[str, str]:
    """Ask the saved model about images that it was not trained on."""
    records = [engine.project.state.records[id] for id in ids if id in engine.project.state.records]
    if not records:
        return {}
    predictor = Predictor.load(model_folder(engine.project), engine.options.compute)
    predictor.model.require_one_label("the studio")
    if predictor.model.sha256 != saved.sha256:
        raise HeadstartError("the model folder was written by something else since.")
    predictions = predictor.predict_dataset(dataset_of(engine.project, records))
    names = predictions.classes
    return {records[row].id: names[c] for row, c in zip(predictions.rows, predictions.predicted, strict=True)}
