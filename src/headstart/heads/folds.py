"""Folds and validation sets of whole groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError
from headstart.heads.kinds import Labels

FOLDS = 5


def group_folds(
    x: NDArray[np.floating], labels: Labels, groups: Labels
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Split rows into those to learn from and those to predict, for each fold; groups stay whole.

    Raises DataError where a fold would leave images of one class alone to learn from.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(FOLDS, len(np.unique(groups)))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    splits = [(train, test) for train, test in splitter.split(x, labels, groups) if len(test)]
    if any(len(np.unique(labels[train])) < 2 for train, _ in splits):
        raise DataError(
            "Without one fold of groups only one class is left to learn from; add images of other groups to every "
            "class, or use a head with a closed form (--head auto)."
        )
    return splits


def deal_into_folds(labels: Labels, groups: Labels, generator: np.random.Generator) -> NDArray[np.int64] | None:
    """Assign each image to a fold [n]: groups stay whole, and the FOLDS have equally many groups of each class.

    None where a class has fewer groups than there are folds. A group of several classes goes with its first.
    """
    numbers, first, index = np.unique(groups, return_index=True, return_inverse=True)
    fold = np.empty(len(numbers), np.int64)
    for c in np.unique(labels):
        class_groups = np.flatnonzero(labels[first] == c)
        if len(class_groups) < FOLDS:
            return None
        fold[generator.permutation(class_groups)] = np.arange(len(class_groups)) % FOLDS
    return fold[index]


def holdout_groups(groups: Labels, labels: Labels, seed: int) -> NDArray[np.bool_]:
    """Choose which images to hold out for validation: whole groups, about a tenth, as long as every class stays."""
    is_held_out = np.zeros(len(groups), bool)
    for group in np.random.default_rng(seed).permutation(np.unique(groups)):
        extended = is_held_out | (groups == group)
        if extended.sum() > max(1, len(groups) // 10):
            continue
        if len(np.unique(labels[~extended])) == len(np.unique(labels)):
            is_held_out = extended
    return is_held_out
