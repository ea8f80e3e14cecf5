"""From the images of a fit to rows that are kept, and from rows back to what a fit needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.backbones.steps import with_steps
from headstart.classifier.embedded import EmbeddedImages, check_validation_share
from headstart.classifier.options import FitOptions
from headstart.data import Dataset, Quarantined
from headstart.data.dataset import Item, ReadImage, Skipped
from headstart.data.label_sets import label_matrix, label_text, with_label_text
from headstart.errors import DataError, ImageError, OptionError
from headstart.features import Features
from headstart.features.image_rows import load_backbone, rows_of, unread_of
from headstart.features.rows import FeatureRows, Machine, Rows, Source, Unread
from headstart.features.rows_folder import check_labels
from headstart.features.runtime import RuntimeInfo
from headstart.heads.integers import IntegerVectors
from headstart.machine import instruction_set
from headstart.model.model import describe_backbone
from headstart.splits.named import parse_group_by

MAX_NAMED = 3  # images in a note


def check_options(options: FitOptions) -> None:
    """Raise OptionError for options of a fit that rows cannot repeat."""
    why = ""
    if options.head == "mlp":
        why = "an mlp head is trained in steps whose order is part of the result; give another --head"
    elif options.views > 1:
        why = "views are made of the images; leave --views out"
    elif parse_group_by(options.group_by).kind == "exif":
        why = "the times at which images were taken are not kept; give --group-by auto, folder or name:PATTERN"
    if why:
        raise OptionError(f"A model of kept features cannot be made this way: {why}.")


def describe_source(
    backbone: Backbone, options: FitOptions, runtime: RuntimeInfo, golden: Mapping[str, NDArray[np.float32]]
) -> Source:
    """Describe what computes rows here, without what is known of the images."""
    return Source(
        {**describe_backbone(backbone), "id": options.backbone},
        {tap.name: tap.exponents or () for tap in with_steps(backbone).taps},
        options.input_options,
        backbone.preprocess,
        (Machine(runtime, instruction_set(), golden),),
    )


def with_dataset(source: Source, dataset: Dataset, notes: Sequence[str], unread: Sequence[Unread]) -> Source:
    """Return the source with what is known of its images, in an order that is always the same."""
    refused = [Unread(image.path, image.reason) for image in dataset.quarantined]
    return replace(
        source,
        uri=dataset.uri,
        layout=dataset.layout,
        is_multi_label=dataset.is_multi_label,
        class_names=dataset.class_names,
        notes=tuple(sorted({*notes})),
        skipped=tuple(sorted({*dataset.skipped}, key=lambda item: (item.path, item.reason))),
        unread=tuple(sorted({*refused, *unread}, key=lambda image: (image.path, image.reason))),
    )


def keep_rows(embedded: EmbeddedImages) -> FeatureRows:
    """Return the rows of the images of a fit, in the order of all kept rows."""
    dataset, features = embedded.dataset, embedded.features
    assert embedded.golden is not None
    source = describe_source(embedded.backbone, embedded.options, features.runtime, embedded.golden)
    source = with_dataset(source, dataset, embedded.notes, unread_of(features, dataset))
    return FeatureRows(source, rows_of(features, dataset, source).in_order())


def embedded_from(
    features: FeatureRows, options: FitOptions, backbone: Backbone | None = None, reader: ReadImage | None = None
) -> EmbeddedImages:
    """Return what a fit needs from rows: those of training images, then of validation images, in their order.

    The backbone is loaded where it is not given; ``reader`` may read images by the number of the row. What is left out
    is named in ``dataset.skipped``, and counted in the notes. Raises OptionError, DataError, BackboneError.
    """
    check_options(options)
    _check_limits(features)
    source = features.source
    rows = with_joint_labels(features.rows) if source.is_multi_label else features.rows
    kept, left_out = usable_rows(rows)
    if len(rows) and not any(rows.splits[i] == "train" for i in kept):
        raise DataError(f"{source.uri} has no features of training images with a label; compute some.")
    kept = [i for split in ("train", "validation") for i in kept if rows.splits[i] == split]
    usable = rows.select(kept)
    items = [
        Item(usable.paths[i], usable.labels[i], usable.splits[i], usable.groups[i], kept[i], usable.folders[i])
        for i in range(len(usable))
    ]
    listed = [image for image in source.unread if image.label and image.split != "test"]
    items += [Item(image.path, image.label, image.split, key=-1) for image in listed]
    classes, label_names = sorted({str(item.label) for item in items}), list[str]()
    if source.is_multi_label:
        items = [with_label_text(item, item.label) for item in items]
        classes, label_names = [], sorted({name for item in items for name in (*(item.labels or ()), *item.unknown)})
    reasons = Counter(item.reason for item in left_out)
    notes = [f"Left out: {count:,} images, {reason}; skipped.csv names them." for reason, count in reasons.items()]
    dataset = Dataset(
        source.uri,
        tuple(items),
        tuple(classes),
        (*source.skipped, *left_out),
        tuple(Quarantined(image.path, image.reason) for image in source.unread if not image.label),
        reader or _no_images,
        layout=source.layout,
        class_names=source.class_names,
        label_names=tuple(label_names),
    )
    check_validation_share(dataset, options)
    machine = source.machines[0]
    values = Features(
        {tap: IntegerVectors(usable.values[tap], np.array(steps, np.int8)) for tap, steps in source.taps.items()},
        usable.tiny_images,
        usable.image_stats,
        usable.content_hashes,
        np.arange(len(usable)),
        tuple(Quarantined(image.path, image.reason) for image in listed),
        machine.runtime,
        0,
        0,
        {"total": 0.0, "decode": 0.0, "features": 0.0},
    )
    backbone = load_backbone(source) if backbone is None else backbone
    options = replace(options, backbone=source.backbone["id"], input_options=source.input_options)
    return EmbeddedImages(
        dataset, options, backbone, values, notes=(*source.notes, *notes), golden=dict(machine.golden)
    )


def _check_limits(features: FeatureRows) -> None:
    """Raise OptionError for rows that a model cannot keep, though each part of them was within the limits."""
    try:
        check_labels(features.source, features.rows.labels)
    except ValueError as error:
        uri = features.source.uri
        raise OptionError(f"{uri} cannot be fitted to: {error}; make the model of fewer parts.") from None


def _no_images(key: int) -> bytes:
    raise ImageError(f"Row {key} has features alone, no image.")


def _training_items(features: FeatureRows) -> list[Item]:
    """Return the training images with a label; where they may have several, with all that is known of these."""
    rows, is_multi_label = features.rows, features.source.is_multi_label
    train = [i for i, split in enumerate(rows.splits) if split == "train" and rows.labels[i] is not None]
    if not is_multi_label:
        return [Item(rows.paths[i], rows.labels[i], "train") for i in train]
    return [with_label_text(Item(rows.paths[i], None, "train"), rows.labels[i]) for i in train]


def present_labels(features: FeatureRows) -> set[str]:
    """Return the classes, or labels, that some training image has."""
    items = _training_items(features)
    return {name for item in items for name in (item.labels or ((item.label,) if item.label is not None else ()))}


def labels_to_learn(features: FeatureRows) -> set[str]:
    """Return the classes of the training images; where they may have several labels, those that some have, not all."""
    present = present_labels(features)
    if not features.source.is_multi_label:
        return present
    items, names = _training_items(features), sorted(present)
    values, known = label_matrix(items, names)
    return {names[c] for c in np.flatnonzero((~values & known).any(axis=0))}


def with_joint_labels(rows: Rows) -> Rows:
    """Return the rows of images with several labels, those of one image with all that any of them knows.

    A label is known of an image if it is known of one of its rows. Rows that contradict each other stay as they are;
    so do those for tests.
    """
    by_hash: dict[bytes, list[int]] = {}
    for i, image in enumerate(rows.hashes):
        if rows.labels[i] is not None and rows.splits[i] != "test":
            by_hash.setdefault(image, []).append(i)
    labels = [*rows.labels]
    for same in by_hash.values():
        if len({rows.labels[i] for i in same}) > 1:
            items = [with_label_text(Item(rows.paths[i], None, rows.splits[i]), rows.labels[i]) for i in same]
            names = sorted({name for item in items for name in (*(item.labels or ()), *item.unknown)})
            values, known = label_matrix(items, names)
            yes, no = (values & known).any(axis=0), (~values & known).any(axis=0)
            if not (yes & no).any():
                joint = replace(
                    items[0],
                    labels=tuple(names[c] for c in np.flatnonzero(yes)),
                    unknown=tuple(names[c] for c in np.flatnonzero(~(yes | no))),
                    is_rest_unknown=all(item.is_rest_unknown for item in items),
                )
                for i in same:
                    labels[i] = label_text(joint)
    return replace(rows, labels=tuple(labels))


def usable_rows(rows: Rows) -> tuple[list[int], list[Skipped]]:
    """Return the indices of the rows to fit to, in their order, and the images that are left out, and why.

    An image counts once, however many rows it has: the first of them. One that has rows of different labels or splits
    is left out, since none can be trusted; so are test images and those without a label.
    """
    by_hash: dict[bytes, list[int]] = {}
    left_out = []
    for i, image in enumerate(rows.hashes):
        if rows.labels[i] is None:
            left_out.append(Skipped(rows.paths[i], "without a label"))
        elif rows.splits[i] == "test":
            left_out.append(Skipped(rows.paths[i], "for tests, not for a fit"))
        else:
            by_hash.setdefault(image, []).append(i)
    kept = []
    for same in by_hash.values():
        if len({rows.labels[i] for i in same}) > 1:
            left_out += [Skipped(rows.paths[i], "the same image with another label") for i in same]
        elif len({rows.splits[i] for i in same}) > 1:
            left_out += [Skipped(rows.paths[i], "the same image in training and validation") for i in same]
        else:
            kept.append(same[0])
            left_out += [Skipped(rows.paths[i], "the same image as another one") for i in same[1:]]
    return kept, sorted(left_out, key=lambda item: (item.reason, item.path))
