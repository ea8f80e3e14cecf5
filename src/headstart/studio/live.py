"""What is followed from one click to the next: a head, the images that it knows, and their groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.live import MAX_CHANGES, LiveHead
from headstart.heads.live_labels import LiveLabels
from headstart.studio.embedded import EmbeddedImages
from headstart.studio.records import ImageRecord
from headstart.studio.state import State


@dataclass(frozen=True)
class Live:
    """A head that is followed: the images that it knows, in its order, and their groups.

    ``head`` is None where images have several labels and there are too many to follow every click.
    """

    head: LiveHead | LiveLabels | None
    ids: tuple[str, ...]
    groups: NDArray[np.int64]
    names: dict[str, int]  # of groups that have a name: their numbers

    def has_room_for(self, count: int) -> bool:
        """Whether so many more images can be followed; else they wait for the full choice."""
        return self.head is not None and len(self.ids) - self.head.first + count <= MAX_CHANGES

    def with_images(self, images: EmbeddedImages, records: Sequence[ImageRecord]) -> Live:
        """Return it with further images; one whose group has no name is a group of its own."""
        assert images.features is not None
        assert self.head is not None
        rows = np.array([images.rows[record.id] for record in records])
        values = images.features.vectors(rows)
        names, groups, free = dict(self.names), [], int(self.groups.max(initial=-1)) + 1
        for record in records:
            number = free if record.group is None else names.setdefault(record.group, free)
            groups.append(number)
            free = max(free, number + 1)
        ids = (*self.ids, *(record.id for record in records))
        return Live(self.head.with_images(values), ids, np.r_[self.groups, groups].astype(np.int64), names)


def labels_of(live: Live, state: State) -> NDArray[np.int64]:
    """Return the label [n] of each image that a head knows, as a place in the classes; -1 where it is not there."""
    number = {name: i for i, name in enumerate(state.classes)}
    labels = np.full(len(live.ids), -1, np.int64)
    for i, id in enumerate(live.ids):
        record = state.records.get(id)
        if record is not None and record.label is not None and record.split == "train":
            labels[i] = number[record.label]
    return labels
