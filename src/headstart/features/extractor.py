"""Feature extraction: read and look up, decode and preprocess, run the network, each step beside the others."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones import Backbone
from headstart.backbones.steps import steps_sha256, with_steps
from headstart.data import Dataset
from headstart.errors import BackboneError, ImageError, OptionError
from headstart.features.cache import FeatureCache, entry_key
from headstart.features.runtime import Compute, Graph, Outputs, load_graph, run_padded
from headstart.heads.integers import round_to_steps
from headstart.images.augment import View
from headstart.images.decoding import decode_with_size
from headstart.images.remarks import remarks
from headstart.images.thumbnail import image_stats, shrink, square_thumbnail, tiny_image

# Two more entries beside the taps of each image; the names are parts of cache keys.
TINY_IMAGE = "tiny_image:16"  # the whole image at 16 x 16, for near duplicates
IMAGE_STATS = "image_stats:3:96:bends"  # size as stored, contrast and sharpness
BATCH_SIZE = 8
MAX_BYTES_IN_FLIGHT = 32 * 2**20  # images that are read and not yet run, or two batches a worker if those are more
MAX_BYTES = 256 * 2**20  # of such images in any case, except for a single one
ITEM_TYPES = {1: np.uint8, 2: np.int16, 4: np.float32}

Pixels = NDArray[np.uint8]
Vectors = dict[str, NDArray[np.generic]]  # by tap, one-dimensional


@dataclass(frozen=True)
class PendingImage:
    """An image that is not in the cache: its place in the dataset, its bytes or pixels, and their SHA-256."""

    index: int
    source: bytes | Pixels
    content_hash: bytes


@dataclass
class BatchResult:
    """Result for some images, by their place in the dataset: vectors, or why one cannot be read.

    ``hashes`` are SHA-256 of the images' bytes, ``remarks`` those of ``images.remarks``, ``thumbnails`` their small
    squares where those are kept. ``misses`` counts vectors that were computed, not found in the cache;
    ``decode_seconds`` and ``run_seconds`` were spent.
    """

    vectors: dict[int, Vectors] = field(default_factory=dict)
    hashes: dict[int, bytes] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    remarks: dict[int, list[str]] = field(default_factory=dict)
    thumbnails: dict[int, Pixels] = field(default_factory=dict)
    misses: int = 0
    decode_seconds: float = 0.0
    run_seconds: float = 0.0


@dataclass
class DecodedBatch:
    """Images as the backbone takes them, by their place in the dataset, and the result so far."""

    pixels: dict[int, Pixels] = field(default_factory=dict)
    result: BatchResult = field(default_factory=BatchResult)


def load_backbone_graph(backbone: Backbone, compute: Compute) -> Graph:
    """Load the graph of a backbone. Raises BackboneError where it does not have all taps.

    Raises OptionError where int8 is asked of a graph that is not quantised.
    """
    if compute.precision == "int8" and backbone.precision != "int8":
        raise OptionError(
            f"{backbone.id} computes in {backbone.precision}; load its int8 version, or leave out --precision int8."
        )
    graph = load_graph(backbone.graph, compute)
    missing = [tap.name for tap in backbone.taps if tap.name not in graph.outputs]
    if missing:
        raise BackboneError(f"The graph has no output {', '.join(missing)}; it does not fit its description.")
    return graph


def run_backbone(graph: Graph, backbone: Backbone, images: Pixels, batch: int | None = None) -> Outputs:
    """Return the values [n, channels] of each tap of a backbone for images [n, height, width, 3].

    Batches are filled up to ``batch`` images, where the backbone does not itself ask for a size. Raises BackboneError,
    also where the graph gives values of another shape than its description says.
    """
    outputs = run_padded(graph, images, backbone.batch or batch)
    for tap in backbone.taps:
        size = outputs[tap.name].size
        if size != len(images) * tap.channels:
            raise BackboneError(
                f"The graph gives {size} values of {tap.name} for {len(images)} images; its description says "
                f"{tap.channels} for each."
            )
    return {tap.name: outputs[tap.name].reshape(len(images), tap.channels) for tap in backbone.taps}


@dataclass(frozen=True)
class FeatureExtractor:
    """The steps from the images of a dataset to vectors; ``features.embed`` documents the options.

    ``load`` loads the backbone's graph; ``is_loaded`` says that it takes no time. Without ``hashes`` the content of
    images is not hashed, which for an array of 300 x 300 takes a tenth as long as to predict it.
    """

    dataset: Dataset
    backbone: Backbone
    compute: Compute
    cache: FeatureCache | None = None
    view: View | None = None
    exact: bool = False
    thumbnails: bool = False
    load: Callable[[Backbone, Compute], Graph] = load_backbone_graph
    is_loaded: bool = False
    hashes: bool = True
    max_bytes_in_flight: int = MAX_BYTES_IN_FLIGHT

    @cached_property
    def entries(self) -> dict[str, int]:
        """The names of the vectors of an image, and how many numbers each has."""
        taps = {tap.name: tap.channels for tap in self.backbone.taps}
        return taps if self.exact else {**taps, TINY_IMAGE: 768, IMAGE_STATS: 4}

    @cached_property
    def rounded_backbone(self) -> Backbone:
        """The backbone with the steps of its taps, which are measured here where it comes without."""
        return with_steps(self.backbone)

    @cached_property
    def exponents(self) -> dict[str, NDArray[np.int8]]:
        """The exponents [channels] of the steps to which the values of each tap are rounded."""
        return {tap.name: np.array(tap.exponents, np.int8) for tap in self.rounded_backbone.taps}

    @cached_property
    def _key_parts(self) -> tuple[str, str, str, str, str]:
        view = "0" if self.view is None else self.view.key
        runtime, names = self.compute.resolve().key, "\0".join(self.entries)
        network = f"{self.backbone.sha256} {steps_sha256(self.rounded_backbone.taps)}"
        return network, self.backbone.preprocess.fingerprint, runtime, view, names

    def key(self, content_hash: bytes) -> bytes:
        """Return the cache key of an image. One entry holds all its vectors: thousands are read ten times as fast."""
        return entry_key(content_hash, *self._key_parts)

    def batches(self) -> Iterator[BatchResult]:
        """Yield results until every image has one, in any order.

        This thread reads and looks up, which two threads would do more slowly than one. One pool decodes while another
        runs the network on what is decoded; so images are decoded while the network loads. What is under way is
        bounded, so that memory stays flat.
        """
        if len(self.dataset) == 1 and self.is_loaded:
            yield from self._single()
            return
        in_flight: dict[Future[BatchResult], int] = {}  # and the bytes of its images
        pending: list[PendingImage] = []
        graph: Future[Graph] | None = None
        threads, count = self.compute.threads, len(self.dataset)
        decoders, runners = (ThreadPoolExecutor(threads, f"headstart-{name}") for name in ("decode", "run"))
        try:
            start = 0
            while start < count:
                result, missing, start = self.look_up(start)
                yield result
                pending += missing
                if pending and (len(pending) >= BATCH_SIZE or start >= count or self.size(pending) > MAX_BYTES // 4):
                    # Loaded for the first image that needs it: where all are in the cache, never.
                    graph = graph or runners.submit(self.load_graph)
                    in_flight |= self._submit(pending, decoders, runners, graph)
                    pending, missing = [], []
                while len(in_flight) >= 2 * threads and sum(in_flight.values()) > self.max_bytes_in_flight:
                    yield from _finished(in_flight)
                while in_flight and sum(in_flight.values()) > MAX_BYTES:
                    yield from _finished(in_flight)
            while in_flight:
                yield from _finished(in_flight)
        finally:
            for pool in (decoders, runners):
                pool.shutdown(wait=False, cancel_futures=True)

    def _single(self) -> Iterator[BatchResult]:
        """Yield the result of the only image in this thread: threads would take as long to start as it takes."""
        result, pending, _ = self.look_up(0)
        yield self.run(self.decode(pending), self.load_graph) if pending else result

    def _submit(
        self,
        images: Sequence[PendingImage],
        decoders: ThreadPoolExecutor,
        runners: ThreadPoolExecutor,
        graph: Future[Graph],
    ) -> dict[Future[BatchResult], int]:
        """Start what is to be done for some images; return the results to come, and the bytes that they hold."""
        return {
            runners.submit(self._run_later, decoders.submit(self.decode, batch), graph): self.size(batch)
            for batch in _in_batches(images)
        }

    def load_graph(self) -> Graph:
        """Load the backbone's graph, with all taps. Raises BackboneError."""
        batches = -(-len(self.dataset) // BATCH_SIZE)
        info = self.compute.resolve()
        threads = min(self.compute.threads, batches)
        return self.load(self.backbone, Compute(info.name, info.precision, threads, self.compute.fixed))

    def look_up(self, start: int) -> tuple[BatchResult, list[PendingImage], int]:
        """Read images from the place ``start`` on and get from the cache what it holds; the other images are pending.

        Also returns the place where the next call starts: a batch is smaller where the files are large.
        """
        result, sources, size, end = BatchResult(), {}, 0, start
        while end < min(start + BATCH_SIZE, len(self.dataset)) and size <= MAX_BYTES // 4:
            i, end = end, end + 1
            try:
                sources[i] = self.dataset.read(i)
            except ImageError as error:
                result.errors[i] = str(error)
                continue
            size += _size(sources[i])
            if self.hashes:
                result.hashes[i] = content_hash(sources[i])
            if found := remarks(sources[i], self.backbone.preprocess.sample_range):
                result.remarks[i] = found
        if self.cache is not None:
            entries = self.cache.get_many([self.key(result.hashes[i]) for i in sources])
            for i, entry in zip(sources, entries, strict=True):
                vectors = None if entry is None else unpack(entry, self.entries)
                if vectors is not None:
                    result.vectors[i] = vectors
        pending = [
            PendingImage(i, source, result.hashes.get(i, b""))
            for i, source in sources.items()
            if i not in result.vectors
        ]
        return result, pending, end

    def size(self, batch: Sequence[PendingImage]) -> int:
        """Return the bytes that images take until they were run, as they come and as the backbone takes them."""
        prepared = self.backbone.preprocess.height * self.backbone.preprocess.width * 3
        return sum(_size(image.source) + prepared for image in batch)

    def decode(self, batch: Sequence[PendingImage]) -> DecodedBatch:
        """Decode and preprocess images."""
        decoded, preprocess = DecodedBatch(), self.backbone.preprocess
        start = time.thread_time()
        for pending in batch:
            i = pending.index
            try:
                image, stored_size = decode_with_size(
                    pending.source,
                    min_size=preprocess.min_size,
                    sample_range=preprocess.sample_range,
                    scaled=preprocess.is_scaled,
                )
            except ImageError as error:
                decoded.result.errors[i] = str(error)
                continue
            pil_image = Image.fromarray(image)
            pixels = preprocess(pil_image)
            decoded.pixels[i] = pixels if self.view is None else self.view(pixels, pending.content_hash)
            decoded.result.vectors[i] = {}
            if not self.exact:
                reduced = shrink(pil_image)
                decoded.result.vectors[i] = {
                    TINY_IMAGE: tiny_image(reduced),
                    IMAGE_STATS: image_stats(stored_size, reduced),
                }
                if self.thumbnails:
                    decoded.result.thumbnails[i] = square_thumbnail(reduced)
        decoded.result.decode_seconds = time.thread_time() - start
        return decoded

    def _run_later(self, decoded: Future[DecodedBatch], graph: Future[Graph]) -> BatchResult:
        return self.run(decoded.result(), graph.result)

    def run(self, decoded: DecodedBatch, load: Callable[[], Graph]) -> BatchResult:
        """Run the network, which is only loaded if an image could be decoded."""
        pixels, result = decoded.pixels, decoded.result
        if pixels:
            network = load()
            start = time.perf_counter()
            batch = BATCH_SIZE if self.compute.fixed else None
            outputs = run_backbone(network, self.backbone, np.stack(list(pixels.values())), batch)
            result.run_seconds = time.perf_counter() - start
            result.misses = len(pixels)
            paths = [self.dataset.items[i].path for i in pixels]
            for tap, values in outputs.items():
                _check_finite(values, paths)
                vectors = values if self.exact else round_to_steps(values, self.exponents[tap])
                for i, vector in zip(pixels, vectors, strict=True):
                    result.vectors[i][tap] = vector
        return result


def _finished(in_flight: dict[Future[BatchResult], int]) -> Iterator[BatchResult]:
    """Wait until some of ``in_flight`` are done, take them out and yield their results."""
    done, _ = wait(in_flight, return_when=FIRST_COMPLETED)
    for future in done:
        del in_flight[future]
        yield future.result()


def _in_batches(pending: Sequence[PendingImage]) -> Iterator[Sequence[PendingImage]]:
    return (pending[start : start + BATCH_SIZE] for start in range(0, len(pending), BATCH_SIZE))


def pack(vectors: Vectors, names: Sequence[str]) -> NDArray[np.uint8]:
    """Put vectors one after the other, each behind a byte that says how many bytes a number has."""
    parts = [bytes([vectors[name].dtype.itemsize]) + vectors[name].tobytes() for name in names]
    return np.frombuffer(b"".join(parts), np.uint8)


def unpack(packed: NDArray[np.generic], widths: dict[str, int]) -> Vectors | None:
    """Undo ``pack`` for vectors of these names and ``widths``; None if the bytes do not fit."""
    data, position, vectors = packed.tobytes(), 0, Vectors()
    for name, width in widths.items():
        size = data[position] if position < len(data) else 0
        if size not in ITEM_TYPES or position + 1 + size * width > len(data):
            return None
        vectors[name] = np.frombuffer(data, ITEM_TYPES[size], width, position + 1)
        position += 1 + size * width
    return vectors if position == len(data) else None


def _size(source: bytes | Pixels) -> int:
    return source.nbytes if isinstance(source, np.ndarray) else len(source)


def content_hash(source: bytes | Pixels) -> bytes:
    """Return the SHA-256 of the bytes of an image file, or of pixels and their shape."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).digest()
    return hashlib.sha256(f"array {source.shape} ".encode() + np.ascontiguousarray(source).tobytes()).digest()


def _check_finite(values: NDArray[np.float32], paths: Sequence[str]) -> None:
    """Raise BackboneError for values [batch, channels] that are not finite; ``paths`` name the images."""
    is_finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not is_finite.all():
        path = paths[int(np.argmin(is_finite))]
        raise BackboneError(f"The backbone gives values that are not finite for {path}; try --precision fp32.")
