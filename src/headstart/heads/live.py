"""What a selected head predicts for images held out, after every change of a label, without selecting it again.

The kinds of heads, their weights, taps, scalings, penalties and bases are held as the selection left them; the
statistics, the solutions and the temperature follow the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.heads.candidates import Candidate
from headstart.heads.head import softmax
from headstart.heads.held_basis import CLOSED_FORMS, HeldBasis, bases_with_images
from headstart.heads.integers import AnyVectors
from headstart.heads.kinds import Array, Labels, Targets
from headstart.heads.training_set import TrainingSet
from headstart.stats.temperature import fit_temperature, label_smoothing

MAX_GROUP = 2000  # images: the largest group whose closed form is worth its time
MAX_CHANGES = 300  # images that came or went: with more a new choice is nearly as fast
PENALTY_NAMES = {"ridge": "penalty", "lda": "shrinkage"}


@dataclass(frozen=True)
class LivePart:
    """One candidate of the average: what it is, and its penalty in units of summed squared coordinates."""

    candidate: Candidate
    penalty: float


@dataclass(frozen=True)
class HeldOut:
    """Held-out probabilities [m, k] of images ``rows`` [m], for ``classes`` [k], which are those that have images."""

    rows: NDArray[np.int64]
    classes: NDArray[np.int64]
    probabilities: Array


@dataclass(frozen=True)
class LiveHead:
    """The candidates of a selected head, and the bases of their taps and scalings, held."""

    parts: tuple[LivePart, ...]
    bases: Mapping[tuple[tuple[str, ...], str], HeldBasis]
    temperature: float

    @classmethod
    def of(cls, training_set: TrainingSet, candidates: Sequence[Candidate], temperature: float) -> LiveHead | None:
        """Hold the candidates that have a weight; None where one of them has no closed form that can be followed.

        ``temperature`` is that of the selected head, at which the search for another one begins.
        """
        parts: list[LivePart] = []
        bases: dict[tuple[tuple[str, ...], str], HeldBasis] = {}
        for candidate in candidates:
            if candidate.weight <= 0:
                continue
            if candidate.kind not in CLOSED_FORMS or PENALTY_NAMES[candidate.kind] not in candidate.settings:
                return None
            basis = training_set.basis(candidate.taps, candidate.scaling)
            key = (candidate.taps, candidate.scaling)
            if key not in bases:
                bases[key] = HeldBasis.of(basis)
            penalty = float(candidate.settings[PENALTY_NAMES[candidate.kind]]) * basis.mean_squared_length
            parts.append(LivePart(candidate, penalty))
        parts.sort(key=lambda part: -part.candidate.weight)
        return cls(tuple(parts), bases, temperature) if parts else None

    def __len__(self) -> int:
        return len(next(iter(self.bases.values())))

    @property
    def first(self) -> int:
        """How many images the head was selected on; those behind them came later."""
        return next(iter(self.bases.values())).first

    def with_images(self, values: Mapping[str, AnyVectors]) -> LiveHead:
        """Return it with further images behind the others; ``values`` are their vectors by tap, [m, channels]."""
        return replace(self, bases=bases_with_images(self.bases, values))

    def held_out(self, labels: Labels, groups: Labels, rows: NDArray[np.int64] | None = None) -> HeldOut | None:
        """Predict images by heads that learned from all others but their group.

        ``labels`` [n] are -1 where an image is not there; ``groups`` [n]. ``rows`` are the images to predict, which
        hold groups as a whole; all that are there unless stated. None where fewer than two classes or groups are
        there, one group has more than MAX_GROUP images, or more than MAX_CHANGES images came or went.
        """
        present = np.flatnonzero(labels >= 0)
        classes, numbers = np.unique(labels[present], return_inverse=True)
        sizes = np.unique(groups[present], return_counts=True)[1]
        changes = np.count_nonzero(labels[: self.first] < 0) + np.count_nonzero(labels[self.first :] >= 0)
        if len(classes) < 2 or len(sizes) < 2 or sizes.max() > MAX_GROUP or changes > MAX_CHANGES:
            return None
        targets = Targets(numbers, len(classes), groups[present])
        wanted = np.arange(len(present)) if rows is None else np.searchsorted(present, np.sort(rows)).astype(np.int64)
        scores = np.zeros((len(wanted), len(classes)))
        for part in self.parts:
            candidate = part.candidate
            basis = self.bases[candidate.taps, candidate.scaling]
            one = basis.held_out(candidate.kind, part.penalty, targets, present, wanted)
            if len(self.parts) == 1:
                scores = one
            else:
                scores += (one - one.mean(axis=1, keepdims=True)) * (candidate.weight / candidate.temperature)
        temperature = self.temperature
        if rows is None:
            temperature = fit_temperature(scores, numbers, label_smoothing(len(sizes)), self.temperature)
        return HeldOut(np.asarray(present[wanted], np.int64), classes.astype(np.int64), softmax(scores / temperature))
