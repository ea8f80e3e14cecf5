"""Logistic regression by scikit-learn. It has no closed form: folds of whole groups are held out instead."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FOLDS = 5


def fit_logistic(x: Array, labels: NDArray[np.integer], classes: int, c: float) -> tuple[Array, Array]:
    """Weights [d, classes] and bias [classes] of multinomial logistic regression with inverse penalty ``c``."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, max_iter=2000).fit(x, labels)
    weights, bias = np.zeros((x.shape[1], classes)), np.full(classes, -np.inf)
    if len(model.classes_) == 2:  # one row of coefficients serves both classes
        weights[:, model.classes_] = np.concatenate([-model.coef_, model.coef_]).T / 2
        bias[model.classes_] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weights[:, model.classes_] = model.coef_.T
        bias[model.classes_] = model.intercept_
    return weights, bias


def group_folds(
    x: NDArray[np.floating], labels: NDArray[np.integer], groups: NDArray[np.integer]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to learn from and rows to judge, for each fold; groups stay whole."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(FOLDS, len(np.unique(groups)))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    return [
        (train, test)
        for train, test in splitter.split(x, labels, groups)
        if len(test) and len(np.unique(labels[train])) > 1
    ]


def held_out_logistic(
    x: Array,
    labels: NDArray[np.integer],
    classes: int,
    groups: NDArray[np.integer],
    inverse_penalties: Sequence[float],
) -> Iterator[tuple[float, Array]]:
    """For each C: scores [n, classes] of every picture from a fit without its fold; folds keep groups whole."""
    splits = group_folds(x, labels, groups)
    for c in inverse_penalties:
        scores = np.zeros((len(x), classes))
        for train, test in splits:
            weights, bias = fit_logistic(x[train], labels[train], classes, c)
            fold = x[test] @ weights + bias
            lowest = np.where(np.isfinite(fold), fold, np.inf).min(axis=1, keepdims=True)
            scores[test] = np.where(np.isfinite(fold), fold, lowest)
        yield c, scores
