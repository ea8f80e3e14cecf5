"""Ridge regression on one-hot targets, with closed-form dropout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from headstart.errors import OptionError
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import Array, HeadKind, LinearProblem, Settings, Solution
from headstart.heads.leave_one_group_out import (
    batched_matmul,
    chunks,
    fill_large_groups,
    gram_by_group,
    group_batches,
    identity_minus,
)
from headstart.heads.statistics import Statistics, add_to_diagonal
from headstart.heads.vectors import one_hot

PENALTIES = tuple(float(x) for x in np.geomspace(0.01, 10**0.5, 6))  # times the mean squared length of a vector
LEAST_PENALTY = 1e-6  # what stands for no dropout: the inverse of the scatter may not exist


def solve_ridge(statistics: Statistics, penalty: float | Array) -> Solution:
    """Solve least squares on one-hot targets with an unpenalised intercept.

    Minimises ``sum |y - b - W'x|^2 + sum_j penalty_j |W_j|^2``; ``penalty`` is one number >= 0 or one for each feature
    [d], in units of the summed squared features (Hoerl & Kennard 1970).
    """
    counts, mean = statistics.counts, statistics.mean
    cross = (statistics.sums - counts[:, None] * mean).T
    system = add_to_diagonal(statistics.scatter, penalty)
    if np.any(penalty == 0):  # the system may be singular: the shortest of its solutions
        weights = np.asarray(np.linalg.lstsq(system, cross, rcond=None)[0], np.float64)
    else:
        weights = np.asarray(np.linalg.solve(system, cross), np.float64)
    return weights, counts / statistics.count - mean @ weights


def dropout_penalty(statistics: Statistics, rate: float) -> Array:
    """Return the ridge penalty [d] to which dropout at ``rate`` in [0, 1) amounts under squared loss.

    With inverted dropout the expected loss is the plain loss plus ``rate / (1 - rate)`` times each feature's summed
    square times its squared weight (Wager, Wang & Liang 2013, section 2; Wang & Manning 2013).
    """
    check_dropout_rate(rate)
    penalty: Array = rate / (1 - rate) * np.diag(statistics.gram)
    return penalty


def check_dropout_rate(rate: float) -> None:
    """Raise OptionError for a rate that is not in [0, 1)."""
    if not 0 <= rate < 1:
        raise OptionError(f"Dropout rate {rate} cannot be used; give one from 0 up to, not including, 1.")


def held_out_ridge(problem: LinearProblem, penalties: Sequence[float]) -> Array:
    """Compute the scores [p, m, k] that ridge with each of p penalties gives every row when its group is left out.

    ``penalties`` > 0 are in units of summed squared coordinates. The residual of a group left out is
    ``(I - H_GG)^-1 r_G`` with the smoother H of all images; its constant direction is taken out of the kernel and added
    back as 1/n, else every score looks perfect as the penalty goes to zero.
    """
    inverses = 1 / (problem.basis.eigenvalues + np.asarray(penalties)[:, None])
    scores = closed_form_ridge(problem, inverses)
    solvers = [partial(solve_ridge, penalty=penalty) for penalty in penalties]
    return fill_large_groups(scores, problem, solvers)


def closed_form_ridge(problem: LinearProblem, inverses: Array, *, all_sizes: bool = False) -> Array:
    """Compute the scores of ``held_out_ridge`` [p, m, k] from the inverses of p penalised scatter matrices.

    Those are diagonal in the coordinates: ``inverses`` [p, r]. Scores of large groups are left open,
    unless ``all_sizes`` are wanted.
    """
    classes, count = problem.targets.classes, len(problem.basis)
    truth, mean = one_hot(problem.labels, classes), problem.counts / count
    projected = inverses[:, :, None] * (problem.counts * problem.means.T)
    scores = np.empty((len(inverses), *truth.shape))
    for rows in group_batches(problem, all_sizes=all_sizes):
        points, group_truth = problem.points[rows], truth[rows]
        for chunk in chunks(len(inverses), rows, classes):
            residual = group_truth - mean - batched_matmul(points, projected[chunk])
            smoother = gram_by_group(points, inverses[chunk])
            smoother += 1 / count
            scores[chunk, rows] = group_truth - np.linalg.solve(identity_minus(smoother), residual)
    return scores


def ridge_in_basis(problem: LinearProblem, penalty: float) -> Solution:
    """Solve ridge for all images: in the eigenbasis the scatter is diagonal, so this is a division.

    ``penalty`` > 0 is in units of summed squared coordinates.
    """
    basis, shares = problem.basis, problem.counts / len(problem.basis)
    return basis.affine(problem.counts * problem.means.T / (basis.eigenvalues + penalty)[:, None], shares)


def _penalty(settings: Settings, basis: Eigenbasis, count: int | None = None) -> float:
    """Turn settings into a penalty in units of summed squared coordinates, for ``count`` images (None: for all).

    Vectors for dropout are scaled so that its penalty is the same for every feature (see ``TrainingSet``). It is a
    multiple of the images' summed squares, and so proportional to their number.
    """
    if "dropout" in settings:
        rate = float(settings["dropout"])
        penalty = rate / (1 - rate)
        return max(penalty if count is None else penalty * count / len(basis), LEAST_PENALTY)
    return float(settings["penalty"]) * basis.mean_squared_length


def _held_out(problem: LinearProblem, settings: Sequence[Settings]) -> Array:
    return held_out_ridge(problem, [_penalty(setting, problem.basis) for setting in settings])


def _solve(problem: LinearProblem, settings: Settings) -> Solution:
    return ridge_in_basis(problem, _penalty(settings, problem.basis))


def _solve_statistics(statistics: Statistics, settings: Settings, basis: Eigenbasis) -> Solution:
    return solve_ridge(statistics, _penalty(settings, basis, statistics.count))


RIDGE = HeadKind("ridge", tuple({"penalty": value} for value in PENALTIES), _held_out, _solve, _solve_statistics)
