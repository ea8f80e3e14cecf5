"""What the algebra shows of the labels at one moment: accuracy, confusion, label issues, the most uncertain images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart.check.finding import Finding
from headstart.check.labels import confident_learning
from headstart.heads.live import HeldOut
from headstart.stats.accuracy import share_interval
from headstart.stats.classification import confusion_matrix
from headstart.studio.guesses import Guesses

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """A share of images, 0 to 1, with its 95% interval by groups."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Figures:
    """Predictions of the images ``ids`` [n], and what follows from them.

    The first m images have a class, and are predicted with their group left out; of the others, which nobody has
    labelled yet, the model of the last full choice predicts what it has not learned. ``classes`` are all of the
    project; those without images have probability 0 in ``probabilities`` [n, k]. ``labels`` [m] and ``predicted`` [n]
    are places in them; ``groups`` [m] and ``accuracy`` are of images that have a class. ``issues`` are label issues by
    id, most confident first. ``uncertainty`` [n], 0 to 1, is 1 less the lead of the most probable class over the
    second.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64] = field(repr=False)
    groups: NDArray[np.int64] = field(repr=False)
    probabilities: Array = field(repr=False)
    accuracy: Share
    confusion: NDArray[np.int64]
    issues: Mapping[str, Finding] = field(repr=False)

    @property
    def measured(self) -> int:
        """How many images have a class, m."""
        return len(self.labels)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class [n]."""
        predicted: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return predicted

    @property
    def uncertainty(self) -> Array:
        """1 less the lead of the most probable class [n]."""
        two = np.sort(self.probabilities, axis=1)[:, -2:]
        uncertainty: Array = 1 - (two[:, 1] - two[:, 0])
        return uncertainty

    def evaluation(self) -> dict[str, object]:
        """Return the accuracy and its interval in the JSON form."""
        return {
            "accuracy": self.accuracy.value,
            "interval": list(self.accuracy.interval),
            "images": self.measured,
            "groups": len(np.unique(self.groups)),
        }

    def by_class(self) -> list[dict[str, object]]:
        """Return images, recall with its interval, and precision of each class; None where there are no images."""
        is_right = self.predicted[: self.measured] == self.labels
        rows: list[dict[str, object]] = []
        for c, name in enumerate(self.classes):
            members, predicted = self.labels == c, int(self.confusion[:, c].sum())
            recall = share(is_right[members], self.groups[members]) if members.any() else None
            rows.append(
                {
                    "name": name,
                    "images": int(members.sum()),
                    "recall": None if recall is None else recall.value,
                    "interval": None if recall is None else recall.interval,
                    "precision": float(self.confusion[c, c] / predicted) if predicted else None,
                }
            )
        return rows


def share(correct: NDArray[np.bool_], groups: NDArray[np.integer]) -> Share:
    """Return the share of correct images [n] of ``groups`` [n]."""
    return Share(float(correct.mean()), share_interval(correct, groups))


def make_figures(
    held_out: HeldOut,
    ids: Sequence[str],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    classes: tuple[str, ...],
    guesses: Guesses | None = None,
) -> Figures:
    """Put the figures together; ``ids``, ``labels`` and ``groups`` [n] are of all images that the head knows.

    ``guesses`` are of images that have no class.
    """
    rows = held_out.rows
    probabilities = np.zeros((len(rows), len(classes)))
    probabilities[:, held_out.classes] = held_out.probabilities
    names, own, own_groups = tuple(ids[i] for i in rows), labels[rows], groups[rows]
    predicted = probabilities.argmax(axis=1)
    findings = confident_learning(names, own, classes, probabilities)
    issues = sorted(findings, key=lambda finding: -finding.confidence)
    further, guessed = ((), np.zeros((0, len(classes)))) if guesses is None else guesses.among(classes)
    return Figures(
        classes,
        names + further,
        own,
        own_groups,
        np.r_[probabilities, guessed],
        share(predicted == own, own_groups),
        confusion_matrix(own, predicted, len(classes)),
        {finding.files[0]: finding for finding in issues},
    )
