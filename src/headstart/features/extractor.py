"""One pass over pictures: read and look up, decode and preprocess, run, each step beside the others."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones import Backbone
from headstart.data import Dataset
from headstart.errors import BackboneError, ImageError
from headstart.features.cache import FeatureCache, entry_key
from headstart.features.runtime import Graph, RuntimeInfo, load_graph, run_padded
from headstart.images.augment import View
from headstart.images.decode import decode_with_size
from headstart.images.thumbnail import image_stats, shrink, square_thumbnail, tiny_image

PIXELS = "pixels:16"  # a tap of its own: the whole picture at 16 x 16, for near duplicates
LOOK = "look:2:256:green"  # another: size as stored, and sharpness
BATCH = 8
AHEAD = 32 * 2**20  # bytes of pictures that are read and not yet run, or two batches a worker if those are more
FP16_LIMIT = 60_000.0
ITEM_TYPES = {1: np.uint8, 2: np.float16, 4: np.float32}

Vectors = dict[str, NDArray[np.generic]]  # by tap, one-dimensional


@dataclass
class Work:
    """What came of some pictures: vectors, or why one was refused; how many were computed, and the time."""

    found: dict[int, Vectors] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    squares: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    misses: int = 0
    decode: float = 0.0
    run: float = 0.0


@dataclass
class Decoded:
    """Pictures as the backbone takes them, by place, and what came of them so far."""

    pixels: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    work: Work = field(default_factory=Work)


@dataclass(frozen=True)
class Waiting:
    """A picture that is not in the cache: its place in the data set, and its bytes or pixels."""

    place: int
    source: bytes | NDArray[np.uint8]


@dataclass
class Pass:
    """A pass over the pictures of a data set (see ``features.embed``, whose options these are)."""

    dataset: Dataset
    backbone: Backbone
    taps: tuple[str, ...]
    cache: FeatureCache | None
    info: RuntimeInfo
    workers: int
    exact: bool
    view: View | None
    keep_squares: bool
    hashes: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.hashes = np.zeros((len(self.dataset), 32), np.uint8)

    def content(self, i: int) -> bytes:
        """The SHA-256 of picture ``i``, once it was looked up."""
        return bytes(self.hashes[i])

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """How many numbers each of ``taps`` has."""
        return (*(tap.channels for tap in self.backbone.taps), *(() if self.exact else (768, 3)))

    def load(self) -> Graph:
        """The backbone's graph, with all taps. Raises BackboneError."""
        workers = min(self.workers, -(-len(self.dataset) // BATCH))
        graph = load_graph(
            self.backbone.graph, runtime=self.info.name, precision=self.info.precision, workers=workers
        )  # fmt: skip
        missing = [tap.name for tap in self.backbone.taps if tap.name not in graph.outputs]
        if missing:
            raise BackboneError(f"The graph has no output {', '.join(missing)}; it is not the one it is said to be.")
        return graph

    def key(self, content: bytes) -> bytes:
        """One entry holds all taps of a picture: a tenth of the time of an entry each when thousands are read."""
        fingerprint, taps = self.backbone.preprocess.fingerprint, "\0".join(self.taps)
        view = "0" if self.view is None else self.view.key
        return entry_key(content, self.backbone.sha256, fingerprint, self.info.key, view, taps)

    def works(self) -> Iterator[Work]:
        """What came of the pictures, in any order.

        This thread reads and looks up, which two threads would do more slowly than one. Decoders decode, and runners
        run what is decoded, in turn; so pictures are decoded while the network loads. What is under way is bounded,
        so that memory stays flat.
        """
        pending: dict[Future[Work], int] = {}
        waiting: list[Waiting] = []
        graph: Future[Graph] | None = None
        decoders, runners = (ThreadPoolExecutor(self.workers, f"headstart-{name}") for name in ("decode", "run"))
        try:
            for start in range(0, len(self.dataset), BATCH):
                work, missing = self.look_up(range(start, min(start + BATCH, len(self.dataset))))
                yield work
                waiting += missing
                if len(waiting) >= BATCH or (waiting and start + BATCH >= len(self.dataset)):
                    # Loaded for the first picture that needs it: a warm run never does.
                    graph = graph or runners.submit(self.load)
                    for batch in _batches(waiting):
                        decoded = decoders.submit(self.decode, batch)
                        pending[runners.submit(self.run, decoded, graph)] = self.size(batch)
                    waiting = []
                while len(pending) >= 2 * self.workers and sum(pending.values()) > AHEAD:
                    yield from _finished(pending)
            while pending:
                yield from _finished(pending)
        finally:
            for pool in (decoders, runners):
                pool.shutdown(wait=False, cancel_futures=True)

    def look_up(self, indices: Sequence[int]) -> tuple[Work, list[Waiting]]:
        """Read pictures and fetch what the cache holds; the others wait."""
        work, sources = Work(), {}
        for i in indices:
            try:
                sources[i] = self.dataset.read(i)
            except ImageError as error:
                work.refused[i] = str(error)
                continue
            self.hashes[i] = np.frombuffer(_content_hash(sources[i]), np.uint8)
        if self.cache is not None:
            packed = self.cache.get_many([self.key(self.content(i)) for i in sources])
            for i, one in zip(sources, packed, strict=True):
                vectors = None if one is None else unpack(one, self.taps, self.widths)
                if vectors is not None:
                    work.found[i] = vectors
        return work, [Waiting(i, source) for i, source in sources.items() if i not in work.found]

    def size(self, batch: Sequence[Waiting]) -> int:
        """Bytes that pictures take until they were run, as they come and as the backbone takes them."""
        own = self.backbone.preprocess.height * self.backbone.preprocess.width * 3
        return sum(
            (one.source.nbytes if isinstance(one.source, np.ndarray) else len(one.source)) + own for one in batch
        )

    def decode(self, batch: Sequence[Waiting]) -> Decoded:
        """Decode and preprocess pictures."""
        done, prepare = Decoded(), self.backbone.preprocess
        began = time.thread_time()
        for each in batch:
            i = each.place
            try:
                image, stored = decode_with_size(each.source, at_least=prepare.at_least)
            except ImageError as error:
                done.work.refused[i] = str(error)
                continue
            picture = Image.fromarray(image)
            pixels = prepare(picture)
            done.pixels[i] = pixels if self.view is None else self.view(pixels, self.content(i))
            done.work.found[i] = {}
            if not self.exact:
                reduced = shrink(picture)
                done.work.found[i] = {PIXELS: tiny_image(reduced), LOOK: image_stats(stored, image)}
                if self.keep_squares:
                    done.work.squares[i] = square_thumbnail(reduced)
        done.work.decode = time.thread_time() - began
        return done

    def run(self, decoded: Future[Decoded], graph: Future[Graph]) -> Work:
        """Run the network on what was decoded."""
        pixels, work = decoded.result().pixels, decoded.result().work
        if pixels:
            network = graph.result()
            began = time.perf_counter()
            outputs = run_padded(network, np.stack(list(pixels.values())), self.backbone.batch)
            work.run = time.perf_counter() - began
            work.misses = len(pixels)
            paths = [self.dataset.items[i].path for i in pixels]
            for tap, values in outputs.items():
                for i, vector in zip(pixels, _as_fp16(values, paths, self.exact), strict=True):
                    work.found[i][tap] = vector
        return work


def _finished(pending: dict[Future[Work], int]) -> Iterator[Work]:
    """Wait until some of ``pending`` are done, take them out, and give what came of them."""
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        del pending[future]
        yield future.result()


def _batches(waiting: Sequence[Waiting]) -> Iterator[Sequence[Waiting]]:
    return (waiting[start : start + BATCH] for start in range(0, len(waiting), BATCH))


def pack(vectors: Vectors, taps: Sequence[str]) -> NDArray[np.uint8]:
    """The vectors of ``taps`` one after the other, each behind a byte that says how many bytes a number has."""
    parts = [bytes([vectors[tap].dtype.itemsize]) + vectors[tap].tobytes() for tap in taps]
    return np.frombuffer(b"".join(parts), np.uint8)


def unpack(packed: NDArray[np.generic], taps: Sequence[str], widths: Sequence[int]) -> Vectors | None:
    """The inverse of ``_pack``; None if the bytes are not that."""
    data, place, vectors = packed.tobytes(), 0, Vectors()
    for tap, width in zip(taps, widths, strict=True):
        size = data[place] if place < len(data) else 0
        if size not in ITEM_TYPES or place + 1 + size * width > len(data):
            return None
        vectors[tap] = np.frombuffer(data, ITEM_TYPES[size], width, place + 1)
        place += 1 + size * width
    return vectors if place == len(data) else None


def _content_hash(source: bytes | NDArray[np.uint8]) -> bytes:
    if isinstance(source, bytes):
        return hashlib.sha256(source).digest()
    return hashlib.sha256(f"array {source.shape} ".encode() + np.ascontiguousarray(source).tobytes()).digest()


def _as_fp16(values: NDArray[np.float32], paths: Sequence[str], exact: bool) -> list[NDArray[np.floating]]:
    """Vectors as fp16 where it can hold them: half the memory, and rounding far below the noise of a picture."""
    largest = np.abs(values).reshape(len(values), -1).max(axis=1, initial=0)
    if not np.isfinite(largest).all():
        path = paths[int(np.argmin(np.isfinite(largest)))]
        raise BackboneError(f"The backbone gives values that are not finite for {path}; try --precision fp32.")
    half = None if exact else np.clip(values, -FP16_LIMIT, FP16_LIMIT).astype(np.float16)
    return [
        value if half is None or top > FP16_LIMIT else half[row]
        for row, (value, top) in enumerate(zip(values, largest, strict=True))
    ]
