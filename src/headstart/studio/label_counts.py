"""How many images have each label, and which labels can be learned."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset, Item
from headstart.data.label_cells import LabelCell
from headstart.data.label_sets import label_matrix
from headstart.heads.label_ridge import MAX_UNKNOWN, MAX_UNKNOWN_SHARE, LabelTargets
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
    records = list(state.records.values())
    labelled = [record for record in records if record.labels is not None]
    values, known = label_matrix([_item(record.labels) for record in labelled], state.classes)
    rows = [i for i, r in enumerate(labelled) if r.split == "train" and r.id not in errors]
    targets = LabelTargets(values[rows], known[rows], np.zeros(len(rows), np.int64))
    yes, no = (int_sum(which & targets.known) for which in (targets.values, ~targets.values))
    reasons = tuple(
        _reason(int(a), int(b), len(rows), bool(c)) for a, b, c in zip(yes, no, targets.is_too_unknown, strict=True)
    )
    without = int((~(values & known).any(axis=1)).sum())
    unlabelled = len(records) - len(labelled)
    has_few = np.minimum(yes, no) < MIN_IMAGES
    why = "" if (~has_few & ~targets.is_too_unknown).any() else NOTHING_TO_LEARN
    present, unknown = int_sum(values & known), int_sum(~known) + unlabelled
    return LabelCounts(state.classes, present, unknown, unlabelled, without, reasons, why)


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


def int_sum(cells: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many cells [n, k] are true of each label [k]."""
    count: NDArray[np.int64] = cells.sum(axis=0, dtype=np.int64)
    return count


def _item(cell: LabelCell | None) -> Item:
    return labelled_item(Item("", None, "train"), cell)


def _reason(yes: int, no: int, images: int, is_too_unknown: bool) -> str:
    unknown = images - yes - no
    if is_too_unknown:
        most = min(int(MAX_UNKNOWN_SHARE * images), MAX_UNKNOWN)
        return f"not known of {unknown} of {images} labelled images; it may be of at most {most}"
    if not yes:
        return "no labelled image has it"
    return "" if no else "every labelled image has it"
