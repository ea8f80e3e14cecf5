"""The finished model of a fit, and the images by which it proves itself elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.classifier.rendered_golden import rendered_images
from headstart.data import Dataset
from headstart.features import Features
from headstart.heads.head import Head
from headstart.heads.ood import OodDetector
from headstart.heads.selection import SelectedHead
from headstart.images.decoding import decode
from headstart.images.preprocess import Preprocess
from headstart.model.golden import GoldenImages
from headstart.model.model import HASH_BYTES, GoldenSample, Model, describe_backbone
from headstart.stats.conformal import ConformalThresholds

if TYPE_CHECKING:
    from headstart.classifier.fit import TrainingData

GOLDEN_IMAGES = 8  # that a model carries to prove itself elsewhere


def make_model(
    data: TrainingData,
    selected: SelectedHead,
    thresholds: ConformalThresholds,
    graph: bytes,
    golden: GoldenSample,
    run: Mapping[str, Any],
) -> Model:
    """Put the model together."""
    backbone, split = data.backbone, data.split
    return Model(
        split.classes,
        backbone.preprocess,
        describe_backbone(backbone),
        selected.head,
        selected.ood,
        thresholds,
        graph,
        hashlib.sha256(graph).hexdigest(),
        backbone.batch,
        golden,
        run,
        np.unique(data.features.content_hashes[split.train, :HASH_BYTES], axis=0),
        data.settings.rule(split.classes),
    )


def rendered_golden(
    golden: Mapping[str, NDArray[np.float32]], parts: tuple[Head, OodDetector], preprocess: Preprocess, precision: str
) -> GoldenImages:
    """Return the rendered images, whose features by tap are ``golden``, and what a head and detector predict."""
    images, (head, ood) = rendered_images(), parts
    pixels = _pixels([images.read(i) for i in range(len(images))], preprocess)
    vectors = np.concatenate([golden[tap] for tap in head.taps], axis=1)
    return GoldenImages(pixels, head.probabilities(vectors), ood.scores(vectors), precision)


def golden_images(
    dataset: Dataset,
    features: Features,
    backbone: Backbone,
    train: NDArray[np.int64],
    parts: tuple[Head, OodDetector],
    *,
    golden: Mapping[str, NDArray[np.float32]] | None = None,
) -> GoldenImages:
    """Return a few images, and what a head and a detector predict for them.

    They are spread over the ``train`` rows of the features. Where the model is one of rows, which has no images, they
    are rendered, and ``golden`` are their features by tap.
    """
    precision, (head, ood) = features.runtime.precision, parts
    if golden is not None:
        return rendered_golden(golden, parts, backbone.preprocess, precision)
    rows = train[np.linspace(0, len(train) - 1, min(GOLDEN_IMAGES, len(train))).astype(int)]
    pixels = _pixels((dataset.read(int(i)) for i in features.index[rows]), backbone.preprocess)
    vectors = features.matrix(head.taps, rows)
    return GoldenImages(pixels, head.probabilities(vectors), ood.scores(vectors), precision)


def _pixels(sources: Iterable[bytes | NDArray[np.uint8]], preprocess: Preprocess) -> list[NDArray[np.uint8]]:
    """Decode and prepare images as a model gets them."""
    size, samples, scaled = preprocess.min_size, preprocess.sample_range, preprocess.is_scaled
    return [preprocess(decode(source, min_size=size, sample_range=samples, scaled=scaled)) for source in sources]
