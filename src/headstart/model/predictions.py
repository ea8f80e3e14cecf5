"""What a classifier says of pictures, and what that turns out to be worth on labelled ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset, Quarantined
from headstart.errors import DataError
from headstart.stats import ConformalThresholds
from headstart.stats.accuracy import Accuracy, confusion_matrix, held_out_accuracy


@dataclass(frozen=True)
class Prediction:
    """Answers on the n pictures that could be read, and what could not be.

    ``probabilities`` [n, k] in the order of ``classes``. Of a model with ``promises`` also: ``sets`` [n, k] says which
    classes are in each picture's prediction set, ``distances`` [n] (0 to 1) how far it is from all that was learned,
    ``none_of_these`` [n] whether that is too far; else these are None.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    probabilities: NDArray[np.float64]
    quarantined: tuple[Quarantined, ...]
    promises: ConformalThresholds | None = None
    sets: NDArray[np.bool_] | None = None
    distances: NDArray[np.float64] | None = None
    none_of_these: NDArray[np.bool_] | None = None

    def set_of(self, row: int) -> list[str] | None:
        """The classes in the set of one picture, most probable first."""
        if self.sets is None:
            return None
        order = self.probabilities[row].argsort()[::-1]
        return [self.classes[i] for i in order if self.sets[row, i]]


@dataclass(frozen=True)
class Evaluation:
    """Answers on labelled pictures: accuracy, and [k, k] counts, row the true class, column the answer.

    ``paths``, ``truth`` and ``probabilities`` [n, k] have one entry a picture that could be read;
    ``unknown`` lists classes of the data that the model has never seen: every such picture counts as wrong.
    Of a model with ``promises`` also: ``covered``, how many pictures of known classes have theirs in their set;
    ``set_size``, how many classes a set has on average; ``refused``, how many pictures of known classes are taken for
    none of them; ``caught``, how many of the unknown classes are. None where there is no such picture or promise.
    """

    accuracy: Accuracy
    confusion: NDArray[np.int64]
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    truth: tuple[str, ...]
    probabilities: NDArray[np.float64]
    quarantined: tuple[Quarantined, ...]
    unknown: tuple[str, ...] = ()
    promises: ConformalThresholds | None = None
    covered: Accuracy | None = None
    set_size: float | None = None
    refused: Accuracy | None = None
    caught: Accuracy | None = None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        promises, told = self.promises, {}
        if promises is not None:
            covered = None if self.covered is None else {**self.covered.to_dict(), "set_size": self.set_size}
            told = {
                "coverage": {"promised": promises.coverage, "found": covered},
                "none_of_these": {
                    "false_alarms": promises.false_alarms,
                    "known": None if self.refused is None else self.refused.to_dict(),
                    "unknown": None if self.caught is None else self.caught.to_dict(),
                },
            }
        return {
            "classes": list(self.classes),
            "images": {"count": len(self.paths), "quarantined": len(self.quarantined)},
            "accuracy": self.accuracy.to_dict(),
            "confusion": self.confusion.tolist(),
            "unknown_classes": list(self.unknown),
            **told,
        }

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which answers [n] are right."""
        answers = [self.classes[i] for i in self.probabilities.argmax(axis=1)]
        return np.array([a == b for a, b in zip(answers, self.truth, strict=True)], bool)


def labelled_part(dataset: Dataset) -> Dataset:
    """The pictures to judge by: of a data set with splits validation, or test where there is none; labelled ones.

    Raises DataError when there are no labels.
    """
    for name in ("validation", "test"):
        if name in dataset.splits:
            dataset = dataset.split(name)
            break
    labelled = [i for i, item in enumerate(dataset.items) if item.label is not None]
    if not labelled:
        raise DataError(f"{dataset.uri} has no labels to compare with; put the pictures in one folder a class.")
    return dataset.select(labelled)


def judge(found: Prediction, dataset: Dataset) -> Evaluation:
    """Hold answers against the labels of the data set they are of; classes are matched by name. Raises DataError."""
    if not found.paths:
        raise DataError(f"None of the {len(dataset)} pictures of {dataset.uri} can be read.")
    refused = {q.path for q in found.quarantined}
    truth = tuple(str(item.label) for item in dataset.items if item.path not in refused)
    number = {name: i for i, name in enumerate(found.classes)}
    wanted = np.array([number.get(name, -1) for name in truth])
    answers = found.probabilities.argmax(axis=1)
    known = wanted >= 0
    covered = set_size = None
    if found.sets is not None and known.any():
        covered = _counted(found.sets[known, wanted[known]])
        set_size = float(found.sets[known].sum(axis=1).mean())
    return Evaluation(
        held_out_accuracy(wanted == answers),
        confusion_matrix(wanted[known], answers[known], len(found.classes)),
        found.classes, found.paths, truth, found.probabilities, found.quarantined,
        tuple(sorted(set(truth) - set(number))), found.promises, covered, set_size,
        None if found.none_of_these is None else _counted(found.none_of_these[known]),
        None if found.none_of_these is None else _counted(found.none_of_these[~known]),
    )  # fmt: skip


def _counted(which: NDArray[np.bool_]) -> Accuracy | None:
    return held_out_accuracy(which) if len(which) else None
