"""How many images have each label, and which labels can be learned."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset
from headstart.data.label_cells import LabelCell
from headstart.heads.label_ridge import most_unknown
from headstart.studio.label_sets import labelled_item, names_in_cells
from headstart.studio.state import State

MIN_IMAGES = 2  # that have a label, and that do not, of one label at least
NOTHING_TO_LEARN = f"A label is needed that {MIN_IMAGES} images have and {MIN_IMAGES} others do not."


@dataclass(frozen=True)
class LabelCounts:
    """Of the labels ``classes`` [k]: in how many images each is ``present`` and ``unknown`` [k].

    ``unlabelled`` counts images that nobody has labelled, of which every label is unknown, ``without`` those that have
    none of the labels. ``reasons`` [k] say why a label cannot be learned yet from the training images, empty where it
    can, and ``why_none`` why nothing can, empty where something can.
    """

    classes: tuple[str, ...]
    present: NDArray[np.int64]
    unknown: NDArray[np.int64]
    unlabelled: int
    without: int
    reasons: tuple[str, ...]
    why_none: str

    @property
    def learned(self) -> tuple[str, ...]:
        """The labels that can be learned."""
        return tuple(name for name, reason in zip(self.classes, self.reasons, strict=True) if not reason)


def label_counts(state: State, errors: Collection[str]) -> LabelCounts:
    """Count the labels of a project; ``errors`` are the ids of images that cannot be read."""
    place = {name: i for i, name in enumerate(state.classes)}
    counts = np.zeros((2, 2, len(place)), np.int64)  # of all labelled images and those to train on: present, unknown
    labelled = train = without = 0
    for record in state.records.values():
        cell = record.labels
        if cell is None:
            continue
        is_train = record.split == "train" and record.id not in errors
        labelled, train, without = labelled + 1, train + is_train, without + (not cell.present)
        present = [place[name] for name in cell.present]
        unknown = [place[name] for name in cell.unknown]
        if cell.rest:
            unknown = [i for name, i in place.items() if name not in cell.present]
        for which in range(1 + is_train):
            counts[which, 0, present] += 1
            counts[which, 1, unknown] += 1
    yes, unknown_of_train = counts[1]
    no = train - yes - unknown_of_train
    cells = zip(yes.tolist(), no.tolist(), unknown_of_train.tolist(), strict=True)
    reasons = tuple(_reason(a, b, c, train) for a, b, c in cells)
    is_open = unknown_of_train <= most_unknown(train)
    why = "" if ((np.minimum(yes, no) >= MIN_IMAGES) & is_open).any() else NOTHING_TO_LEARN
    unlabelled = len(state.records) - labelled
    return LabelCounts(state.classes, counts[0, 0], counts[0, 1] + unlabelled, unlabelled, without, reasons, why)


def of_learned_labels(dataset: Dataset, counts: LabelCounts) -> Dataset:
    """Return a dataset without the labels that are not known of too many images, on which a fit would refuse it.

    A label that all images have, or none, stays: a fit leaves it out by itself, and says so.
    """
    cells = [None if i.labels is None else LabelCell(i.labels, i.unknown) for i in dataset.items]
    left_out = {name for name, why in zip(counts.classes, counts.reasons, strict=True) if "not known" in why}
    names = [name for name in names_in_cells(cells) if name not in left_out]
    items = tuple(
        labelled_item(item, LabelCell(item.labels or (), item.unknown, item.is_rest_unknown), names)
        for item in dataset.items
    )
    return replace(dataset, items=items, label_names=tuple(names))


def _reason(yes: int, no: int, unknown: int, images: int) -> str:
    """Return why a label cannot be learned that so many labelled images have, do not have, or may have."""
    if unknown > most_unknown(images):
        return f"not known of {unknown} of {images} labelled images; it may be of at most {int(most_unknown(images))}"
    if not yes:
        return "no labelled image has it"
    return "" if no else "every labelled image has it"
