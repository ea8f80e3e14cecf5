"""Platt scaling: a slope and an offset by which held-out scores of a yes-or-no question become probabilities.

The targets are those of Platt (1999, section 2.2), with groups in the place of images, since the images of a group
are alike: (groups + 1) / (groups + 2) for a yes and 1 / (groups + 2) for a no, each with the groups that have such an
image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEPS = 100
HALVINGS = 30
ROUNDING = 1e-12  # of a loss
CONVERGED = 1e-6  # of a step, in standard deviations of the scores


@dataclass(frozen=True)
class Platt:
    """``probability = sigmoid(slope * score + offset)`` for each of k labels; ``slopes`` >= 0 and ``offsets`` [k]."""

    slopes: Array
    offsets: Array

    def logits(self, scores: Array) -> Array:
        """Return the log-odds [n, k] of scores [n, k]."""
        return scores * self.slopes + self.offsets


def sigmoid(logits: NDArray[np.floating]) -> Array:
    """Return probabilities of log-odds, float64."""
    x = np.asarray(logits, np.float64)
    e = np.exp(-np.abs(x))
    probabilities: Array = np.where(x >= 0, 1, e) / (1 + e)
    return probabilities


def log_losses(logits: Array, targets: Array) -> Array:
    """Return the log-loss, in nats, of log-odds against ``targets``, probabilities of a yes; both of one shape."""
    # log(1 + exp(x)) without overflow; np.logaddexp takes several times as long.
    losses: Array = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits))) - targets * logits
    return losses


def platt_targets(values: NDArray[np.bool_], known: NDArray[np.bool_], groups: NDArray[np.integer]) -> Array:
    """Return the probabilities [n, k] that labels are to have, where ``values`` [n, k] says which hold.

    Only ``known`` cells [n, k] count; ``groups`` [n].
    """
    index = np.unique(groups, return_inverse=True)[1]
    targets = np.empty(values.shape)
    for label in range(values.shape[1]):
        yes, no = (len(np.unique(index[known[:, label] & (values[:, label] == answer)])) for answer in (True, False))
        targets[:, label] = np.where(values[:, label], (yes + 1) / (yes + 2), 1 / (no + 2))
    return targets


def fit_platt(scores: Array, targets: Array, known: NDArray[np.bool_]) -> Platt:
    """Return the slopes >= 0 and offsets with the least log-loss of scores [n, k] against ``targets`` [n, k].

    Only ``known`` cells [n, k] count. The loss is convex; a Newton search with halved steps finds its minimum, of all
    labels at a time. Where the best slope is negative it is 0: a score that is held out and runs against the truth is
    what leaving out does to a label of few images, not knowledge about it.
    """
    weights = known.astype(np.float64)
    count = np.maximum(weights.sum(axis=0), 1)
    filled = np.where(known, scores, 0.0)
    mean = filled.sum(axis=0) / count
    deviation = np.sqrt((weights * (filled - mean) ** 2).sum(axis=0) / count)
    deviation = np.where(deviation > 0, deviation, 1.0)
    x = weights * (filled - mean) / deviation
    share = np.clip((weights * targets).sum(axis=0) / count, 1e-12, 1 - 1e-12)
    slopes, offsets = np.zeros(len(count)), np.log(share / (1 - share))

    def loss(slopes: Array, offsets: Array) -> Array:
        losses: Array = (weights * log_losses(x * slopes + offsets, targets)).sum(axis=0)
        return losses

    constant, least = offsets.copy(), loss(slopes, offsets)
    for _ in range(STEPS):
        probabilities = sigmoid(x * slopes + offsets)
        errors = weights * (probabilities - targets)
        curvature = weights * np.maximum(probabilities * (1 - probabilities), 1e-12)
        by_slope, by_offset = (errors * x).sum(axis=0), errors.sum(axis=0)
        a, b, c = (curvature * x * x).sum(axis=0) + 1e-9, (curvature * x).sum(axis=0), curvature.sum(axis=0) + 1e-9
        determinant = np.maximum(a * c - b * b, 1e-18)
        steps = (c * by_slope - b * by_offset) / determinant, (a * by_offset - b * by_slope) / determinant
        factor = np.ones(len(count))
        for _ in range(HALVINGS):
            new = loss(slopes - factor * steps[0], offsets - factor * steps[1])
            is_worse = new > least + ROUNDING * np.abs(least)
            if not is_worse.any():
                break
            factor = np.where(is_worse, factor / 2, factor)
        factor = np.where(is_worse, 0.0, factor)
        slopes, offsets, least = slopes - factor * steps[0], offsets - factor * steps[1], np.minimum(new, least)
        if np.abs(np.stack(steps) * factor).max(initial=0) < CONVERGED:
            break
    offsets = np.where(slopes > 0, offsets, constant)
    slopes = np.maximum(slopes, 0) / deviation
    return Platt(slopes, offsets - slopes * mean)
