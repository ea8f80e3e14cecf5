"""The head for several labels an image: ridge with a penalty for each label, averaged over taps and scalings.

Each label is a question of its own, to which the rules of ``heads.selection`` are applied: the penalty with the least
held-out log-loss on every set of taps in every scaling, and the average of those, weighted by
``exp(-groups * loss / 2) / e^(taps - 1)``. All labels share the eigenbasis of each, so that k labels cost about what k
classes do. Every part is an affine map, calibrated by Platt scaling, so that the average is one affine head with a
sigmoid behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError
from headstart.heads.head import SIGMOID, Head
from headstart.heads.kinds import Array
from headstart.heads.label_ridge import LabelRidge, LabelTargets
from headstart.heads.leave_one_group_out import chunks_of_groups
from headstart.heads.ood import OodDetector
from headstart.heads.ridge import PENALTIES
from headstart.heads.selection import (
    DIRECTIONS,
    FEW_EVALUATED,
    MAX_EVALUATED,
    MAX_VECTORS,
    MIN_WEIGHT,
    fit_detector,
    some_rows,
)
from headstart.heads.training_set import MANY_IMAGES, SCALINGS, TrainingSet
from headstart.stats.platt import Platt, fit_platt, log_losses, platt_targets, sigmoid

ROWS_AT_ONCE = 4096
ERRORS_LEFT = 2  # groups' worth of errors of a label from which on further taps are tried for it


@dataclass(frozen=True)
class LabelCandidate:
    """A set of taps in one scaling, with what is best on it for each of k labels.

    ``penalties`` [k] have the least ``losses`` [k], the mean log-loss of images whose group was left out; ``weights``
    [k] are the shares, 0 to 1, in the heads of the labels.
    """

    taps: tuple[str, ...]
    scaling: str
    penalties: Array
    losses: Array
    weights: Array

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form in ``run.json``: means over the labels."""
        return {
            "taps": list(self.taps),
            "kind": "ridge",
            "scaling": self.scaling,
            "log_loss": float(self.losses.mean()),
            "weight": float(self.weights.mean()),
        }


@dataclass(frozen=True)
class SelectedLabels:
    """The head for k labels, fitted to all images, and the evidence for it.

    ``probabilities`` [n, k] and ``ood_scores`` [n] are leave-one-group-out predictions for the training images, a
    probability being NaN where the label is not known. ``log_loss`` [k] is that of these probabilities; ``ood`` detects
    images unlike the training images.
    """

    head: Head
    probabilities: Array = field(repr=False)
    log_loss: Array = field(repr=False)
    candidates: tuple[LabelCandidate, ...] = field(repr=False)
    ood: OodDetector = field(repr=False)
    ood_scores: Array = field(repr=False)


@dataclass(frozen=True)
class _Part:
    """One set of taps in one scaling, solved: for each label its best penalty, scores [m, k] and calibration."""

    taps: tuple[str, ...]
    scaling: str
    ridge: LabelRidge
    penalties: Array
    losses: Array
    accuracies: Array
    scores: Array
    platt: Platt


def select_labels(
    training_set: TrainingSet, targets: LabelTargets, taps: tuple[str, ...] | None = None, *, workers: int = 1
) -> SelectedLabels:
    """Fit a head for the labels ``targets`` of the rows of a training set, whose own labels are not looked at.

    ``taps`` are those to use side by side, None to try the last one, two and three. ``workers`` threads try them.
    Raises OptionError, DataError.
    """
    _check(training_set, targets, taps)
    names = tuple(training_set.values)
    together = [names[-count:] for count in range(1, min(3, len(names)) + 1)] if taps is None else [taps]
    is_many = len(training_set) >= MANY_IMAGES
    rows = some_rows(training_set, FEW_EVALUATED) if is_many else None
    first, *others = [(tap_set, scaling) for tap_set in together for scaling in SCALINGS]
    trial = _Trial(training_set, targets, rows, workers)
    parts = trial.run([first], in_all_directions=not is_many)
    groups = _group_counts(targets, rows)
    needs_more = (1 - parts[0].accuracies) * groups >= ERRORS_LEFT
    if needs_more.any():
        parts += trial.run(others, in_all_directions=not is_many)
    if is_many:
        weights = _weights(parts, groups, needs_more)
        best = sorted(range(len(parts)), key=lambda i: -float(weights[i].sum()))[:MAX_VECTORS]
        rows = some_rows(training_set, MAX_EVALUATED)
        trial = _Trial(training_set, targets, rows, workers)
        parts = trial.run([(parts[i].taps, parts[i].scaling) for i in best])
        groups, needs_more = _group_counts(targets, rows), np.ones_like(needs_more)
    weights = _weights(parts, groups, needs_more)
    return _finish(training_set, targets, parts, weights)


@dataclass(frozen=True)
class _Trial:
    """What taps and scalings are tried on: the images at ``rows``, all unless stated."""

    training_set: TrainingSet
    targets: LabelTargets
    rows: NDArray[np.int64] | None
    workers: int

    def run(self, vectors: Sequence[tuple[tuple[str, ...], str]], *, in_all_directions: bool = True) -> list[_Part]:
        """Try every penalty on each of several vectors: taps and their scaling."""

        def try_one(pair: tuple[tuple[str, ...], str]) -> _Part:
            return self._try(*pair, None if in_all_directions else DIRECTIONS * len(pair[0]))

        with ThreadPoolExecutor(self.workers) as pool:
            return [*pool.map(try_one, vectors)]

    def _try(self, taps: tuple[str, ...], scaling: str, directions: int | None) -> _Part:
        images = self.training_set.images
        ridge = LabelRidge.of(self.training_set.basis(taps, scaling, directions), self.targets)
        rows = np.arange(len(self.training_set)) if self.rows is None else self.rows
        scores = ridge.held_out(PENALTIES, rows)[:, rows < images]
        rows = rows[rows < images]
        values, known = self.targets.values[rows], self.targets.known[rows]
        smoothed = platt_targets(values, known, self.targets.groups[rows])
        platts = [fit_platt(of_penalty, smoothed, known) for of_penalty in scores]
        logits = (platt.logits(of_penalty) for platt, of_penalty in zip(platts, scores, strict=True))
        losses = np.stack([_mean_loss(of_penalty, smoothed, known) for of_penalty in logits])
        chosen, columns = losses.argmin(axis=0), np.arange(values.shape[1])
        platt = Platt(
            np.stack([platt.slopes for platt in platts])[chosen, columns],
            np.stack([platt.offsets for platt in platts])[chosen, columns],
        )
        own = np.ascontiguousarray(scores[chosen, :, columns].T)
        is_right = ((platt.logits(own) > 0) == values) & known
        accuracies = is_right.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        penalties = np.array(PENALTIES)[chosen]
        return _Part(taps, scaling, ridge, penalties, losses[chosen, columns], accuracies, own, platt)


def _mean_loss(logits: Array, smoothed: Array, known: NDArray[np.bool_]) -> Array:
    """Return the mean log-loss [k] of the known cells."""
    losses = np.where(known, log_losses(np.where(known, logits, 0.0), smoothed), 0.0)
    mean: Array = losses.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return mean


def _group_counts(targets: LabelTargets, rows: NDArray[np.int64] | None) -> Array:
    """Return of how many groups each label [k] is known of an image."""
    chosen = slice(None) if rows is None else rows
    index = np.unique(targets.groups[chosen], return_inverse=True)[1]
    known = targets.known[chosen]
    return np.array([len(np.unique(index[known[:, c]])) for c in range(known.shape[1])], np.float64)


def _weights(parts: Sequence[_Part], groups: Array, needs_more: NDArray[np.bool_]) -> Array:
    """Return the weight [parts, k] of each part for each label; the first alone where no more is needed."""
    evidence = np.stack([groups * part.losses / 2 + len(part.taps) for part in parts])
    evidence[1:, ~needs_more] = np.inf
    weights: Array = np.exp(evidence.min(axis=0) - evidence)
    weights = np.where(weights < MIN_WEIGHT * weights.sum(axis=0), 0, weights)
    weights /= weights.sum(axis=0)
    return weights


def _finish(training_set: TrainingSet, targets: LabelTargets, parts: Sequence[_Part], weights: Array) -> SelectedLabels:
    """Average the parts that have a weight, calibrate the average, and fit it to all images."""
    used = [(part, weight) for part, weight in zip(parts, weights, strict=True) if weight.any()]
    logits = np.zeros((training_set.images, weights.shape[1]))
    for part, weight in used:
        logits += np.where(weight > 0, weight, 0) * part.platt.logits(_all_scores(training_set, part))
    values, known = targets.values[: training_set.images], targets.known[: training_set.images]
    smoothed = platt_targets(values, known, targets.groups[: training_set.images])
    platt = fit_platt(logits, smoothed, known)
    taps = max((part.taps for part, _ in used), key=len)
    with ThreadPoolExecutor(1) as pool:
        ood = pool.submit(fit_detector, training_set, taps)
        head = _head(training_set, used, platt, taps)
        ood_detector, ood_scores = ood.result()
    calibrated = platt.logits(logits)
    candidates = [
        LabelCandidate(part.taps, part.scaling, part.penalties, part.losses, weight)
        for part, weight in zip(parts, weights, strict=True)
    ]
    loss = _mean_loss(calibrated, smoothed, known)
    return SelectedLabels(head, sigmoid(calibrated), loss, tuple(candidates), ood_detector, ood_scores)


def _all_scores(training_set: TrainingSet, part: _Part) -> Array:
    """Return the scores [n, k] of all images, their group left out, each label at its own penalty."""
    if len(part.scores) == training_set.images:
        return part.scores
    scores = np.full((len(training_set), len(part.penalties)), np.nan)
    different = np.unique(part.penalties)
    for rows in chunks_of_groups(part.ridge.targets.groups, ROWS_AT_ONCE):
        found = part.ridge.held_out(different.tolist(), rows)
        scores[rows] = found[np.searchsorted(different, part.penalties), :, np.arange(len(part.penalties))].T
    return scores[: training_set.images]


def _head(training_set: TrainingSet, used: Sequence[tuple[_Part, Array]], platt: Platt, taps: tuple[str, ...]) -> Head:
    """Return the average as one affine map of the vectors of ``taps``, whose sigmoid are the probabilities."""
    starts, start = {}, 0
    for tap in taps:
        starts[tap] = start
        start += training_set.values[tap].shape[1]
    weights, bias = np.zeros((start, len(platt.slopes))), np.zeros(len(platt.slopes))
    for part, weight in used:
        part_weights, part_bias = part.ridge.solve(part.penalties.tolist())
        part_weights = part_weights * part.ridge.basis.vectors.scales[:, None]
        factor = weight * part.platt.slopes
        weights[starts[part.taps[0]] :] += part_weights * factor  # the last of the taps
        bias += part_bias * factor + weight * part.platt.offsets
    weights, bias = weights * platt.slopes, bias * platt.slopes + platt.offsets
    scalings = {part.scaling for part, _ in used}
    settings = {"scaling": scalings.pop()} if len(scalings) == 1 else {}
    return Head("ridge", taps, weights.astype(np.float32), bias.astype(np.float32), 1.0, None, settings, SIGMOID)


def _check(training_set: TrainingSet, targets: LabelTargets, taps: tuple[str, ...] | None) -> None:
    for tap in taps or ():
        if tap not in training_set.values:
            raise OptionError(f"Unknown cut {tap!r}; this backbone has {', '.join(training_set.values)}.")
    if len(np.unique(targets.groups)) < 2:
        raise DataError(
            "All images are in one group, so that nothing can be measured on a group left out; add images of other "
            "scenes, or treat every image as a group of its own with --group-by none."
        )
