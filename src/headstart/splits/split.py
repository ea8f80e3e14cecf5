"""Split: which images are trained on and which validate, with the labels and groups of the training images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset, group_numbers
from headstart.data.dataset import paths_by_reason
from headstart.data.other_formats import why_one_class
from headstart.errors import DataError, OptionError
from headstart.features import Features
from headstart.splits.groups import (
    Groups,
    duplicate_sets,
    duplicates_between,
    find_groups,
    group_members,
    to_groups,
    ungrouped,
)
from headstart.splits.named import UNNAMED, group_names, parse_group_by, why_unnamed
from headstart.splits.scenes import Labels

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Rows of the features: ``train`` [n] and ``validation`` [m].

    ``labels`` [n] and ``groups`` [n] are those of the training images, ``classes`` [k] the names of the labels.
    ``validation_groups`` [m] are None where nobody named them and validation images were not held out by groups.
    ``notes`` are lines that the user must see.
    """

    classes: tuple[str, ...]
    train: Rows
    validation: Rows
    labels: Rows
    groups: Groups
    notes: tuple[str, ...]
    validation_groups: Rows | None = None


def split_features(
    features: Features, dataset: Dataset, group_by: str = "auto", validation: float | None = None, seed: int = 0
) -> Split:
    """Split the images of a dataset by the splits of its items, "train" and "validation".

    Where the dataset has no validation images, ``validation`` is the share of the groups to hold out of training (None:
    none). ``group_by`` is that of ``group_images``. Raises DataError, OptionError.
    """
    items = [dataset.items[i] for i in features.index]
    is_train = np.array([item.split == "train" for item in items], bool)
    train, held_out = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    classes_present = {str(items[i].label) for i in train}
    classes = tuple(name for name in dataset.classes if name in classes_present)
    if len(classes) < 2:
        what = f"only one class, {classes[0]!r}," if classes else "no readable image"
        reasons = "".join(f"; {image.path}: {image.reason.rstrip('.')}" for image in features.quarantined[:3])
        for reason, paths in paths_by_reason(dataset.skipped).items():
            reasons += f"; {len(paths)} skipped: {reason}" if reason.startswith("no label") else ""
        reasons += why_one_class(dataset)
        raise DataError(f"A classifier needs images of at least two classes; found {what} in {dataset.uri}{reasons}.")
    number = {name: c for c, name in enumerate(classes)}
    labels = np.array([number[str(items[i].label)] for i in train])
    groups = group_images(features, dataset, train, labels, group_by)
    notes = [
        *groups.notes,
        *_lost_images_notes(features, dataset),
        *_unknown_class_notes(classes, [str(items[i].label) for i in held_out]),
        *leak_notes(features, dataset, train, held_out),
    ]
    held_out_groups = validation_groups(features, dataset, held_out, group_by)
    if validation is not None and not len(held_out):
        is_held_out = _hold_out_share(groups.index, labels, float(validation), seed)
        held_out_groups = None if group_by == "none" else groups.index[is_held_out]
        held_out, train, labels = train[is_held_out], train[~is_held_out], labels[~is_held_out]
        groups = to_groups(groups.index[~is_held_out], groups.method)
    notes += _single_group_notes(classes, labels, groups.index)
    return Split(classes, train, held_out, labels, groups, tuple(notes), held_out_groups)


def group_images(features: Features, dataset: Dataset, rows: Rows, labels: Labels, group_by: str) -> Groups:
    """Group the images ``rows`` [n] with ``labels`` [n], their classes, or [n, k], which labels each has.

    ``group_by`` is one of the forms of ``splits.named``; "auto" takes the groups that the dataset names, else those
    that near duplicates and features show. Copies join the groups that are named, too. Images that a folder, a pattern
    or EXIF data give no name are grouped among themselves as by "auto"; one that a column leaves out is a group of its
    own. Raises OptionError for a column that is not there, and where no image has a folder or fits the pattern.
    """
    by = parse_group_by(group_by)
    if by.kind == "none":
        return ungrouped(len(rows))
    hashes, tiny_images = features.content_hashes[rows], features.tiny_images[rows]
    vectors = features.vectors(rows)[features.deepest_tap]
    names = group_names(dataset, features.index[rows].tolist(), by)
    is_unnamed = np.array([name is None for name in names], bool)
    if by.kind == "auto" and is_unnamed.all():
        return find_groups(hashes, tiny_images, vectors, labels)
    if by.kind != "exif" and is_unnamed.all():
        raise OptionError(why_unnamed(by, dataset.items[features.index[rows[0]]].path))
    sets = duplicate_sets(hashes, tiny_images)
    numbers = group_numbers(names)
    ids = np.arange(len(rows)) if numbers is None else numbers
    method = "column" if by.kind == "auto" else by.method
    if by.kind in ("auto", "column") or not is_unnamed.any():
        sets.union_equal_rows(ids[:, None])
        return to_groups(sets.labels(), method)
    found = find_groups(hashes[is_unnamed], tiny_images[is_unnamed], vectors[is_unnamed], labels[is_unnamed])
    ids[is_unnamed] = len(rows) + found.index  # above those of groups with a name
    sets.union_equal_rows(ids[:, None])
    note = f"{is_unnamed.sum()} of {len(rows)} images to group {UNNAMED[by.kind]}; they were grouped by {found.method}."
    method = found.method if is_unnamed.all() else f"{method}; others {found.method}"
    return replace(to_groups(sets.labels(), method), notes=(note,))


def validation_groups(features: Features, dataset: Dataset, rows: Rows, group_by: str) -> Rows | None:
    """Return the groups [m] of the validation images ``rows`` [m] as they are named, None where none has a name."""
    by = parse_group_by(group_by)
    return None if by.kind == "none" else group_numbers(group_names(dataset, features.index[rows].tolist(), by))


def _lost_images_notes(features: Features, dataset: Dataset) -> list[str]:
    """Name the classes of which at least half the images could not be read."""
    listed = Counter(item.label for item in dataset.items)
    read = Counter(dataset.items[i].label for i in features.index)
    label_of = {item.path: item.label for item in dataset.items}
    notes = []
    for label, count in sorted(listed.items(), key=str):
        lost = count - read[label]
        if label is not None and 2 * lost >= count:
            first = next(image for image in features.quarantined if label_of.get(image.path) == label)
            notes.append(
                f"{'All' if lost == count else lost} of the {count} images of {label} could not be read; the first is "
                f"{first.path}: {first.reason}"
            )
    return notes


def _unknown_class_notes(classes: Sequence[str], validation_labels: Sequence[str]) -> list[str]:
    unknown = sorted(set(validation_labels) - set(classes))
    if not unknown:
        return []
    return [
        f"Validation images of {', '.join(unknown)} count as errors: there are no training images of these classes."
    ]


def leak_notes(features: Features, dataset: Dataset, train: Rows, held_out: Rows) -> list[str]:
    """Name validation images that are copies of training images."""
    leaked = held_out[duplicates_between(features.tiny_images[train], features.tiny_images[held_out])]
    if not len(leaked):
        return []
    paths = [dataset.items[features.index[i]].path for i in leaked[:3]] + ["..."] * (len(leaked) > 3)
    return [
        f"Validation images that are copies of training images: {len(leaked)} ({', '.join(paths)}). "
        "The validation accuracy is too high" + ("." if dataset.is_multi_label else "; headstart check names them all.")
    ]


def _single_group_notes(classes: Sequence[str], labels: Rows, groups: Rows) -> list[str]:
    single = [classes[c] for c in range(len(classes)) if len(np.unique(groups[labels == c])) < 2]
    if not single:
        return []
    names = ", ".join(single[:5]) + (f" and {len(single) - 5} more" if len(single) > 5 else "")
    return [
        f"{'Each of ' if len(single) > 1 else ''}{names} has all its images in one group, and cannot be recognised "
        "when that is left out; add images of other scenes."
    ]


def _hold_out_share(groups: Rows, labels: Rows, share: float, seed: int) -> NDArray[np.bool_]:
    """Choose which images to hold out: whole groups, about ``share`` of each class, never all of a class."""
    if not 0 < share < 1:
        raise OptionError(f"A validation share of {share} cannot be used; give a dataset, or a share between 0 and 1.")
    is_held_out = np.zeros(len(groups), bool)
    totals = np.bincount(labels)
    held_out_counts = np.zeros(len(totals))
    members_of = group_members(groups)
    for group in np.random.default_rng(seed).permutation(np.unique(groups)):
        members = members_of[int(group)]
        counts = np.bincount(labels[members], minlength=len(totals))
        present = counts > 0
        new_counts = held_out_counts[present] + counts[present]
        if (new_counts <= np.maximum(share * totals[present], 1)).all() and (new_counts < totals[present]).all():
            is_held_out[members] = True
            held_out_counts += counts
    if not is_held_out.any():
        raise DataError(f"No group of images is small enough to hold out {share:.0%}; give --validation a dataset.")
    return is_held_out
