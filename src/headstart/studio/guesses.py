"""What the model of the last full choice says of images that it has not learned from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headstart.studio.choice import FullChoice
from headstart.studio.embedded import EmbeddedImages

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Guesses:
    """Probabilities [n, k] of ``labels`` [k] by the model of the last full choice, of images at ``rows`` by id."""

    labels: tuple[str, ...]
    rows: Mapping[str, int]
    probabilities: Array = field(repr=False)

    def among(self, classes: tuple[str, ...]) -> tuple[tuple[str, ...], Array]:
        """Return the images whose most probable label is one of ``classes`` [k], and probabilities [n, k] of these.

        A label that was renamed or removed since is none of them.
        """
        columns = [self.labels.index(name) if name in self.labels else -1 for name in classes]
        padded = np.c_[self.probabilities, np.zeros(len(self.probabilities))]
        best = np.isin(self.probabilities.argmax(axis=1), columns)
        ids = tuple(id for id, row in self.rows.items() if best[row])
        return ids, padded[[self.rows[id] for id in ids]][:, columns]

    def only(self, ids: Iterable[str]) -> Guesses:
        """Return those of some images."""
        return replace(self, rows={id: self.rows[id] for id in ids if id in self.rows})

    def of(self, ids: tuple[str, ...], names: tuple[str, ...]) -> Array:
        """Return the probabilities of images and labels, NaN of those that the model does not know."""
        found = np.full((len(ids), len(names)), np.nan)
        places = [i for i, id in enumerate(ids) if id in self.rows]
        rows = [self.rows[ids[i]] for i in places]
        for column, name in enumerate(names):
            if name in self.labels:
                found[places, column] = self.probabilities[rows, self.labels.index(name)]
        return found


def guess(full: FullChoice, images: EmbeddedImages) -> Guesses:
    """Ask the model of a full choice about all images that have features."""
    assert images.features is not None
    rows, features, model = dict(images.rows), images.features, full.result.model
    count = len(features.index)
    probabilities = model.head.probabilities(features.matrix(model.head.taps, np.arange(count)))
    return Guesses(model.classes, {id: row for id, row in rows.items() if row < count}, probabilities)
