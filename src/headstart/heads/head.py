"""A head: an affine map from the taps' vectors to class scores, a temperature, a softmax; or labels and a sigmoid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headstart.stats.platt import sigmoid
from headstart.stats.temperature import row_blocks

SOFTMAX, SIGMOID = "softmax", "sigmoid"  # what turns scores into probabilities: of one class, of each label by itself


def softmax(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Turn rows of scores [n, k] into probabilities [n, k], float64; every row sums to 1."""
    probabilities = np.empty(np.shape(scores))
    for rows in row_blocks(scores):  # a million rows would take some copies of all
        shifted = np.asarray(scores[rows], np.float64)
        shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        np.divide(shifted, shifted.sum(axis=1, keepdims=True), out=probabilities[rows])
    return probabilities


def weigh(probabilities: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities [n, k] where each class's share of all images is ``weights`` [k] > 0 times what it was.

    They become proportional to ``weights * probabilities``, and rows still sum to 1: Bayes' rule with other prior
    probabilities (Elkan 2001, theorem 2; Saerens, Latinne & Decaestecker 2002, equation 4).
    """
    weighted = probabilities * weights
    weighted /= weighted.sum(axis=1, keepdims=True)
    return weighted


@dataclass(frozen=True)
class Head:
    """A fitted head.

    ``probabilities = softmax((x @ weights + bias) / temperature)`` where ``x`` [n, d] float32 holds the vectors of
    ``taps`` side by side and ``weights`` is [d, k]. With a ``hidden_layer`` (weights [d, h], bias [h]) ``x`` is first
    replaced by ``relu(x @ hidden_weights + hidden_bias)`` and ``weights`` is [h, k]. A head for several labels an image
    has ``activation`` "sigmoid" in the place of the softmax, and a temperature of 1.
    """

    kind: str
    taps: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    temperature: float
    hidden_layer: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    settings: Mapping[str, float | str] = field(default_factory=dict)
    activation: str = SOFTMAX

    def on_taps(self, taps: tuple[str, ...], channels: Mapping[str, int]) -> Head:
        """Return the same head on more taps, with weights of 0 on those that it does not take.

        ``taps`` are in the order of the head's own; ``channels`` has the width of each.
        """
        if taps == self.taps:
            return self
        widths = [channels[tap] for tap in self.taps]
        own = dict(zip(self.taps, np.split(self.weights, np.cumsum(widths)[:-1]), strict=True))
        absent = {tap: np.zeros((channels[tap], self.weights.shape[1]), np.float32) for tap in taps}
        return replace(self, taps=taps, weights=np.concatenate([own.get(tap, absent[tap]) for tap in taps]))

    def weighted(self, weights: NDArray[np.float64]) -> Head:
        """Return the head whose probabilities are those of this one, as ``weigh`` changes them by ``weights`` [k].

        The logarithms of the weights are added to the calibrated scores, so that only the bias changes.
        """
        bias = self.bias.astype(np.float64) + self.temperature * np.log(weights)
        return replace(self, bias=bias.astype(np.float32))

    def scores(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        """Compute class scores [n, k], float32, before temperature and softmax."""
        inputs: NDArray[np.float32] = np.asarray(x, np.float32)
        if self.hidden_layer is not None:
            inputs = np.maximum(inputs @ self.hidden_layer[0] + self.hidden_layer[1], 0)
        scores: NDArray[np.float32] = inputs @ self.weights + self.bias
        return scores

    def probabilities(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Compute class probabilities [n, k], float64, rows summing to 1; of labels each from 0 to 1 by itself."""
        scores = self.scores(x).astype(np.float64) / self.temperature
        return sigmoid(scores) if self.activation == SIGMOID else softmax(scores)
