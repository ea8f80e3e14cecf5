"""What a selected head of several labels predicts for images held out, after every change of a label or an image.

As in ``heads.live``, taps, scalings, penalties, weights and bases are held as the selection left them; the sums, the
solutions and the calibration of every label follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.held_basis import HeldBasis, bases_with_images
from headstart.heads.integers import AnyVectors
from headstart.heads.kinds import Array
from headstart.heads.label_ridge import LabelRidge, LabelTargets
from headstart.heads.label_selection import LabelCandidate
from headstart.heads.live import MAX_CHANGES, MAX_GROUP
from headstart.heads.training_set import MANY_IMAGES, TrainingSet
from headstart.heads.vectors import Vectors
from headstart.stats.platt import fit_platt, platt_targets, sigmoid

MAX_UNKNOWN = 2_000_000  # cells that are not known, times images: about half a second for each click


@dataclass(frozen=True)
class LiveLabelPart:
    """Taps in one scaling, with the penalty of each of k labels, in summed squared coordinates, and its weight."""

    taps: tuple[str, ...]
    scaling: str
    penalties: Array
    weights: Array

    def of_labels(self, places: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return penalties and weights of labels at ``places``; -1: a label that is new, which has those in between."""
        middle = float(np.exp(np.median(np.log(self.penalties))))
        penalties = np.where(places < 0, middle, self.penalties[places])
        return penalties, np.where(places < 0, self.weights.mean(), self.weights[places])


@dataclass(frozen=True)
class LiveLabels:
    """The parts of a selected head that have a weight, and the bases of their taps and scalings, held."""

    parts: tuple[LiveLabelPart, ...]
    bases: Mapping[tuple[tuple[str, ...], str], HeldBasis]

    @classmethod
    def of(cls, training_set: TrainingSet, candidates: Sequence[LabelCandidate]) -> LiveLabels | None:
        """Hold what was selected; None for so many images that it was selected in fewer directions."""
        if len(training_set) >= MANY_IMAGES:
            return None
        parts: list[LiveLabelPart] = []
        bases: dict[tuple[tuple[str, ...], str], HeldBasis] = {}
        for candidate in candidates:
            if candidate.weights.any():
                basis = training_set.basis(candidate.taps, candidate.scaling)
                bases[candidate.taps, candidate.scaling] = HeldBasis.of(basis)
                penalties = candidate.penalties * basis.mean_squared_length
                parts.append(LiveLabelPart(candidate.taps, candidate.scaling, penalties, candidate.weights))
        return cls(tuple(parts), bases)

    @property
    def first(self) -> int:
        """How many images the head was selected on; those behind them came later."""
        return next(iter(self.bases.values())).first

    def with_images(self, values: Mapping[str, AnyVectors]) -> LiveLabels:
        """Return it with further images behind the others; ``values`` are their vectors by tap, [m, channels]."""
        return replace(self, bases=bases_with_images(self.bases, values))

    def held_out(self, targets: LabelTargets, present: NDArray[np.int64], places: NDArray[np.int64]) -> Array | None:
        """Return the probabilities [m, k] of images by heads that learned from all others but their group.

        ``targets`` are those of the images that are there: ``present`` [m], ascending, among all that are known of.
        ``places`` [k] are those of the labels in the selection, -1 for one that is new. A cell that is not known is
        NaN. None where that cannot be followed: one group is too large, too many cells are not known, or too many
        images came or went.
        """
        sizes = np.unique(targets.groups, return_counts=True)[1]
        changes = self.first - np.count_nonzero(present < self.first) + np.count_nonzero(present >= self.first)
        is_too_open = (~targets.known).sum() * len(targets.known) > MAX_UNKNOWN
        if len(sizes) < 2 or sizes.max() > MAX_GROUP or changes > MAX_CHANGES or is_too_open:
            return None
        smoothed = platt_targets(targets.values, targets.known, targets.groups)
        logits = np.zeros(targets.values.shape)
        for part in self.parts:
            penalties, weights = part.of_labels(places)
            used = np.flatnonzero(weights > 0)
            scores = self._scores(part, penalties, used, targets, present)
            platt = fit_platt(scores, smoothed[:, used], targets.known[:, used])
            logits[:, used] += weights[used] * platt.logits(scores)
        return sigmoid(fit_platt(logits, smoothed, targets.known).logits(logits))

    def _scores(
        self,
        part: LiveLabelPart,
        penalties: Array,
        labels: NDArray[np.int64],
        targets: LabelTargets,
        present: NDArray[np.int64],
    ) -> Array:
        """Return the scores [m, l] of ``labels`` [l], each at its own of the ``penalties`` [k]."""
        basis, scores = self.bases[part.taps, part.scaling], np.empty((len(present), len(labels)))
        for penalty in np.unique(penalties[labels]):
            at = np.flatnonzero(penalties[labels] == penalty)
            columns = labels[at]
            points, inverses = basis.changed(float(penalty), present)
            centred = Eigenbasis(Vectors.of(points), np.zeros(points.shape[1]), inverses, None, points, 0.0)
            some = LabelTargets(targets.values[:, columns], targets.known[:, columns], targets.groups)
            scores[:, at] = LabelRidge.of(centred, some).held_out_with(inverses[None], all_sizes=True)[0]
        return scores
