"""Engine: one model, loaded, that answers images of requests."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import BackboneError
from headstart.features import Compute
from headstart.features.extractor import load_backbone_graph, run_backbone
from headstart.features.runtime import Outputs
from headstart.images.decoding import decode_with_size
from headstart.model.explain import Explainer
from headstart.model.golden import Verification
from headstart.model.label_predictions import MultiLabelPredictions
from headstart.model.model import Model
from headstart.model.predictions import Predictions
from headstart.model.predictor import Predictor, predictions_of
from headstart.serve.batching import Batcher

Pixels = NDArray[np.uint8]
MAX_PIXELS = 40_000_000  # of an image once decoded
MAX_MAPS = 8  # in an answer, each some hundred numbers


@dataclass(frozen=True)
class Pools:
    """The threads of a server: ``decode`` and ``run`` images, and ``load`` models.

    No other threads decode, so ``threads`` also bounds how many decoded images there are at a time.
    """

    threads: int
    decode: ThreadPoolExecutor
    run: ThreadPoolExecutor
    load: ThreadPoolExecutor

    @classmethod
    def of(cls, threads: int) -> Pools:
        """Make pools for ``threads`` cores."""
        decode, run, load = (
            ThreadPoolExecutor(count, f"headstart-{name}")
            for name, count in (("decode", threads), ("run", threads), ("load", 1))
        )
        return cls(threads, decode, run, load)

    def close(self) -> None:
        """End the threads."""
        for pool in (self.decode, self.run, self.load):
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Activation:
    """Where a model looked: what each location [h, w] adds to the log-odds of class ``positive`` over ``negative``.

    Of a label that an image may have beside others ``negative`` is None: the log-odds are those of having it or not.
    ``box`` is the part of the upright image that the network saw: left, top, width and height, as shares of its sides.
    """

    values: NDArray[np.float64]
    positive: int
    negative: int | None
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Answer:
    """The prediction for one image, with its class activation map where it was asked for and there is one.

    Of several labels an image there is one for each of the first ``MAX_MAPS`` labels that hold.
    """

    predictions: Predictions
    activations: tuple[Activation, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """An image as the network takes it, and (width, height) of what it was made of."""

    pixels: Pixels
    size: tuple[int, int]


@dataclass(frozen=True)
class Engine:
    """A model that answers images in an event loop, decoding and running in the threads of ``pools``."""

    model: Model
    pools: Pools
    batcher: Batcher
    verification: Verification
    explainer: Explainer | None

    @classmethod
    def load(cls, folder: str | os.PathLike[str], compute: Compute, pools: Pools, max_batch: int) -> Engine:
        """Read a model folder, and prove on its golden sample that this machine answers as it should.

        Raises ModelError, VerifyError, BackboneError, OptionError.
        """
        predictor = Predictor.load(folder, compute)
        verification = predictor.verify()
        model, backbone = predictor.model, predictor.model.as_backbone()
        settings = predictor.compute_of_model
        beside = load_backbone_graph(backbone, replace(settings, workers=pools.threads))
        alone = load_backbone_graph(backbone, replace(settings, workers=1)) if pools.threads > 1 else beside

        def run(pixels: Pixels, is_alone: bool) -> Outputs:
            return run_backbone(alone if is_alone else beside, backbone, pixels)

        height, width = model.preprocess.height, model.preprocess.width
        for is_alone in (False, True):  # the first image takes longer than all others
            run(np.zeros((1, height, width, 3), np.uint8), is_alone)
        batcher = Batcher(run, pools.run, max_batch=max_batch, streams=pools.threads)
        return cls(model, pools, batcher, verification, Explainer.of_locations(model))

    async def answer(self, image: bytes, *, explain: bool = False) -> Answer:
        """Answer the bytes of an image file. Raises ImageError, BackboneError."""
        loop = asyncio.get_running_loop()
        async with self.batcher.place():
            with self.batcher.announce():
                decoded = await loop.run_in_executor(self.pools.decode, self.decode, image)
            predictions = await self.predict(decoded.pixels)
            if not explain:
                return Answer(predictions)
            activations = await loop.run_in_executor(self.pools.run, self.explain, decoded, predictions)
        return Answer(predictions, activations)

    async def predict(self, pixels: Pixels) -> Predictions:
        """Predict one image [height, width, 3] as the network takes it. Raises BackboneError."""
        outputs = await self.batcher.submit(pixels)
        probabilities, distance = outputs["probabilities"].astype(np.float64), outputs["distance"].astype(np.float64)
        if not (np.isfinite(probabilities).all() and np.isfinite(distance).all()):
            raise BackboneError("The network gives values that are not finite for this image; try --precision fp32.")
        return predictions_of(self.model, ("",), np.zeros(1, np.int64), probabilities, distance.reshape(-1))

    def decode(self, image: bytes) -> Decoded:
        """Decode and preprocess an image as ``predict`` does. Raises ImageError."""
        preprocess = self.model.preprocess
        pixels, _ = decode_with_size(
            image,
            min_size=preprocess.min_size,
            sample_range=preprocess.sample_range,
            scaled=preprocess.is_scaled,
            max_pixels=MAX_PIXELS,
        )
        height, width = pixels.shape[:2]
        return Decoded(preprocess(Image.fromarray(pixels)), (width, height))

    def explain(self, image: Decoded, predictions: Predictions) -> tuple[Activation, ...]:
        """Return the class activation maps of an image, none where the model has none."""
        if self.explainer is None:
            return ()
        width, height = image.size
        left, top, right, bottom = self.model.preprocess.box(width, height)
        box = (left / width, top / height, (right - left) / width, (bottom - top) / height)
        if isinstance(predictions, MultiLabelPredictions):
            labels = predictions.holding(0)[:MAX_MAPS]
            (maps,) = self.explainer.label_activations(image.pixels[None], [labels])
            return tuple(Activation(values, label, None, box) for label, values in zip(labels, maps, strict=True))
        positive, negative = predictions.ranking(0)[:2]
        ((values, _),) = self.explainer.activations(image.pixels[None], np.array([positive]), np.array([negative]))
        return (Activation(values, positive, negative, box),)
