"""Logistic regression by scikit-learn. It has no closed form: folds of whole groups are held out instead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.heads.folds import group_folds
from headstart.heads.kinds import Array, HeadKind, Labels, LinearProblem, Settings, Solution, Targets

INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C


def fit_logistic(x: Array, labels: Labels, classes: int, c: float) -> Solution:
    """Fit multinomial logistic regression with inverse penalty ``c``."""
    from sklearn.linear_model import LogisticRegression

    # Where no feature varies there are no directions, and the class frequencies decide; scikit-learn wants a column.
    inputs = x if x.shape[1] else np.zeros((len(x), 1))
    model = LogisticRegression(C=c, max_iter=2000).fit(inputs, labels)
    coefficients = model.coef_[:, : x.shape[1]]
    weights, bias = np.zeros((x.shape[1], classes)), np.full(classes, -np.inf)
    if len(model.classes_) == 2:  # one row of coefficients serves both classes
        weights[:, model.classes_] = np.concatenate([-coefficients, coefficients]).T / 2
        bias[model.classes_] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weights[:, model.classes_] = coefficients.T
        bias[model.classes_] = model.intercept_
    return weights, bias


def held_out_logistic(x: Array, targets: Targets, inverse_penalties: Sequence[float]) -> Array:
    """Compute, for each C, the scores [p, n, k] of every image from a fit without its fold; folds keep groups whole."""
    labels, classes = targets.labels, targets.classes
    splits = group_folds(labels, targets.groups)
    scores = np.zeros((len(inverse_penalties), len(x), classes))
    for i, c in enumerate(inverse_penalties):
        for train, test in splits:
            weights, bias = fit_logistic(x[train], labels[train], classes, c)
            fold_scores = x[test] @ weights + bias
            lowest = np.where(np.isfinite(fold_scores), fold_scores, np.inf).min(axis=1, keepdims=True)
            scores[i, test] = np.where(np.isfinite(fold_scores), fold_scores, lowest)
    return scores


def _held_out(problem: LinearProblem, settings: Sequence[Settings]) -> Array:
    x = problem.basis.project(slice(None)) / np.sqrt(problem.basis.mean_squared_length)
    return held_out_logistic(x, problem.targets, [float(setting["C"]) for setting in settings])[:, problem.rows]


def _solve(problem: LinearProblem, settings: Settings) -> Solution:
    basis, targets = problem.basis, problem.targets
    unit = np.sqrt(basis.mean_squared_length)
    weights, bias = fit_logistic(
        basis.project(slice(None)) / unit, targets.labels, targets.classes, float(settings["C"])
    )
    return basis.affine(weights / unit, bias)


LOGISTIC = HeadKind("logistic", tuple({"C": c} for c in INVERSE_PENALTIES), _held_out, _solve, None)
