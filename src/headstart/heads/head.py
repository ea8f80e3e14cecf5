"""A head: one affine map from the taps' vectors to class scores, a temperature, a softmax."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


def softmax(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows of scores [n, k] to probabilities [n, k], float64; every row sums to 1."""
    shifted = np.asarray(scores, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    total: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return total


@dataclass(frozen=True)
class Head:
    """A fitted head.

    ``probabilities = softmax((x @ weights + bias) / temperature)`` where ``x`` [n, d] float32 holds the
    vectors of ``taps`` side by side. With an ``expansion`` (matrix [d, h], offset [h]) ``x`` is first
    replaced by ``relu(x @ matrix + offset)`` and ``weights`` is [h, k]; else ``weights`` is [d, k].
    """

    kind: str
    taps: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    temperature: float
    expansion: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    settings: Mapping[str, float | str] = field(default_factory=dict)

    def scores(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        """Class scores [n, k], float32, before temperature and softmax."""
        inner: NDArray[np.float32] = np.asarray(x, np.float32)
        if self.expansion is not None:
            inner = np.maximum(inner @ self.expansion[0] + self.expansion[1], 0)
        result: NDArray[np.float32] = inner @ self.weights + self.bias
        return result

    def probabilities(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Class probabilities [n, k], float64, rows summing to 1."""
        return softmax(self.scores(x).astype(np.float64) / self.temperature)
