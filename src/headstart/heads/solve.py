"""Ridge, LDA and the nearest centroid in closed form, from sufficient statistics.

Each returns weights [d, k] and bias [k] in float64, so that ``x @ weights + bias`` are class scores.
"""

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError
from headstart.heads.statistics import Statistics

Solution = tuple[NDArray[np.float64], NDArray[np.float64]]


def ridge(statistics: Statistics, penalty: float | NDArray[np.float64]) -> Solution:
    """Least squares on one-hot targets with an unpenalised intercept.

    Minimises ``sum |y - b - W'x|^2 + sum_j penalty_j |W_j|^2``; ``penalty`` is one number >= 0 or one a
    feature [d], in units of the summed squared features (Hoerl & Kennard 1970).
    """
    counts, mean = statistics.counts, statistics.mean
    cross = (statistics.sums - counts[:, None] * mean).T
    system = raised(statistics.scatter, penalty)
    weights = _least(system, cross) if np.any(penalty == 0) else _solve(system, cross)
    return weights, counts / statistics.count - mean @ weights


def dropout_penalty(statistics: Statistics, rate: float) -> NDArray[np.float64]:
    """The ridge penalty [d] that dropout at ``rate`` in [0, 1) amounts to under squared loss.

    With inverted dropout the expected loss is the plain loss plus ``rate / (1 - rate)`` times each
    feature's summed square times its squared weight (Wager, Wang & Liang 2013, section 2; Wang & Manning 2013).
    """
    if not 0 <= rate < 1:
        raise OptionError(f"Dropout rate {rate} cannot be used; give one from 0 up to, not including, 1.")
    penalty: NDArray[np.float64] = rate / (1 - rate) * np.diag(statistics.gram)
    return penalty


def lda(statistics: Statistics, shrinkage: float) -> Solution:
    """Linear discriminant analysis with covariance ``(within scatter + shrinkage * I) / n``.

    ``shrinkage`` > 0 is in units of summed squared features. Class priors are the classes' shares
    (Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, section 4.3.1).
    """
    present = statistics.counts > 0
    counts = statistics.counts[present]
    means = statistics.sums[present] / counts[:, None]
    within = (means.T * -counts) @ means
    within += statistics.gram
    precision_means = statistics.count * _solve(raised(within, shrinkage), means.T)
    weights = np.zeros((len(within), len(present)))
    bias = np.full(len(present), -np.inf)
    weights[:, present] = precision_means
    bias[present] = -0.5 * np.einsum("cd,dc->c", means, precision_means) + np.log(counts / statistics.count)
    return weights, bias


def centroid(statistics: Statistics) -> Solution:
    """Nearest class mean: the scores are minus half the squared distance, but for a part all classes share."""
    means = statistics.sums / np.maximum(statistics.counts, 1)[:, None]
    bias = np.where(statistics.counts > 0, -0.5 * (means**2).sum(axis=1), -np.inf)
    return means.T, bias


def raised(matrices: NDArray[np.float64], by: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrices [..., d, d] with their diagonals raised, in their place: a copy of a wide one is many megabytes."""
    np.einsum("...ii->...i", matrices)[...] += by
    return matrices


def _least(system: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the solutions of a system that may be singular, the shortest."""
    result: NDArray[np.float64] = np.asarray(np.linalg.lstsq(system, right, rcond=None)[0], np.float64)
    return result


def _solve(system: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.asarray(np.linalg.solve(system, right), np.float64)
    return result
