"""From pictures to features: read, look up, and for what is new decode, preprocess and run, in one pass."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.augment import View
from headstart.backbones import Backbone
from headstart.cache import Cache, entry_key
from headstart.datasets import Dataset, Quarantined
from headstart.errors import BackboneError, ImageError
from headstart.images import decode
from headstart.looks import look, shrunk, square, tiny
from headstart.runtime import Graph, RuntimeInfo, cores, describe, load_graph, pad_batch

PIXELS = "pixels:16"  # a tap of its own: the whole picture at 16 x 16, for near duplicates
LOOK = "look:2:256:green"  # another: size as stored, and sharpness
SMALL = "square:48:shrunk"  # a cache entry of its own, which only the report reads
BATCH = 8
STORE_EVERY = 256
FP16_LIMIT = 60_000.0
ITEM_TYPES = {1: np.uint8, 2: np.float16, 4: np.float32}

Vectors = dict[str, NDArray[np.generic]]  # by tap, one-dimensional


@dataclass(frozen=True)
class Features:
    """Features of n pictures that could be read.

    ``values`` maps taps, shallow to deep, to [n, channels] float16, or float32 where a value is beyond
    60,000; ``pixels`` [n, 768] uint8 is the whole picture at 16 x 16 RGB; ``looks`` [n, 3] float32 its height and
    width as stored and its sharpness; ``content`` [n, 32] uint8 the SHA-256 of its bytes; ``index`` [n] its place in
    the data set. ``hits`` and ``misses`` count pictures found in the
    cache and not. ``seconds``: "total" wall time, "decode" and "features" summed over workers.
    """

    values: Mapping[str, NDArray[np.floating]]
    pixels: NDArray[np.uint8]
    looks: NDArray[np.float32]
    content: NDArray[np.uint8]
    index: NDArray[np.int64]
    quarantined: tuple[Quarantined, ...]
    runtime: RuntimeInfo
    hits: int
    misses: int
    seconds: Mapping[str, float]

    def at(self, rows: NDArray[np.integer]) -> dict[str, NDArray[np.floating]]:
        """The vectors of the pictures ``rows`` [m] by tap, each [m, channels]; no copy where rows are in order."""
        inner: slice | NDArray[np.integer] = rows
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            inner = slice(int(rows[0]), int(rows[0]) + len(rows))
        return {tap: value[inner] for tap, value in self.values.items()}

    def matrix(self, taps: Sequence[str], rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Of the pictures ``rows`` [m] the vectors of ``taps`` side by side [m, d] float32: what a head takes."""
        vectors = self.at(rows)
        return np.concatenate([np.asarray(vectors[tap], np.float32) for tap in taps], axis=1)


@dataclass
class _Work:
    """What came of some pictures: vectors, or why one was refused; how many were computed, and the time."""

    found: dict[int, Vectors] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    squares: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    misses: int = 0
    decode: float = 0.0
    run: float = 0.0


@dataclass
class _Gathered:
    """What came of all pictures so far, each number at its final place: features are held once."""

    values: dict[str, NDArray[np.generic]]  # by tap [n, channels] (or [n]); rows of ``there`` count
    there: NDArray[np.bool_]
    refused: dict[int, str]
    misses: int = 0
    decode: float = 0.0
    run: float = 0.0

    @classmethod
    def of(cls, count: int) -> _Gathered:
        return cls({}, np.zeros(count, bool), {})

    @property
    def done(self) -> int:
        return int(np.count_nonzero(self.there)) + len(self.refused)

    def add(self, work: _Work, wanted: Sequence[str]) -> None:
        for i, vectors in work.found.items():
            self.there[i] = True
            for tap in wanted:
                if tap not in vectors:  # an exact answer has no looks
                    continue
                vector, rows = vectors[tap], self.values.get(tap)
                if rows is None:  # a large array takes memory as it is filled
                    rows = self.values[tap] = np.empty((len(self.there), *vector.shape), vector.dtype)
                elif vector.dtype.itemsize > rows.dtype.itemsize:
                    rows = self.values[tap] = rows.astype(vector.dtype)
                rows[i] = vector
        self.refused |= work.refused
        self.misses += work.misses
        self.decode += work.decode
        self.run += work.run


@dataclass(frozen=True)
class _Waiting:
    """A picture that is not in the cache: its place in the data set, and its bytes or pixels."""

    place: int
    source: bytes | NDArray[np.uint8]


def embed(
    dataset: Dataset,
    backbone: Backbone,
    *,
    taps: Sequence[str] | None = None,
    cache: Cache | None = None,
    runtime: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    exact: bool = False,
    view: View | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """Features of every readable picture of a data set, or of a ``view`` of each, in its order.

    ``taps`` restricts what is returned; all of the backbone's are computed and stored in one pass. With
    ``exact`` values stay float32 (a finished model's probabilities need it; use no cache with it), and there are no
    ``pixels`` and ``looks``, which nobody asks a finished model for.
    ``progress(done, total)`` is called from this thread. Unreadable pictures are quarantined. The same
    picture gives the same numbers whatever its batch, to the runtime's rounding. Raises BackboneError,
    OptionError, MissingExtraError.
    """
    started = time.perf_counter()
    info = describe(runtime, precision)
    names = tuple(tap.name for tap in backbone.taps)
    wanted = names if taps is None else tuple(taps)
    step = _Step(
        dataset, backbone, names if exact else (*names, PIXELS, LOOK), cache, info, workers or cores(), exact, view
    )
    gathered = _Gathered.of(len(dataset))
    unsaved: dict[bytes, NDArray[np.uint8]] = {}
    try:
        for work in step.works():
            gathered.add(work, (*wanted, PIXELS, LOOK))
            if cache is not None and work.misses:
                unsaved |= {small_key(step.content(i)): small for i, small in work.squares.items()}
                for i, vectors in work.found.items():
                    unsaved[step.key(step.content(i))] = _pack(vectors, step.taps)
                if len(unsaved) >= 2 * STORE_EVERY:
                    cache.put_many(unsaved)
                    unsaved = {}
            if progress is not None:
                progress(gathered.done, len(dataset))
    finally:  # also when it is stopped: the next run goes on from here
        if cache is not None and unsaved:
            cache.put_many(unsaved)
    return _collect(step, gathered, wanted, time.perf_counter() - started)


def with_views(
    features: Features, rows: NDArray[np.integer], views: Sequence[View], dataset: Dataset, backbone: Backbone,
    **options: Any,
) -> dict[str, NDArray[np.floating]]:  # fmt: skip
    """Vectors by tap of the pictures ``rows`` [m], then of each further view of them: [m * (1 + views), channels].

    ``options`` are those of ``embed``, by which ``features`` were read from ``dataset``.
    """
    values = features.at(rows)
    if not views:
        return values
    some = dataset.select([int(i) for i in features.index[rows]])
    seen = [embed(some, backbone, view=view, **options).values for view in views]
    return {tap: np.concatenate([value, *(view[tap] for view in seen)]) for tap, value in values.items()}


@dataclass
class _Step:
    dataset: Dataset
    backbone: Backbone
    taps: tuple[str, ...]
    cache: Cache | None
    info: RuntimeInfo
    workers: int
    exact: bool
    view: View | None
    hashes: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.hashes = np.zeros((len(self.dataset), 32), np.uint8)

    def content(self, i: int) -> bytes:
        """The SHA-256 of picture ``i``, once it was looked up."""
        return bytes(self.hashes[i])

    @cached_property
    def widths(self) -> tuple[int, ...]:
        return (*(tap.channels for tap in self.backbone.taps), *(() if self.exact else (768, 3)))

    def load(self) -> Graph:
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

    def works(self) -> Iterator[_Work]:
        """What came of the pictures, in any order. At most two batches a worker are under way: memory stays flat.

        This thread reads and looks up, which two threads would do more slowly than one; workers decode and infer.
        """
        pending: set[Future[_Work]] = set()
        waiting: list[_Waiting] = []
        graph: Future[Graph] | None = None
        # OpenVINO computes in threads of its own: one more of ours decodes meanwhile.
        threads = self.workers + (self.info.name == "openvino" and self.workers > 1)
        with ThreadPoolExecutor(threads, thread_name_prefix="headstart") as pool:
            try:
                for start in range(0, len(self.dataset), BATCH):
                    work, missing = self.look_up(range(start, min(start + BATCH, len(self.dataset))))
                    yield work
                    waiting += missing
                    if len(waiting) >= BATCH or (waiting and start + BATCH >= len(self.dataset)):
                        # Loaded for the first picture that needs it, beside its decoding: a warm run never does.
                        graph = graph or pool.submit(self.load)
                        pending |= {pool.submit(self.compute, batch, graph) for batch in _batches(waiting)}
                        waiting = []
                    while len(pending) >= 2 * self.workers:
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        yield from (future.result() for future in done)
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def look_up(self, indices: Sequence[int]) -> tuple[_Work, list[_Waiting]]:
        """Read pictures and fetch what the cache holds; the others wait."""
        work, sources = _Work(), {}
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
                vectors = None if one is None else _unpack(one, self.taps, self.widths)
                if vectors is not None:
                    work.found[i] = vectors
        return work, [_Waiting(i, source) for i, source in sources.items() if i not in work.found]

    def compute(self, batch: Sequence[_Waiting], graph: Future[Graph]) -> _Work:
        """Decode, preprocess and run pictures."""
        work = _Work()
        began = time.thread_time()
        pixels: dict[int, NDArray[np.uint8]] = {}
        small: dict[int, Vectors] = {}
        preprocess = self.backbone.preprocess
        for each in batch:
            i, source = each.place, each.source
            try:
                image = source if isinstance(source, np.ndarray) else decode(source, at_least=preprocess.at_least)
            except ImageError as error:
                work.refused[i] = str(error)
                continue
            picture = Image.fromarray(image)
            pixels[i] = preprocess(picture)
            if self.exact:
                small[i] = {}
            else:
                reduced = shrunk(picture)
                small[i] = {PIXELS: tiny(reduced), LOOK: look(source, image)}
                if self.cache is not None and self.view is None:
                    work.squares[i] = square(reduced)
            if self.view is not None:
                pixels[i] = self.view(pixels[i], self.content(i))
        work.decode = time.thread_time() - began
        if pixels:
            began = time.perf_counter()
            outputs = pad_batch(graph.result(), np.stack(list(pixels.values())), self.backbone.batch)
            work.run = time.perf_counter() - began
            work.misses = len(pixels)
            for row, i in enumerate(pixels):
                path = self.dataset.items[i].path
                work.found[i] = {tap: _shrink(value[row], path, self.exact) for tap, value in outputs.items()}
                work.found[i] |= small[i]
        return work


def _batches(waiting: Sequence[_Waiting]) -> Iterator[Sequence[_Waiting]]:
    return (waiting[start : start + BATCH] for start in range(0, len(waiting), BATCH))


def _pack(vectors: Vectors, taps: Sequence[str]) -> NDArray[np.uint8]:
    """The vectors of ``taps`` one after the other, each behind a byte that says how many bytes a number has."""
    parts = [bytes([vectors[tap].dtype.itemsize]) + vectors[tap].tobytes() for tap in taps]
    return np.frombuffer(b"".join(parts), np.uint8)


def _unpack(packed: NDArray[np.generic], taps: Sequence[str], widths: Sequence[int]) -> Vectors | None:
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


def small_key(content: bytes) -> bytes:
    """The cache key of a picture's small square (``looks.square``), by the SHA-256 of its bytes."""
    return entry_key(content, "", "", "", "0", SMALL)


def _shrink(value: NDArray[np.float32], path: str, exact: bool) -> NDArray[np.floating]:
    """fp16 where it can hold the values: half the memory, and rounding far below the noise of a picture."""
    largest = float(np.abs(value).max(initial=0))
    if not np.isfinite(largest):
        raise BackboneError(f"The backbone gives values that are not finite for {path}; try --precision fp32.")
    return value if exact or largest > FP16_LIMIT else value.astype(np.float16)


def _collect(step: _Step, gathered: _Gathered, wanted: Sequence[str], total: float) -> Features:
    index = np.flatnonzero(gathered.there)
    whole = len(index) == len(gathered.there)

    def taken(tap: str, channels: int, kind: type[np.generic]) -> NDArray[Any]:
        rows = gathered.values.pop(tap, None)  # one tap after the other: at most one is held twice
        if rows is None:
            return np.empty((0, channels), kind)
        return rows if whole else rows[index]

    return Features(
        {tap: taken(tap, 0, np.float16) for tap in step.taps if tap in wanted},
        taken(PIXELS, 768, np.uint8),
        taken(LOOK, 3, np.float32),
        step.hashes if whole else step.hashes[index],
        index,
        tuple(Quarantined(step.dataset.items[i].path, why) for i, why in sorted(gathered.refused.items())),
        step.info,
        len(index) - gathered.misses,
        gathered.misses,
        {"total": total, "decode": gathered.decode, "features": gathered.run},
    )
