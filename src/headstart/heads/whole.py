"""The chosen head on all pictures, from the basis in which it was judged: what ``solve`` gives, without a solve.

In the basis the total scatter is diagonal, so ridge is a division, and LDA one more of rank k (Woodbury).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.heads.held_out import Basis, Means, class_means
from headstart.heads.solve import Solution
from headstart.heads.vectors import one_hot


def ridge(basis: Basis, labels: NDArray[np.integer], classes: int, penalty: float) -> Solution:
    """Weights [d, k] and bias [k] on the vectors of the basis; ``penalty`` > 0 in units of summed squares."""
    targets = one_hot(labels, classes)
    mean = targets.mean(axis=0)
    return _on_vectors(basis, basis.products(targets - mean) / (basis.spread + penalty)[:, None], mean)


def lda(basis: Basis, labels: NDArray[np.integer], classes: int, shrinkage: float) -> Solution:
    """The same for LDA; every class has pictures, and ``shrinkage`` > 0."""
    counts, means = class_means(basis, labels, classes)
    under = Means.of(means, counts, 1 / (basis.spread + shrinkage))
    bias = np.log(counts / len(labels)) - 0.5 * len(labels) * np.diag(under.within)
    return _on_vectors(basis, len(labels) * (under.scaled + under.scaled @ under.mended), bias)


def centroid(basis: Basis, labels: NDArray[np.integer], classes: int) -> Solution:
    """The same for the nearest class mean."""
    _, means = class_means(basis, labels, classes)
    return _on_vectors(basis, means.T, -0.5 * (means**2).sum(axis=1))


def _on_vectors(basis: Basis, inner: NDArray[np.float64], bias: NDArray[np.float64]) -> Solution:
    weights = basis.weights(inner)
    return weights, bias - basis.mean @ weights
