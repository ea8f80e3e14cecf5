"""From pictures to features: read, look up, and for what is new decode, preprocess and run, in one pass."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.data import Dataset, Quarantined
from headstart.features.cache import FeatureCache, entry_key
from headstart.features.extractor import LOOK, PIXELS, Pass, Work, pack
from headstart.features.runtime import RuntimeInfo, resolve_runtime
from headstart.images.augment import View
from headstart.machine import cores

SMALL = "square:48:shrunk"  # a cache entry of its own, which only the report reads
STORE_EVERY = 256  # entries
MANY = 4096  # pictures: from here on memory is spared at the cost of a little time


@dataclass(frozen=True)
class Features:
    """Features of n pictures that could be read.

    ``values`` maps taps, shallow to deep, to [n, channels] float16, or float32 where a value is beyond
    60,000; ``tiny_images`` [n, 768] uint8 is the whole picture at 16 x 16 RGB; ``image_stats`` [n, 3] float32 its height and
    width as stored and its sharpness; ``content_hashes`` [n, 32] uint8 the SHA-256 of its bytes; ``index`` [n] its place in
    the data set. ``hits`` and ``misses`` count pictures found in the
    cache and not. ``seconds``: "total" wall time, "decode" and "features" summed over workers.
    """

    values: Mapping[str, NDArray[np.floating]]
    tiny_images: NDArray[np.uint8]
    image_stats: NDArray[np.float32]
    content_hashes: NDArray[np.uint8]
    index: NDArray[np.int64]
    quarantined: tuple[Quarantined, ...]
    runtime: RuntimeInfo
    hits: int
    misses: int
    seconds: Mapping[str, float]

    @property
    def deepest(self) -> NDArray[np.floating]:
        """The vectors [n, channels] of the deepest tap."""
        return list(self.values.values())[-1]

    def vectors(self, rows: NDArray[np.integer]) -> dict[str, NDArray[np.floating]]:
        """The vectors of the pictures ``rows`` [m] by tap, each [m, channels]; no copy where rows are in order."""
        inner: slice | NDArray[np.integer] = rows
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            inner = slice(int(rows[0]), int(rows[0]) + len(rows))
        return {tap: value[inner] for tap, value in self.values.items()}

    def matrix(self, taps: Sequence[str], rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Of the pictures ``rows`` [m] the vectors of ``taps`` side by side [m, d] float32: what a head takes."""
        vectors = self.vectors(rows)
        return np.concatenate([np.asarray(vectors[tap], np.float32) for tap in taps], axis=1)


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

    def add(self, work: Work, wanted: Sequence[str]) -> None:
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


def embed(
    dataset: Dataset,
    backbone: Backbone,
    *,
    taps: Sequence[str] | None = None,
    cache: FeatureCache | None = None,
    runtime: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    exact: bool = False,
    view: View | None = None,
    squares: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """Features of every readable picture of a data set, or of a ``view`` of each, in its order.

    ``taps`` restricts what is returned; all of the backbone's are computed and stored in one pass. With
    ``exact`` values stay float32 (a finished model's probabilities need it; use no cache with it), and there are no
    ``tiny_images`` and ``image_stats``, which nobody asks a finished model for. With ``squares`` the cache keeps, of each picture
    that is decoded, the small square that a report shows.
    ``progress(done, total)`` is called from this thread. Unreadable pictures are quarantined. The same
    picture gives the same numbers whatever its batch, to the runtime's rounding. Raises BackboneError,
    OptionError, MissingExtraError.
    """
    started = time.perf_counter()
    if len(dataset) >= MANY:
        _give_blocks_back()
    info = resolve_runtime(runtime, precision)
    names = tuple(tap.name for tap in backbone.taps)
    wanted = names if taps is None else tuple(taps)
    one_pass = Pass(
        dataset, backbone, names if exact else (*names, PIXELS, LOOK), cache, info, workers or cores(), exact, view,
        squares and cache is not None,
    )  # fmt: skip
    gathered = _Gathered.of(len(dataset))
    unsaved: dict[bytes, NDArray[np.uint8]] = {}
    try:
        for work in one_pass.works():
            gathered.add(work, (*wanted, PIXELS, LOOK))
            if cache is not None and work.misses:
                unsaved |= {small_key(one_pass.content(i)): small for i, small in work.squares.items()}
                for i, vectors in work.found.items():
                    unsaved[one_pass.key(one_pass.content(i))] = pack(vectors, one_pass.taps)
                if len(unsaved) >= STORE_EVERY:
                    cache.put_many(unsaved)
                    unsaved = {}
            if progress is not None:
                progress(gathered.done, len(dataset))
    finally:  # also when it is stopped: the next run goes on from here
        if cache is not None and unsaved:
            cache.put_many(unsaved)
    return _collect(one_pass, gathered, wanted, time.perf_counter() - started)


def _give_blocks_back() -> None:
    """From now on freed blocks of a megabyte go back to the system at once (glibc; elsewhere nothing changes).

    Else it keeps, for each thread, blocks up to the size of the largest ever freed, and matrices that come and go in
    several threads hold half as much memory again as is in use.
    """
    with suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).mallopt(-3, 2**20)  # M_MMAP_THRESHOLD


def with_views(
    features: Features, rows: NDArray[np.integer], views: Sequence[View], dataset: Dataset, backbone: Backbone,
    **options: Any,
) -> dict[str, NDArray[np.floating]]:  # fmt: skip
    """Vectors by tap of the pictures ``rows`` [m], then of each further view of them: [m * (1 + views), channels].

    ``options`` are those of ``embed``, by which ``features`` were read from ``dataset``.
    """
    values = features.vectors(rows)
    if not views:
        return values
    some = dataset.select([int(i) for i in features.index[rows]])
    seen = [embed(some, backbone, view=view, **options).values for view in views]
    return {tap: np.concatenate([value, *(view[tap] for view in seen)]) for tap, value in values.items()}


def small_key(content: bytes) -> bytes:
    """The cache key of a picture's small square (``looks.square``), by the SHA-256 of its bytes."""
    return entry_key(content, "", "", "", "0", SMALL)


def _collect(one_pass: Pass, gathered: _Gathered, wanted: Sequence[str], total: float) -> Features:
    index = np.flatnonzero(gathered.there)
    whole = len(index) == len(gathered.there)

    def taken(tap: str, channels: int, kind: type[np.generic]) -> NDArray[Any]:
        rows = gathered.values.pop(tap, None)  # one tap after the other: at most one is held twice
        if rows is None:
            return np.empty((0, channels), kind)
        return rows if whole else rows[index]

    return Features(
        {tap: taken(tap, 0, np.float16) for tap in one_pass.taps if tap in wanted},
        taken(PIXELS, 768, np.uint8),
        taken(LOOK, 3, np.float32),
        one_pass.hashes if whole else one_pass.hashes[index],
        index,
        tuple(Quarantined(one_pass.dataset.items[i].path, why) for i, why in sorted(gathered.refused.items())),
        one_pass.info,
        len(index) - gathered.misses,
        gathered.misses,
        {"total": total, "decode": gathered.decode, "features": gathered.run},
    )
