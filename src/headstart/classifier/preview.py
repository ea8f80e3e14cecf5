"""What a fit would read, and about how long it would take: counts, and a few images run as a trial."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import backbones
from headstart.backbones import Backbone, store
from headstart.backbones.int8 import require_int8
from headstart.classifier.embedded import check_has_labels, training_and_validation_images
from headstart.classifier.options import FitOptions
from headstart.classifier.run_info import MAX_NAMED
from headstart.data import SPLITS, Dataset
from headstart.data.dataset import Item, paths_by_reason
from headstart.data.label_sets import label_matrix
from headstart.errors import ImageError
from headstart.features.extractor import load_backbone_graph
from headstart.features.features import embed_exactly
from headstart.heads.label_ridge import LabelTargets
from headstart.splits.label_split import labels_to_learn
from headstart.splits.named import group_names, parse_group_by

TRIAL_IMAGES = 8
BASE_BYTES = 330 * 2**20  # of a fit before its features: Python, the runtime and its network (docs/benchmarks.md)
BYTES_BESIDE_TAPS = 768 + 4 * 4 + 32  # kept of an image: its 16 x 16 pixels, size and edges, its hash
BYTES_PER_NUMBER = 2  # features are int16


@dataclass(frozen=True)
class Cost:
    """About what a fit takes: ``seconds`` for the features of ``images``, and ``bytes`` of memory at its peak.

    The time is that of loading the network, and for each image (and view) that of ``trial`` images here. The memory is
    a fixed part, and for each image (and view) the width of its features.
    """

    images: int
    trial: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Preview:
    """How a fit would read a dataset.

    ``counts`` are the images of each class, or with each label, by split, of all splits that have images, and
    ``images`` those of all; ``groups`` the count,
    largest and method of the groups of training images, None where only the fit finds them. ``endings_read`` and
    ``endings_skipped`` count files by ending. ``cost`` is None where it cannot be measured yet, with the reason in
    ``notes``.
    """

    dataset: Dataset
    counts: dict[str, dict[str, int]]
    images: dict[str, int]
    groups: dict[str, Any] | None
    endings_read: dict[str, int]
    endings_skipped: dict[str, int]
    cost: Cost | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        dataset, kind = self.dataset, "label" if self.dataset.is_multi_label else "class"
        return {
            "data": dataset.uri,
            "layout": dataset.layout,
            "images": self.images,
            "labels" if kind == "label" else "classes": [{kind: name, **n} for name, n in self.counts.items()],
            "groups": self.groups,
            "skipped": dataset.skip_counts,
            "skipped_files": {reason: paths[:MAX_NAMED] for reason, paths in paths_by_reason(dataset.skipped).items()},
            "quarantined": [asdict(image) for image in dataset.quarantined],
            "endings": {"read": self.endings_read, "skipped": self.endings_skipped},
            "cost": None if self.cost is None else asdict(self.cost),
            "notes": list(self.notes),
        }


def preview(dataset: Dataset, options: FitOptions | None = None) -> Preview:
    """Say how a fit would read a dataset, and about what it would take. Nothing is written, and nothing downloaded.

    Up to ``TRIAL_IMAGES`` images are read. Raises HeadstartError where the fit would refuse the data or the options.
    """
    options = options or FitOptions()
    options.compute.resolve()
    if dataset.is_multi_label:
        options.require_multi_label_options()
    else:
        options.require_single_label_options()
        check_has_labels(dataset)
    images = training_and_validation_images(dataset, options)
    splits = [split for split in SPLITS if split in images.splits or split in dataset.splits]
    counts, image_counts = _counts((*images.items, *dataset.split("test").items), images, splits)
    backbone = _prepared(options.backbone)
    if backbone is not None and options.compute.precision == "int8":
        backbone = require_int8(backbone, options.backbone)
    notes = [*images.notes, *_label_notes(images, options)]
    if backbone is None:
        notes.append(f"{options.backbone} is not prepared yet, so the time and memory it needs are not known.")
    if isinstance(options.validation, float | int):
        notes.append(f"The fit holds out {options.validation:.0%} of the groups of training images for validation.")
    cost = None if backbone is None else _cost(images, backbone, options, notes)
    return Preview(
        dataset,
        counts,
        image_counts,
        _groups(images.split("train"), options.group_by),
        _endings(item.path for item in dataset.items),
        _endings(skipped.path for skipped in dataset.skipped if skipped.reason == "not an image"),
        cost,
        tuple(notes),
    )


def _counts(
    items: Sequence[Item], images: Dataset, splits: Sequence[str]
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Return the numbers of images of each class, or with each label, and of all, by split."""
    counts = {name: dict.fromkeys(splits, 0) for name in images.label_names or images.classes}
    image_counts = dict.fromkeys(splits, 0)
    for item in items:
        names = item.labels if images.is_multi_label else None if item.label is None else (item.label,)
        if names is not None:
            image_counts[item.split] += 1
            for name in names:
                counts[name][item.split] += 1
    return counts, image_counts


def _label_notes(images: Dataset, options: FitOptions) -> list[str]:
    """Check the classes and what is set for them, or the labels, and return notes. Raises OptionError, DataError."""
    train = images.split("train")
    if images.is_multi_label:
        values, known = label_matrix(train.items, images.label_names)
        chosen, notes = labels_to_learn(images, values & known, ~values & known)
        targets = LabelTargets(values[:, chosen], known[:, chosen], np.arange(len(values)))
        targets.check([images.label_names[i] for i in chosen])
        return notes
    options.class_settings(images)
    if len({item.label for item in train.items}) < 2:
        return ["A classifier needs training images of at least two classes; a fit would refuse these."]
    return []


def _groups(images: Dataset, group_by: str) -> dict[str, Any] | None:
    """Return the groups that are known before images are read: those that are named, or one of each image."""
    by = parse_group_by(group_by)
    if by.kind == "none":
        return {"count": len(images), "largest": 1, "method": "none"}
    if by.kind == "exif":
        return None
    groups = group_names(images, range(len(images)), by)
    named = Counter(group for group in groups if group is not None)
    if not named or (by.kind in ("folder", "name") and None in groups):
        return None
    method = "column" if by.kind == "auto" else by.method
    return {"count": len(named) + groups.count(None), "largest": max(named.values()), "method": method}


def _prepared(id: str) -> Backbone | None:
    """Return a backbone if it can be loaded without a download, an export or a write. Raises OptionError."""
    if ":" not in id:  # built in, or imported
        return backbones.load(id)
    entries = (entry for entry in store.entries() if id in (entry.name, entry.id))
    return next((found for entry in entries if (found := store.read(entry.folder, id)) is not None), None)


def _cost(images: Dataset, backbone: Backbone, options: FitOptions, notes: list[str]) -> Cost | None:
    """Run a few images, spread over the data, and reckon what all of them take; None if none of them can be read."""
    compute = options.compute
    start = time.perf_counter()
    graph = load_backbone_graph(backbone, compute)
    load_seconds = time.perf_counter() - start
    rows = np.linspace(0, len(images) - 1, min(TRIAL_IMAGES, len(images))).astype(int).tolist()
    trial, unread = _in_memory(images.select(rows))  # a fit reads in order, not to and fro in a table
    if unread:
        notes.append(f"{len(unread)} of {len(rows)} images tried could not be read: {unread[0]}")
    if not len(trial):
        return None

    def run(repeats: int) -> float:
        features = embed_exactly(trial.select([*range(len(trial))] * repeats), backbone, compute, load=lambda *_: graph)
        return features.seconds["total"]

    run(1)  # the first batch of a network takes longer
    repeats = 2 * compute.threads  # so that every thread has work, as in a fit
    seconds_per_image = min(run(repeats), run(repeats)) / (repeats * len(trial))
    width = sum(tap.channels for tap in backbone.taps)
    bytes_per_image = BYTES_PER_NUMBER * width * options.views + BYTES_BESIDE_TAPS
    further = (options.views - 1) * len(images.split("train"))
    return Cost(
        len(images),
        len(trial),
        load_seconds + (len(images) + further) * seconds_per_image,
        BASE_BYTES + len(images) * bytes_per_image,
    )


def _in_memory(images: Dataset) -> tuple[Dataset, list[str]]:
    """Return the images that can be read, held in memory, and the path and reason of those that cannot."""
    contents: dict[int, bytes | NDArray[np.uint8]] = {}
    unread = []
    for i, item in enumerate(images.items):
        try:
            contents[item.key] = images.read(i)
        except ImageError as error:
            unread.append(f"{item.path}: {error}")
    readable = images.select(i for i, item in enumerate(images.items) if item.key in contents)
    return replace(readable, reader=contents.__getitem__), unread


def _endings(paths: Iterable[str]) -> dict[str, int]:
    """Count files by ending in lower case, the most frequent first; "none" is that of a name without one."""
    return dict(Counter(PurePosixPath(path).suffix.lower() or "none" for path in paths).most_common())
