"""Folds and validation sets of whole groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError
from headstart.heads.kinds import Labels

FOLDS = 5


def group_folds(labels: Labels, groups: Labels) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Split rows into those to learn from and those to predict, for each fold; groups stay whole.

    Raises DataError where a fold would leave images of one class alone to learn from.
    """
    splits = stratified_group_folds(labels, groups, min(FOLDS, len(np.unique(groups))), seed=0)
    if any(len(np.unique(labels[train])) < 2 for train, _ in splits):
        raise DataError(
            "Without one fold of groups only one class is left to learn from; add images of other groups to every "
            "class, or use a head with a closed form (--head auto)."
        )
    return splits


def count_by_group(labels: NDArray[Any], groups: Labels) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Count the images of each group that have each class [groups, k]; return that, and the group of each image [n].

    ``labels`` are classes [n], or several labels [n, k] that are 1, 0, or NaN where that is not known: each then has
    two columns, of the images that have it and of those that do not. Columns without an image are left out.
    """
    index = np.unique(groups, return_inverse=True)[1]
    if labels.ndim > 1:
        has, has_not = labels == 1, labels == 0
        counts = np.zeros((index.max() + 1, 2 * labels.shape[1]))
        np.add.at(counts, index, np.concatenate([has, has_not], axis=1))
        return counts[:, counts.any(axis=0)], index
    classes = np.unique(labels, return_inverse=True)[1]
    counts = np.zeros((index.max() + 1, classes.max() + 1))
    np.add.at(counts, (index, classes), 1)
    return counts, index


def stratified_group_folds(
    labels: NDArray[Any], groups: Labels, count: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Split rows into those to learn from and those to predict, for each fold that has any; groups stay whole.

    The folds of scikit-learn's ``StratifiedGroupKFold(count, shuffle=True, random_state=seed)``, without the seconds
    that its import takes: groups in random order, the most one-sided first, each to the fold where the shares of the
    classes differ least between folds, or to the smallest of such folds. Of several labels an image, every answer to
    every label is a class: ``labels`` are those of ``count_by_group``.
    """
    counts, group_index = count_by_group(labels, groups)
    class_sizes = counts.sum(axis=0)
    order = np.arange(len(counts))
    np.random.RandomState(seed).shuffle(order)
    order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
    fold_of_group, in_fold = np.empty(len(counts), np.int64), np.zeros((count, len(class_sizes)))
    for group in order:
        candidates = in_fold + np.eye(count)[:, :, None] * counts[group]  # [fold that gets it, fold, class]
        unevenness = (candidates / class_sizes).std(axis=1).mean(axis=1)
        best, least, smallest = 0, np.inf, np.inf
        for fold, size in enumerate(in_fold.sum(axis=1)):
            if unevenness[fold] < least or (np.isclose(unevenness[fold], least) and size < smallest):
                best, least, smallest = fold, unevenness[fold], size
        in_fold[best] += counts[group]
        fold_of_group[group] = best
    fold_of_row = fold_of_group[group_index]
    rows = [(np.flatnonzero(fold_of_row != fold), np.flatnonzero(fold_of_row == fold)) for fold in range(count)]
    return [(train, test) for train, test in rows if len(test)]


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


def holdout_groups(groups: Labels, labels: NDArray[Any], seed: int) -> NDArray[np.bool_]:
    """Choose which images to hold out for validation: whole groups, about a tenth, as long as every class stays.

    ``labels`` are those of ``count_by_group``: of several labels an image, every answer to every label stays.
    """
    counts, index = count_by_group(labels, groups)
    sizes, left = np.bincount(index), counts.sum(axis=0)
    is_group_held_out, held_out = np.zeros(len(counts), bool), 0
    for group in np.random.default_rng(seed).permutation(len(counts)):
        if held_out + sizes[group] <= max(1, len(groups) // 10) and (left > counts[group]).all():
            is_group_held_out[group] = True
            held_out, left = held_out + sizes[group], left - counts[group]
    return is_group_held_out[index]
