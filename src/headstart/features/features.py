"""From a dataset to the features of its images, in one pass."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.data import Dataset, Item, Quarantined
from headstart.data.label_sets import label_text
from headstart.features.cache import FeatureCache, entry_key
from headstart.features.extractor import (
    IMAGE_STATS,
    TINY_IMAGE,
    BatchResult,
    FeatureExtractor,
    load_backbone_graph,
    pack,
)
from headstart.features.runtime import Compute, Graph, RuntimeInfo
from headstart.heads.integers import (
    AnyVectors,
    IntegerVectors,
    beyond_range,
    deviations_in_steps,
    take_rows,
)
from headstart.images.augment import View

logger = logging.getLogger(__name__)

THUMBNAIL = "square:48:shrunk"  # part of the key of a cache entry of its own, which only the report reads
STORE_EVERY = 256  # cache entries
COARSE = 8  # steps: a channel that deviates by less is rounded coarsely
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)  # compared and hashed as one object: arrays have no one answer
class Features:
    """Features of the n images that could be read.

    ``values`` maps taps, shallow to deep, to vectors [n, channels]: ``IntegerVectors``, or float32 of
    ``embed_exactly``; both give real numbers where they are read by rows. ``tiny_images`` [n, 768] uint8 is the whole
    image at 16 x 16 RGB; ``image_stats`` [n, 4] float32 its height and width as stored, contrast and sharpness
    (``images.thumbnail``); ``content_hashes`` [n, 32] uint8 the SHA-256 of its bytes; ``index`` [n] its place in the
    dataset. ``quarantined`` names the images that could not be read. ``hits`` and ``misses`` count images found in the
    cache and not. ``seconds``: "total" wall time, "decode" and "features" summed over threads. ``remarks`` count, by
    what was not used of an image, the images that could be read; ``notes`` say it.
    """

    values: Mapping[str, AnyVectors]
    tiny_images: NDArray[np.uint8]
    image_stats: NDArray[np.float32]
    content_hashes: NDArray[np.uint8]
    index: NDArray[np.int64]
    quarantined: tuple[Quarantined, ...]
    runtime: RuntimeInfo
    hits: int
    misses: int
    seconds: Mapping[str, float]
    remarks: Mapping[str, int] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """Each remark once, with the number of images that it is about, and how many numbers were cut off."""
        cut_off = tuple(
            f"{count:,} of {len(self.index) * self.values[tap].shape[1]:,} values of {tap} are beyond the range of the "
            "integers in which features are kept, eight times that of the images it was measured on; they were cut off."
            for tap, count in self.cut_off.items()
            if count
        )
        return remark_notes(self.remarks) + cut_off

    @cached_property
    def cut_off(self) -> dict[str, int]:
        """How many values of each tap were beyond the range of its integers; none of float32."""
        whole = {tap: value for tap, value in self.values.items() if isinstance(value, IntegerVectors)}
        return {tap: beyond_range(value) for tap, value in whole.items()}

    @property
    def deepest_tap(self) -> str:
        """The name of the deepest tap."""
        return list(self.values)[-1]

    @property
    def deepest(self) -> AnyVectors:
        """The vectors [n, channels] of the deepest tap."""
        return self.values[self.deepest_tap]

    def vectors(self, rows: NDArray[np.integer]) -> dict[str, AnyVectors]:
        """Return the vectors of the images ``rows`` [m] by tap, [m, channels]; no copy where rows are consecutive."""
        selection: slice | NDArray[np.integer] = rows
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            selection = slice(int(rows[0]), int(rows[0]) + len(rows))
        return {tap: take_rows(value, selection) for tap, value in self.values.items()}

    def by_content(self, dataset: Dataset) -> Features:
        """Return them in the order of content hash, then label and path, training images before the others.

        So that what is computed of them does not depend on how the dataset lists its images or calls its files.
        """
        order = _content_order([dataset.items[i] for i in self.index], self.content_hashes)
        if np.array_equal(order, np.arange(len(order))):
            return self
        return replace(
            self,
            values=self.vectors(order),
            tiny_images=self.tiny_images[order],
            image_stats=self.image_stats[order],
            content_hashes=self.content_hashes[order],
            index=self.index[order],
        )

    def matrix(self, taps: Sequence[str], rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the vectors of ``taps`` side by side of the images ``rows`` [m], [m, d] float32: a head's input."""
        vectors = self.vectors(rows)
        return np.concatenate([np.asarray(vectors[tap], np.float32) for tap in taps], axis=1)

    def coarse_channels(self, rows: NDArray[np.integer]) -> dict[str, float]:
        """Return by tap the share of the channels whose deviation over the images ``rows`` [m] is below COARSE steps.

        0 for a tap that is not kept as integers.
        """
        return {
            tap: float((deviations_in_steps(value) < COARSE).mean()) if isinstance(value, IntegerVectors) else 0.0
            for tap, value in self.vectors(rows).items()
        }


Extract = Callable[..., Features]  # ``embed``, or a function with its parameters


def embed(
    dataset: Dataset,
    backbone: Backbone,
    compute: Compute | None = None,
    *,
    cache: FeatureCache | None = None,
    view: View | None = None,
    by_content: bool = False,
    load: Callable[[Backbone, Compute], Graph] = load_backbone_graph,
    progress: Progress | None = None,
) -> Features:
    """Compute the features of every readable image of a dataset, or of a ``view`` of each, in its order.

    Each number is rounded once, to an integer of the step of its channel (``backbones.steps``). With ``by_content`` the
    order is that of ``Features.by_content``, for which features are held once and not twice. ``load`` loads the
    backbone's graph. ``progress(done, total)`` is called from this thread. Unreadable images are quarantined. The same
    image gives the same numbers whatever its batch, to the runtime's rounding. Raises BackboneError, OptionError,
    MissingExtraError.
    """
    thumbnails = view is None and cache is not None and cache.thumbnails
    extractor = FeatureExtractor(dataset, backbone, compute or Compute(), cache, view, False, thumbnails, load)
    return _run(extractor, progress, by_content)


def embed_exactly(
    dataset: Dataset,
    backbone: Backbone,
    compute: Compute,
    *,
    load: Callable[[Backbone, Compute], Graph] = load_backbone_graph,
    is_loaded: bool = False,
    hashes: bool = True,
    progress: Progress | None = None,
) -> Features:
    """Compute features as float32, as the probabilities of a finished model need it.

    There are no ``tiny_images`` and ``image_stats``, nor ``content_hashes`` without ``hashes``, and nothing is cached.
    ``load`` loads the backbone's graph, and ``is_loaded`` says that it takes no time. Raises BackboneError,
    OptionError, MissingExtraError.
    """
    return _run(
        FeatureExtractor(dataset, backbone, compute, exact=True, load=load, is_loaded=is_loaded, hashes=hashes),
        progress,
    )


def _run(extractor: FeatureExtractor, progress: Progress | None, by_content: bool = False) -> Features:
    start = time.perf_counter()
    count, cache = len(extractor.dataset), extractor.cache
    arrays = _FeatureArrays(count)
    unsaved: dict[bytes, NDArray[np.uint8]] = {}
    try:
        for result in extractor.batches():
            arrays.add(result)
            if cache is not None and result.misses:
                for i, thumbnail in result.thumbnails.items():
                    unsaved[thumbnail_key(arrays.hash_of(i))] = thumbnail
                for i, vectors in result.vectors.items():
                    unsaved[extractor.key(arrays.hash_of(i))] = pack(vectors, [*extractor.entries])
                if len(unsaved) >= STORE_EVERY:
                    cache.put_many(unsaved)
                    unsaved = {}
            if progress is not None:
                progress(arrays.done, count)
    finally:  # also when it is interrupted: the next run continues from here
        if cache is not None and unsaved:
            cache.put_many(unsaved)
    features = arrays.features(extractor, time.perf_counter() - start, by_content)
    logger.info(
        "%s: %d images, %d from the cache, %d computed, %d could not be read",
        *(extractor.dataset.uri, count, features.hits, features.misses, len(features.quarantined)),
    )
    for image in features.quarantined:
        logger.debug("could not be read: %r: %s", image.path, image.reason)
    return features


def _content_order(items: Sequence[Item], content_hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the places [n] of items in the order of ``Features.by_content``."""
    keys = [
        (item.split != "train", bytes(content), str(label_text(item)), item.path)
        for item, content in zip(items, content_hashes, strict=True)
    ]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def thumbnail_key(content_hash: bytes) -> bytes:
    """Return the cache key of an image's small square (``images.thumbnail.square_thumbnail``)."""
    return entry_key(content_hash, "", "", "", "0", THUMBNAIL)


class _FeatureArrays:
    """The results of all images so far, each vector written at its final place: features are held once."""

    def __init__(self, count: int) -> None:
        self.hashes = np.zeros((count, 32), np.uint8)
        self.is_done = np.zeros(count, bool)
        self.errors: dict[int, str] = {}
        self.remarks: dict[int, list[str]] = {}
        self.arrays: dict[str, NDArray[Any]] = {}  # by name, [count, width]
        self.misses = 0
        self.decode_seconds = 0.0
        self.run_seconds = 0.0

    @property
    def done(self) -> int:
        """How many images have a result."""
        return int(np.count_nonzero(self.is_done)) + len(self.errors)

    def hash_of(self, i: int) -> bytes:
        """Return the SHA-256 of an image that has been read."""
        return bytes(self.hashes[i])

    def add(self, result: BatchResult) -> None:
        """Take over the result of a batch."""
        for i, content_hash in result.hashes.items():
            self.hashes[i] = np.frombuffer(content_hash, np.uint8)
        for i, vectors in result.vectors.items():
            self.is_done[i] = True
            for name, vector in vectors.items():
                array = self.arrays.get(name)
                if array is None:  # a large array takes memory only as it is filled
                    array = self.arrays[name] = np.empty((len(self.is_done), *vector.shape), vector.dtype)
                array[i] = vector
        self.errors |= result.errors
        self.remarks |= result.remarks
        self.misses += result.misses
        self.decode_seconds += result.decode_seconds
        self.run_seconds += result.run_seconds

    def features(self, extractor: FeatureExtractor, total_seconds: float, by_content: bool) -> Features:
        """Return the features of the images that could be read, in the order of the dataset or of their contents."""
        items = extractor.dataset.items
        index = np.flatnonzero(self.is_done)
        if by_content:
            index = index[_content_order([items[i] for i in index], self.hashes[index])]
        is_whole = np.array_equal(index, np.arange(len(self.is_done)))

        def take(name: str, width: int, dtype: type[np.generic]) -> NDArray[Any]:
            array = self.arrays.pop(name, None)  # one after the other: at most one is held twice
            if array is None:
                return np.empty((0, width), dtype)
            return array if is_whole else array[index]

        values: dict[str, AnyVectors] = {}
        for tap in extractor.backbone.taps:
            value = take(tap.name, tap.channels, np.float32 if extractor.exact else np.int16)
            values[tap.name] = value if extractor.exact else IntegerVectors(value, extractor.exponents[tap.name])
        return Features(
            values,
            take(TINY_IMAGE, 768, np.uint8),
            take(IMAGE_STATS, 4, np.float32),
            self.hashes[index] if extractor.hashes else np.empty((0, 32), np.uint8),
            index,
            tuple(Quarantined(items[i].path, reason) for i, reason in sorted(self.errors.items())),
            extractor.compute.resolve(),
            len(index) - self.misses,
            self.misses,
            {"total": total_seconds, "decode": self.decode_seconds, "features": self.run_seconds},
            self._remark_counts(),
        )

    def _remark_counts(self) -> dict[str, int]:
        return dict(Counter(remark for i, found in self.remarks.items() if i not in self.errors for remark in found))


def remark_notes(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return each remark of ``images.remarks`` as a note, with the number of images that it is about."""
    return tuple(remark.replace("{count}", f"{count:,}") for remark, count in counts.items())
