"""Which images a report shows one by one, under which paths, and which of them show one scene."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset
from headstart.errors import OptionError
from headstart.features import Features
from headstart.report.data import MAX_IMAGES
from headstart.splits.scenes import Labels
from headstart.splits.split import group_images

MAX_GROUPED = 5_000  # validation images: all pairs are compared
MAX_TEXT = 2_000  # characters of a name
MAX_THUMBNAILS = 320
MANY_IMAGES = 3_000  # beyond, a tile is 32 pixels wide, not 48
COLUMNS = 50  # of the sprite sheet
Rows = NDArray[np.int64]


def choose(order: Rows) -> Rows:
    """Return which of n images are shown, ``order`` [n] being their numbers, the most important first.

    Of more than ``MAX_IMAGES``, half are the most important ones, and the others spread evenly over the rest.
    """
    count = len(order)
    if count <= MAX_IMAGES:
        return np.arange(count)
    first = order[: MAX_IMAGES // 2]
    rest = np.setdiff1d(np.arange(count), first)
    spread = rest[np.linspace(0, len(rest) - 1, MAX_IMAGES - len(first)).round().astype(int)]
    return np.sort(np.concatenate([first, spread]))


def tile_side(count: int) -> int:
    """Return how many pixels wide the small squares of so many images are."""
    return 48 if count <= MANY_IMAGES else 32


class Paths:
    """Paths without the folders that all have in common, and the index of each image that is shown."""

    def __init__(self, dataset: Dataset, features: Features, rows: Rows) -> None:
        paths = [dataset.items[int(i)].path for i in features.index]
        first, last = min(paths, default=""), max(paths, default="")  # what these share, all between them share
        differing = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
        shared = next(differing, min(len(first), len(last)))
        self._prefix = first[: first.rfind("/", 0, shared) + 1]
        self.index_of = {paths[row]: i for i, row in enumerate(rows)}
        self.short_paths = tuple(self.shorten(paths[row]) for row in rows)

    def shorten(self, path: str) -> str:
        """Return a path without the common folders."""
        return path.removeprefix(self._prefix)[:MAX_TEXT]


def validation_groups(
    features: Features, dataset: Dataset, rows: Rows, labels: Labels, group_by: str
) -> dict[int, int]:
    """Return the group of each validation image by its row of the features; of very many none.

    They are grouped as the training images were, by ``group_by``, or by themselves where those are named by what
    validation images lack. ``labels`` are those of the images ``rows`` [n], as for ``group_images``.
    """
    if not 0 < len(rows) <= MAX_GROUPED:
        return {}
    try:
        found = group_images(features, dataset, rows, labels, group_by)
    except OptionError:
        found = group_images(features, dataset, rows, labels, "auto")
    return dict(zip(rows.tolist(), found.index.tolist(), strict=True))
