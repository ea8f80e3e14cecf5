"""Make the int8 version of a backbone from images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones import Backbone
from headstart.backbones.int8 import write_int8
from headstart.data import Dataset
from headstart.errors import DataError, ImageError, OptionError
from headstart.features.runtime import onnxruntime_version
from headstart.images.decoding import decode

MIN_IMAGES = 16
MAX_IMAGES = 1000
MAX_BYTES = 2**30  # of the images as the backbone takes them


def make_int8(
    backbone: Backbone,
    datasets: Sequence[Dataset],
    count: int = 300,
    seed: int = 0,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Backbone:
    """Quantise a backbone, write its int8 version beside its graph, and return that.

    ``count`` images, about as many from each dataset, are drawn with ``seed`` from the training images of the datasets;
    they measure the ranges of activations, and their labels are not used. ``progress(read, count)`` is called after
    each. Raises OptionError, DataError, BackboneError.
    """
    import onnx

    from headstart.backbones.onnx.quantise import quantise

    height, width = backbone.preprocess.height, backbone.preprocess.width
    most = min(MAX_IMAGES, MAX_BYTES // (3 * height * width))
    if not MIN_IMAGES <= count <= most:
        raise OptionError(f"{count} images cannot be used; give {MIN_IMAGES} to {most:,}.")
    if backbone.precision == "int8":
        raise OptionError(f"{backbone.id} is int8 already.")
    images = calibration_images(backbone, datasets, count, seed, progress)
    if len(images) < MIN_IMAGES:
        raise DataError(f"Only {len(images)} of the images can be read; expected {MIN_IMAGES} or more.")
    content = backbone.graph if isinstance(backbone.graph, bytes) else backbone.graph.read_bytes()
    quantised = quantise(onnx.load_model_from_string(content), images, backbone.batch)
    record = {"images": len(images), "seed": seed, "onnxruntime": onnxruntime_version()}
    return write_int8(backbone, quantised.SerializeToString(deterministic=True), record)


def calibration_images(
    backbone: Backbone,
    datasets: Sequence[Dataset],
    count: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.uint8]:
    """Return up to ``count`` readable images [n, height, width, 3] as the backbone takes them."""
    found: list[NDArray[np.uint8]] = []
    preprocess = backbone.preprocess
    for done, dataset in enumerate(datasets):
        training = dataset.split("train") if "train" in dataset.splits else dataset
        wanted = (count - len(found)) // (len(datasets) - done)
        for i in np.random.default_rng(seed).permutation(len(training)).tolist():
            if not wanted:
                break
            try:
                image = decode(training.read(i), min_size=preprocess.min_size, sample_range=preprocess.sample_range)
            except ImageError:
                continue
            found.append(preprocess(Image.fromarray(image)))
            wanted -= 1
            if progress is not None:
                progress(len(found), count)
    return np.stack(found) if found else np.empty((0, preprocess.height, preprocess.width, 3), np.uint8)
