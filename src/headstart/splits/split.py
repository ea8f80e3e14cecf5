"""Which pictures train, which are held out, and which belong together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.data import Dataset
from headstart.errors import DataError, OptionError
from headstart.features.features import Features
from headstart.splits.groups import Groups, duplicates_between, find_groups, groups_from_column, ungrouped


@dataclass(frozen=True)
class Partition:
    """Rows of the features: which train, which validate, and the training pictures' labels and groups."""

    classes: tuple[str, ...]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: Groups
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        features: Features,
        dataset: Dataset,
        count: int,
        group_by: str,
        validation: str | float | None,
        seed: int,
    ) -> Partition:
        """``count`` pictures of the data set train; a share of their groups is held out if ``validation`` is one."""
        names = [dataset.items[i].label for i in features.index]
        train, held = np.flatnonzero(features.index < count), np.flatnonzero(features.index >= count)
        present = {str(names[i]) for i in train}
        classes = tuple(name for name in dataset.classes if name in present)
        if len(classes) < 2:
            found = f"only {classes[0]!r}" if classes else "no readable picture"
            raise DataError(f"A classifier needs pictures of at least two classes; found {found} in {dataset.uri}.")
        labels = np.array([classes.index(str(names[i])) for i in train])
        groups = group_images(features, dataset, train, labels, group_by)
        notes = []
        unseen = sorted({str(names[i]) for i in held} - set(classes))
        if unseen:
            notes.append(f"No training picture of {', '.join(unseen)}: those validation pictures count as wrong.")
        leaked = held[duplicates_between(features.tiny_images[train], features.tiny_images[held])]
        if len(leaked):
            named = [dataset.items[features.index[i]].path for i in leaked[:3]] + ["..."] * (len(leaked) > 3)
            notes.append(
                f"{len(leaked)} held-out pictures are copies of training pictures ({', '.join(named)}): "
                "the accuracy on held-out pictures is too good; headstart check names them all."
            )
        if isinstance(validation, float | int) and not len(held):
            out = _share_of_groups(groups.index, labels, float(validation), seed)
            held, train, labels = train[out], train[~out], labels[~out]
            index = np.unique(groups.index[~out], return_inverse=True)[1]
            sizes = np.bincount(index)
            groups = Groups(index, len(sizes), int(sizes.max()), groups.method)
        single = [classes[c] for c in range(len(classes)) if len(np.unique(groups.index[labels == c])) < 2]
        if single:
            shown = ", ".join(single[:5]) + (f" and {len(single) - 5} more" if len(single) > 5 else "")
            notes.append(
                f"All pictures of {shown} are of one group, so they cannot be recognised when it is left out; "
                "add other pictures."
            )
        return cls(classes, train, held, labels, groups, tuple(notes))


@dataclass(frozen=True)
class Learned:
    """What a fit has learned from: all its pictures, their features and parts, and the network that was cut."""

    dataset: Dataset
    features: Features
    partition: Partition
    backbone: Backbone


def group_images(
    features: Features, dataset: Dataset, train: NDArray[np.int64], labels: NDArray[np.int64], group_by: str
) -> Groups:
    """The groups of the pictures ``train`` [n] with ``labels`` [n]: by a column, or by pixels and features.

    Raises OptionError for a column that is not there.
    """
    if group_by == "none":
        return ungrouped(len(train))
    given = [dataset.items[features.index[i]].group for i in train]
    if any(name is not None for name in given):
        return groups_from_column([f"name {g}" if g is not None else f"picture {i}" for i, g in enumerate(given)])
    if group_by != "auto":
        raise OptionError(f"The data have no column {group_by!r} to group by; use auto or none.")
    deepest = list(features.values)[-1]
    vectors = features.vectors(train)[deepest]
    return find_groups(features.content_hashes[train], features.tiny_images[train], vectors, labels)


def _share_of_groups(
    groups: NDArray[np.int64], labels: NDArray[np.int64], share: float, seed: int
) -> NDArray[np.bool_]:
    """Which pictures to hold out: whole groups, about ``share`` of each class, never all of a class."""
    if not 0 < share < 1:
        raise OptionError(f"A validation share of {share} cannot be used; give a data set, or a share between 0 and 1.")
    out = np.zeros(len(groups), bool)
    totals = np.bincount(labels)
    held = np.zeros(len(totals))
    for group in np.random.default_rng(seed).permutation(np.unique(groups)):
        members = groups == group
        counts = np.bincount(labels[members], minlength=len(totals))
        present = counts > 0
        if (held[present] + counts[present] <= np.maximum(share * totals[present], 1)).all() and (
            held[present] + counts[present] < totals[present]
        ).all():
            out |= members
            held += counts
    if not out.any():
        raise DataError(f"No group of pictures is small enough to hold out {share:.0%}; give --validation a data set.")
    return out
