"""Duplicates: the same image as identical files, or re-encoded, resized, mirrored or cropped.

Whole copies are found by 16 x 16 pixels that correlate almost perfectly (``splits.groups``), crops by template matching
(``check.crops``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.check.crops import find_crops
from headstart.check.finding import Finding
from headstart.data import Dataset, Item
from headstart.data.label_sets import label_matrix
from headstart.features.features import Features
from headstart.splits.groups import duplicate_pairs
from headstart.splits.pairs import DisjointSets


def find_duplicates(
    dataset: Dataset, features: Features, *, search_crops: bool = True
) -> tuple[list[Finding], NDArray[np.int64]]:
    """Return the findings of each set of duplicates, and the number [n] of the set of each image of ``features``.

    An image without duplicates is a set of one. The search for crops reads images again; the rest reads none.
    """
    sets = DisjointSets(len(features.index))
    file_ids = sets.union_equal_rows(features.content_hashes)
    pairs = [(int(first), int(second), value) for first, second, value in duplicate_pairs(features.tiny_images)]
    for first, second, _ in pairs:
        sets.union(first, second)
    if search_crops:
        crop_pairs = find_crops(dataset, features, sets.labels())
        for first, second, _ in crop_pairs:
            sets.union(first, second)
        pairs += crop_pairs
    set_ids = sets.labels()
    correlations = np.ones(len(set_ids))  # of each set the lowest of its pairs
    for first, _, correlation in pairs:
        set_id = set_ids[first]
        correlations[set_id] = min(correlations[set_id], correlation)
    findings: list[Finding] = []
    for members in _sets_of_several(set_ids):
        items = [dataset.items[features.index[i]] for i in members]
        is_identical = len(np.unique(file_ids[members])) == 1
        confidence = 1.0 if is_identical else float(correlations[set_ids[members[0]]])
        findings += _describe(items, is_identical, confidence)
    return findings, set_ids


def _sets_of_several(set_ids: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the images of each set of two or more, in ascending order."""
    order = np.argsort(set_ids, kind="stable")
    sizes = np.bincount(set_ids)
    ends = np.cumsum(sizes)
    return (order[end - size : end] for size, end in zip(sizes, ends, strict=True) if size > 1)


def _describe(items: Sequence[Item], is_identical: bool, confidence: float) -> Iterator[Finding]:
    """Yield the findings of one set of duplicates: a leak, conflicting labels or both, else that it is a duplicate."""
    files = tuple(item.path for item in items)
    splits = {item.split for item in items}
    conflict = _conflict(items)
    copies = "the same file" if is_identical else "nearly the same image"
    certainty = "certain" if is_identical else "likely"
    if len(splits) > 1:
        why = f"{copies} in {' and '.join(sorted(splits))}"
        yield Finding("leak", files, certainty, confidence, "remove it from all splits but one", why)
    if conflict:
        why = f"{copies} {conflict}"
        yield Finding("conflicting_labels", files, certainty, confidence, "correct the label or remove it", why)
    if len(splits) == 1 and not conflict:
        kind = "exact_duplicate" if is_identical else "near_duplicate"
        is_grouped = items[0].group is not None and len({item.group for item in items}) == 1
        group = "leave them in their group" if is_grouped else "put them in one group"
        yield Finding(kind, files, certainty, confidence, f"keep only one, or {group}", copies)


def _conflict(items: Sequence[Item]) -> str:
    """Return how the labels of copies contradict each other, empty where they do not.

    Where images have several labels, a label contradicts if it holds of some copies and not of others; where it is not
    known, it does not.
    """
    if all(item.labels is None for item in items):
        labels = {item.label for item in items}
        return f"labelled {' and '.join(sorted(map(str, labels)))}" if len(labels) > 1 else ""
    labelled = [item for item in items if item.labels is not None]
    names = sorted({name for item in labelled for name in item.labels or ()})
    values, known = label_matrix(labelled, names)
    differs = (values & known).any(axis=0) & (~values & known).any(axis=0)
    if not differs.any():
        return ""
    sets = sorted({f"[{'; '.join(sorted(item.labels or ()))}]" for item in labelled})
    return f"labelled {' and '.join(sets)}, which differ in {', '.join(names[i] for i in np.flatnonzero(differs))}"
