"""A head and an OOD detector from statistics alone, counts, class sums and the Gram matrix, without a row of an image.

What cannot be had from them is everything that needs held-out predictions of images: accuracy, temperature, prediction
sets, rejection, groups, the learning curve. The penalty is chosen by generalised cross-validation, which needs sums of
squares alone (Golub, Heath & Wahba 1979, "Generalized Cross-Validation as a Method for Choosing a Good Ridge
Parameter"). It takes images for independent, so that copies and scenes make the penalty smaller than it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.head import Head
from headstart.heads.ood import OodDetector, fit_ood
from headstart.heads.ridge import check_dropout_rate, dropout_penalty, solve_ridge
from headstart.heads.statistics import Statistics

Array = NDArray[np.float64]
PENALTIES = tuple(float(x) for x in np.geomspace(1e-3, 10, 13))  # times the mean squared length of a vector
LEAST_TEMPERATURE = 0.01


@dataclass(frozen=True)
class TapStatistics:
    """Statistics of whole numbers, those of ``taps`` side by side.

    ``taps`` maps each tap, shallow to deep, to the exponents of the steps of its channels (``heads.integers``);
    ``statistics`` are int64, in steps.
    """

    taps: Mapping[str, tuple[int, ...]]
    statistics: Statistics

    def select(self, names: tuple[str, ...]) -> TapStatistics:
        """Return those of some taps, in their order. Raises OptionError for one that is not there."""
        if unknown := [name for name in names if name not in self.taps]:
            raise OptionError(f"Unknown cut {unknown[0]!r}; these statistics are of {', '.join(self.taps)}.")
        starts = dict(zip(self.taps, np.cumsum([0, *map(len, self.taps.values())]).tolist(), strict=False))
        kept = [tap for tap in self.taps if tap in names]
        columns = np.concatenate([np.arange(starts[tap], starts[tap] + len(self.taps[tap])) for tap in kept])
        all_of_them = self.statistics
        part = Statistics(all_of_them.counts, all_of_them.sums[:, columns], all_of_them.gram[np.ix_(columns, columns)])
        return TapStatistics({tap: self.taps[tap] for tap in kept}, part)

    @property
    def steps(self) -> Array:
        """The step [d] of each channel."""
        return np.concatenate([np.ldexp(1.0, np.array(exponents, np.int64)) for exponents in self.taps.values()])


@dataclass(frozen=True)
class StatisticsFit:
    """A head and a detector. ``criterion`` is by penalty what it was chosen by: the mean squared error of a left-out
    image, by generalised cross-validation, summed over the classes; empty where the penalty was given."""

    head: Head
    ood: OodDetector
    criterion: Mapping[float, float] = field(default_factory=dict)


def fit_statistics(of_taps: TapStatistics, dropout: float | None = None) -> StatisticsFit:
    """Fit ridge regression on one-hot targets, and the OOD detector of the deepest tap.

    ``dropout`` gives the penalty (``dropout_penalty``), else it is chosen. Taps are scaled to the same total variance.
    The head's temperature is the mean squared error of a score, as if errors of scores were normal and alike: it is not
    measured. Raises DataError where the statistics are of fewer than two classes, or of images that are all alike.
    """
    statistics, steps = of_taps.statistics, of_taps.steps
    if (classes := int((statistics.counts > 0).sum())) < 2:
        known = "one class" if classes else "no images"
        raise DataError(f"The statistics are of {known}; a classifier needs images of at least two classes.")
    scatter = exact_scatter(statistics) * np.outer(steps, steps)
    mean = statistics.mean * steps
    widths = [len(exponents) for exponents in of_taps.taps.values()]
    scales = _tap_scales(np.diag(scatter) / statistics.count, widths)
    if not np.diag(scatter).any():
        raise DataError("All images of these statistics have the same features, so that nothing can be learnt of them.")
    basis = Eigenbasis.of_scatter(scales, mean * scales, scatter * np.outer(scales, scales))
    counts = statistics.counts
    cross = (statistics.sums * steps - counts[:, None] * mean).T  # of the vectors as they are
    projected = basis.directions.T @ (cross * scales[:, None])
    if dropout is None:
        criterion = {value: _error(basis, projected, counts, value) for value in PENALTIES}
        penalty = min(criterion, key=lambda value: criterion[value])
        error, settings = criterion[penalty], {"penalty": penalty}
        inverse = 1 / (basis.eigenvalues + penalty * basis.total / statistics.count)
        scaled, bias = basis.affine(projected * inverse[:, None], counts / statistics.count)
        weights = scaled * scales[:, None]
    else:
        check_dropout_rate(dropout)
        real = statistics.in_units(steps)
        weights, bias = solve_ridge(real, dropout_penalty(real, dropout))
        criterion, settings = {}, {"dropout": dropout}
        error = _training_error(weights, cross, scatter, counts)
    temperature = max(error / len(counts), LEAST_TEMPERATURE)
    taps = tuple(of_taps.taps)
    head = Head("ridge", taps, weights.astype(np.float32), bias.astype(np.float32), temperature, settings=settings)
    return StatisticsFit(head, _detector(scatter, mean, widths), criterion)


def exact_scatter(statistics: Statistics) -> Array:
    """Return the total scatter [d, d], in steps, of statistics of whole numbers.

    Centred by whole numbers, exactly; what is left of the mean, at most half a step, is subtracted from the result.
    """
    count, sums = statistics.count, statistics.sums.sum(axis=0)
    shift = np.rint(sums / count).astype(np.int64)
    centred = statistics.gram - np.outer(shift, sums) - np.outer(sums, shift) + count * np.outer(shift, shift)
    rest = sums / count - shift
    scatter: Array = centred - count * np.outer(rest, rest)
    return scatter


def _tap_scales(variances: Array, widths: list[int]) -> Array:
    """Return the factors [d] that give all taps the same total variance."""
    parts = np.split(variances, np.cumsum(widths)[:-1])
    return np.concatenate([np.full(len(part), 1 / np.sqrt(part.sum()) if part.sum() > 0 else 1.0) for part in parts])


def _error(basis: Eigenbasis, projected: Array, counts: NDArray[np.int64], penalty: float) -> float:
    """Return the mean squared error of generalised cross-validation, summed over the classes.

    ``projected`` [r, k] are the products of the coordinates with the targets. Where as many parameters as images are
    free it is infinite.
    """
    count = int(counts.sum())
    strength = penalty * basis.total / count
    shrunk = basis.eigenvalues + strength
    explained = (projected**2 * ((basis.eigenvalues + 2 * strength) / shrunk**2)[:, None]).sum()
    residual = max(float((counts - counts**2 / count).sum() - explained), 0.0)
    freedom = 1 + float((basis.eigenvalues / shrunk).sum())
    return residual / count / (1 - freedom / count) ** 2 if freedom < count else float("inf")


def _training_error(weights: Array, cross: Array, scatter: Array, counts: NDArray[np.int64]) -> float:
    """Return the mean squared error on the images themselves, summed over the classes."""
    count = int(counts.sum())
    explained = 2 * (weights * cross).sum() - (weights * (scatter @ weights)).sum()
    return max(float((counts - counts**2 / count).sum() - explained), 0.0) / count


def _detector(scatter: Array, mean: Array, widths: list[int]) -> OodDetector:
    """Return the OOD detector of the deepest tap."""
    before = sum(widths[:-1])
    own, centre = scatter[before:, before:], mean[before:]
    total = float(np.trace(own))
    scales = np.full(widths[-1], 1 / np.sqrt(total) if total > 0 else 1.0)
    return fit_ood(Eigenbasis.of_scatter(scales, centre * scales, own * np.outer(scales, scales))).behind(before)
