"""Classes, or labels of which an image may have several, that are empty, small or far smaller than another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from headstart.check.finding import Finding
from headstart.data import Dataset
from headstart.features.features import Features

MIN_IMAGES = 10  # of a class in the training split
MAX_RATIO = 10  # of the sizes of the largest and the smallest class


def find_class_issues(dataset: Dataset, features: Features) -> Iterator[Finding]:
    """Find classes without images in a split, with few images for training, or far smaller than the largest class.

    Only images that can be read count. Labels of which an image may have several are of all sizes: they are found
    where they have no or few images.
    """
    items = [dataset.items[i] for i in features.index]
    for split in dataset.splits:
        own = (item.labels or () if dataset.is_multi_label else (item.label,) for item in items if item.split == split)
        counts = Counter(name for names in own for name in names)
        for name in dataset.label_names or dataset.classes:
            count = counts[name]
            if count == 0:
                yield Finding("empty_class", (), "certain", 1.0, "add images", f"{name} has no images in {split}")
            elif count < MIN_IMAGES and split == "train":
                why = f"{name} has too few images in {split}: {count}"
                yield Finding("empty_class", (), "certain", 1 - count / MIN_IMAGES, "add images", why)
    counts = Counter(item.label for item in items if item.split == "train" and item.label is not None)
    if len(counts) < 2:
        return
    sizes = counts.most_common()
    (largest, most), (smallest, fewest) = sizes[0], sizes[-1]
    if most >= MAX_RATIO * fewest:
        confidence = float(np.clip(1 - MAX_RATIO * fewest / most, 0.5, 1))
        why = f"{largest} has {most} images, {smallest} has {fewest}"
        yield Finding("imbalance", (), "certain", confidence, "add images", why)
