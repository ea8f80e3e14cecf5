"""Rows of the images of a dataset, and the backbone that rows were computed by: what a worker needs, and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart import backbones
from headstart.backbones import Backbone
from headstart.backbones.steps import with_steps
from headstart.data import Dataset
from headstart.data.label_sets import label_text
from headstart.errors import ImageError, OptionError
from headstart.features.extractor import content_hash
from headstart.features.features import Features
from headstart.features.rows import Rows, Source, Unread
from headstart.heads.integers import AnyVectors, IntegerVectors


def rows_of(features: Features, dataset: Dataset, source: Source) -> Rows:
    """Return the rows of the images of a dataset that could be read, in its order, as ``source`` describes them."""
    items = [dataset.items[i] for i in features.index]
    return Rows(
        features.content_hashes,
        tuple(item.path for item in items),
        tuple(label_text(item) for item in items),
        tuple(item.split for item in items),
        tuple(item.group for item in items),
        tuple(item.folder for item in items),
        features.tiny_images,
        features.image_stats,
        {tap: _integers(features.values[tap], count) for tap, count in source.channels.items()},
    )


def _integers(vectors: AnyVectors, channels: int) -> NDArray[np.int16]:
    """Return the whole numbers [n, channels] of the vectors of a tap, where there are no images, too."""
    return vectors.integers if isinstance(vectors, IntegerVectors) else np.empty((0, channels), np.int16)


def unread_of(features: Features, dataset: Dataset) -> tuple[Unread, ...]:
    """Return the images of a dataset that could not be read, with the SHA-256 of those that have bytes."""
    reasons = {image.path: image.reason for image in features.quarantined}
    unread = []
    for i in np.setdiff1d(np.arange(len(dataset)), features.index).tolist():
        item = dataset.items[i]
        unread.append(
            Unread(item.path, reasons.get(item.path, ""), label_text(item) or "", item.split, image_hash(dataset, i))
        )
    return tuple(unread)


def image_hash(dataset: Dataset, index: int) -> str:
    """Return the SHA-256 of the bytes of an image in hexadecimal, empty where it cannot be read."""
    try:
        source = dataset.read(index)
    except ImageError:
        return ""
    return content_hash(source).hex()


def load_backbone(source: Source) -> Backbone:
    """Load the backbone by which rows were computed.

    Raises BackboneError, and OptionError where it is another one here.
    """
    id, precision = source.backbone.get("id", ""), source.backbone.get("precision", "fp32")
    backbone = backbones.load(id, options=source.input_options, precision=precision)
    if {*source.taps} - {tap.name for tap in backbone.taps}:  # those that a cut has named
        backbone = backbones.load(id, options=source.input_options, taps=[*source.taps], precision=precision)
    if backbone.sha256 != source.backbone.get("sha256"):
        raise OptionError(
            f"The features were computed by another {id} (its sha256 begins with "
            f"{source.backbone.get('sha256', '')[:12]}, that of the one here with {backbone.sha256[:12]}); use the "
            "version of Headstart, and the file, that they were computed with."
        )
    backbone = with_steps(backbone)
    steps = {tap.name: tap.exponents for tap in backbone.taps}
    if any(steps.get(tap) != exponents for tap, exponents in source.taps.items()):
        raise OptionError(f"The features were rounded to other steps than those of {id} here; compute them again.")
    taps = tuple(tap for tap in backbone.taps if tap.name in source.taps)
    return replace(backbone, taps=taps, preprocess=source.preprocess, notes=(), assumption=None)
