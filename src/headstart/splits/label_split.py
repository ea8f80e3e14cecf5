"""The split of images that may have several labels: training and validation rows, the labels and groups of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset
from headstart.data.label_sets import label_matrix
from headstart.errors import DataError, OptionError
from headstart.features import Features
from headstart.heads.label_ridge import LabelTargets
from headstart.splits.groups import Groups, group_members, to_groups
from headstart.splits.split import group_images, leak_notes, validation_groups

Rows = NDArray[np.int64]
MAX_NAMED = 5  # labels in a note


@dataclass(frozen=True)
class LabelSplit:
    """Rows of the features: ``train`` [n] and ``validation`` [m].

    ``targets`` are the labels ``names`` [k] and groups of the training images, ``validation_values`` and
    ``validation_known`` [m, k] those of the others, ``validation_groups`` [m] as in ``Split``. ``notes`` are lines that
    the user must see.
    """

    names: tuple[str, ...]
    train: Rows
    validation: Rows
    targets: LabelTargets
    validation_values: NDArray[np.bool_]
    validation_known: NDArray[np.bool_]
    groups: Groups
    notes: tuple[str, ...]
    validation_groups: Rows | None = None


def split_labels(
    features: Features, dataset: Dataset, group_by: str = "auto", validation: float | None = None, seed: int = 0
) -> LabelSplit:
    """Split the images of a multi-label dataset; the parameters are those of ``split_features``.

    A label that every training image has, or none, is left out with a note. Raises DataError, OptionError.
    """
    items = [dataset.items[i] for i in features.index]
    is_train = np.array([item.split == "train" for item in items], bool)
    train, held_out = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    values, known = label_matrix(items, dataset.label_names)
    if len(train) < 2:
        reasons = "".join(f"; {image.path}: {image.reason.rstrip('.')}" for image in features.quarantined[:3])
        raise DataError(f"{dataset.uri} has {len(train)} readable training images; a model needs two or more{reasons}.")
    groups = group_images(features, dataset, train, values[train] & known[train], group_by)
    notes = [*groups.notes, *leak_notes(features, dataset, train, held_out)]
    held_out_groups = validation_groups(features, dataset, held_out, group_by)
    if validation is not None and not len(held_out):
        is_held_out = _hold_out_share(groups.index, values[train], float(validation), seed)
        held_out_groups = None if group_by == "none" else groups.index[is_held_out]
        held_out, train = train[is_held_out], train[~is_held_out]
        groups = to_groups(groups.index[~is_held_out], groups.method)
    chosen, left_out = labels_to_learn(dataset, values[train] & known[train], ~values[train] & known[train])
    names = tuple(dataset.label_names[i] for i in chosen)
    targets = LabelTargets(values[np.ix_(train, chosen)], known[np.ix_(train, chosen)], groups.index)
    targets.check(names)
    return LabelSplit(
        names,
        train,
        held_out,
        targets,
        values[np.ix_(held_out, chosen)],
        known[np.ix_(held_out, chosen)],
        groups,
        (*notes, *left_out),
        held_out_groups,
    )


def labels_to_learn(
    dataset: Dataset, yes: NDArray[np.bool_], no: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the labels that some training images have and others do not, and notes about the rest.

    ``yes`` and ``no`` [n, k] say of which it is known that they hold, and that they do not. Raises DataError.
    """
    has_yes, has_no = yes.any(axis=0), no.any(axis=0)
    notes = []
    for is_left_out, which in ((~has_yes, "no readable training image has"), (has_yes & ~has_no, "every one has")):
        names = [dataset.label_names[i] for i in np.flatnonzero(is_left_out)]
        if names:
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            notes.append(f"Labels that are left out, since {which} them: {', '.join(names[:MAX_NAMED])}{more}.")
    chosen = np.flatnonzero(has_yes & has_no)
    if not len(chosen):
        raise DataError(f"{dataset.uri} has no label that some training images have and others do not; add images.")
    return chosen, notes


def _hold_out_share(groups: Rows, values: NDArray[np.bool_], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose which images to hold out: whole groups, about ``share`` of each label, never all of a label."""
    if not 0 < share < 1:
        raise OptionError(f"A validation share of {share} cannot be used; give a dataset, or a share between 0 and 1.")
    is_held_out = np.zeros(len(groups), bool)
    cells = np.column_stack([values, np.ones(len(values), bool)]).astype(np.int64)  # and of all images
    totals, taken = cells.sum(axis=0), np.zeros(cells.shape[1], np.int64)
    members_of = group_members(groups)
    for group in np.random.default_rng(seed).permutation(np.unique(groups)):
        members = members_of[int(group)]
        new = cells[members].sum(axis=0)
        has = new > 0
        if (taken + new <= np.maximum(share * totals, 1))[has].all() and (taken + new < totals)[has].all():
            is_held_out[members] = True
            taken += new
    if not is_held_out.any():
        raise DataError(f"No group of images is small enough to hold out {share:.0%}; give --validation a dataset.")
    return is_held_out
