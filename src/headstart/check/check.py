"""What is wrong with a set of pictures: copies, leaks, wrong labels, foreign and faulty pictures.

copies.py    the same picture twice: same bytes, re-encoded, resized, mirrored, cropped
looks.py     one picture by itself: size, shape, light, sharpness, colour
labels.py    what the other pictures say of a label; pictures that belong to no class
table.py     a table of all pictures with the findings, to edit and to learn from
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart import backbones
from headstart.check.duplicates import find_copies
from headstart.check.finding import KINDS, Finding
from headstart.check.labels import disagreements, foreign, suspects
from headstart.check.quality import odd_looks
from headstart.check.table import write_table
from headstart.data import Dataset
from headstart.errors import DataError
from headstart.features.cache import FeatureCache
from headstart.features.features import Features, embed
from headstart.splits.groups import DisjointSets, find_groups

__all__ = ["KINDS", "Checked", "Finding", "check", "check_fitted", "write_table"]

FEW = 10  # pictures: a class with fewer is near empty
UNEVEN = 10  # times as many in the largest class as in the smallest


@dataclass(frozen=True)
class Checked:
    """The findings, in the order of ``KINDS``, the surest of a kind first; and the group of every picture, by path.

    A group holds copies and pictures of one scene: what has to be left out together.
    """

    findings: tuple[Finding, ...]
    groups: Mapping[str, int]


def check(
    dataset: Dataset,
    *,
    backbone: str = "headstart-s",
    cache: FeatureCache | None = None,
    runtime: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """What is wrong with a data set, in all its splits.

    One pass reads the features and looks at each picture, or finds both in ``cache``; pairs that could be crops are
    read again. Raises DataError where no picture can be read, and what ``features.embed`` raises.
    """
    network = backbones.load(backbone)
    features = embed(
        dataset, network, cache=cache, runtime=runtime, precision=precision, workers=workers, progress=progress
    )
    if not len(features.index):
        raise DataError(f"None of the {len(dataset)} pictures of {dataset.uri} can be read.")
    found = list(_unreadable(dataset, features))
    copies, families = find_copies(dataset, features)
    found += copies
    found += odd_looks(dataset, features, network.preprocess.at_least)
    found += _classes(dataset, features)
    groups = _groups(dataset, features, families)
    found += suspects(dataset, features, groups)
    found += foreign(dataset, features, families)
    paths = (dataset.items[i].path for i in features.index)
    return Checked(_in_order(found), dict(zip(paths, groups.tolist(), strict=True)))


def check_fitted(
    dataset: Dataset, features: Features, classes: Sequence[str], probabilities: NDArray[np.float64],
    needed: tuple[int, int],
) -> tuple[Finding, ...]:  # fmt: skip
    """The findings of ``check`` from what a fit has at hand, but for crops: those take a look at pairs of pictures.

    ``probabilities`` [n, k] are the answers to the pictures of ``features`` with each one's group left out,
    ``needed`` the size a decoder keeps (``Preprocess.at_least``).
    """
    copies, families = find_copies(dataset, features, crops=False)
    found = [*_unreadable(dataset, features), *copies, *odd_looks(dataset, features, needed)]
    found += _classes(dataset, features)
    items, number = [dataset.items[i] for i in features.index], {name: i for i, name in enumerate(classes)}
    labels = np.array([number.get(str(item.label), -1) for item in items])
    known = np.flatnonzero(labels >= 0)
    found += disagreements([items[i].path for i in known], labels[known], classes, probabilities[known])
    found += foreign(dataset, features, families)
    return _in_order(found)


def _in_order(found: Sequence[Finding]) -> tuple[Finding, ...]:
    order = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(sorted(found, key=lambda each: (order[each.kind], -each.confidence, each.files)))


def _groups(dataset: Dataset, features: Features, families: NDArray[np.int64]) -> NDArray[np.int64]:
    """The group [n] of every picture: copies, scenes, and what the data set itself puts together."""
    items = [dataset.items[i] for i in features.index]
    labels = np.unique([str(item.label) for item in items], return_inverse=True)[1]
    deepest = list(features.values)[-1]
    scenes = find_groups(features.content_hashes, features.tiny_images, features.values[deepest], labels).index
    given = np.unique(
        [f"group {item.group}" if item.group else f"{i}" for i, item in enumerate(items)], return_inverse=True
    )[1]
    linked = DisjointSets(len(items))
    for kind in (families, scenes, given):
        linked.union_equal_rows(kind[:, None])
    return linked.labels()


def _unreadable(dataset: Dataset, features: Features) -> Iterator[Finding]:
    for refused in (*dataset.quarantined, *features.quarantined):
        yield Finding("unreadable", (refused.path,), 1.0, "replace or remove it", refused.reason)


def _classes(dataset: Dataset, features: Features) -> Iterator[Finding]:
    """Classes that are empty, nearly so, missing from a split, or far smaller than another."""
    items = [dataset.items[i] for i in features.index]
    for split in dataset.splits:
        counts = Counter(item.label for item in items if item.split == split)
        for name in dataset.classes:
            if not counts[name]:
                yield Finding("empty_class", (), 1.0, "add pictures", f"{name} has no picture in {split}")
            elif counts[name] < FEW and split == "train":
                few = f"{name} has {counts[name]} in {split}"
                yield Finding("empty_class", (), 1 - counts[name] / FEW, "add pictures", few)
    counts = Counter(item.label for item in items if item.split == "train" and item.label is not None)
    if len(counts) > 1:
        (largest, most), (smallest, least) = counts.most_common()[0], counts.most_common()[-1]
        if most >= UNEVEN * least:
            uneven = f"{largest} has {most} pictures, {smallest} has {least}"
            yield Finding("imbalance", (), float(np.clip(1 - UNEVEN * least / most, 0.5, 1)), "add pictures", uneven)
