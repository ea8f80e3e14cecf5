"""Images for training: the pixels of the frozen path, decoded once and augmented in threads ahead of the training."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset
from headstart.images.augment import AUGMENTATIONS, affine, warp
from headstart.images.decoding import decode
from headstart.images.preprocess import Preprocess

Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]
PREFETCH_BATCHES = 3
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container on Linux: bytes, or "max"


@dataclass(frozen=True)
class Views:
    """How each of n images is augmented in an epoch.

    ``matrices`` [n, 3, 3] are those of ``images.augment.warp``; afterwards the images ``is_mirrored`` [n] are mirrored.
    """

    matrices: NDArray[np.float64]
    is_mirrored: NDArray[np.bool_]

    @classmethod
    def draw(cls, augmentation: str, count: int, size: tuple[int, int], seed: int, epoch: int) -> Views | None:
        """Draw them for ``count`` images of (height, width) ``size``; None where nothing is augmented.

        They depend on nothing else, so neither on batches nor on the number of processes, nor on the device.
        """
        if augmentation == "none":
            return None
        settings = AUGMENTATIONS[augmentation]
        draws = np.random.default_rng([seed, epoch, 0, 1]).uniform(-1, 1, (count, 7))
        return cls(affine(settings, *size, draws[:, :6]), (draws[:, 6] < 0) & settings.flip)

    def apply(self, pixels: Pixels, row: int) -> Pixels:
        """Return the view [height, width, 3] of the image ``row``, whose pixels are given."""
        warped = warp(pixels, self.matrices[row])
        return np.ascontiguousarray(warped[:, ::-1]) if self.is_mirrored[row] else warped


class ImageLoader:
    """Loads the images of a dataset at ``indices`` [n]; row i is the image at ``indices[i]``.

    ``workers`` threads decode and augment; threads need no ``__main__`` guard. The first images, as many as
    ``memory_budget`` holds, are decoded once; the others are decoded anew each time. Each of several ``processes``
    keeps its own, in its share of the budget.
    """

    def __init__(
        self, dataset: Dataset, indices: Sequence[int], preprocess: Preprocess, workers: int, processes: int = 1
    ) -> None:
        self.dataset = dataset
        self.indices = [int(i) for i in indices]
        self.preprocess = preprocess
        self.workers = workers
        self.size = (preprocess.height, preprocess.width)
        image_bytes = preprocess.height * preprocess.width * 3
        kept = min(len(self.indices), memory_budget() // processes // image_bytes)
        self._kept = np.empty((kept, *self.size, 3), np.uint8)
        self._is_kept = np.zeros(len(self.indices), bool)

    @property
    def kept_share(self) -> float:
        """The share of the images that are decoded once; the others are decoded each time that they are used."""
        return len(self._kept) / max(1, len(self.indices))

    def load(self, row: int) -> Pixels:
        """Load the pixels [height, width, 3] of one image, equal to those of the frozen path."""
        if self._is_kept[row]:
            kept: Pixels = self._kept[row]
            return kept
        source = self.dataset.read(self.indices[row])
        pixels = self.preprocess(
            decode(
                source,
                min_size=self.preprocess.min_size,
                sample_range=self.preprocess.sample_range,
                scaled=self.preprocess.is_scaled,
            )
        )
        if row < len(self._kept):
            self._kept[row] = pixels
            self._is_kept[row] = True
        return pixels

    def batches(
        self,
        batches: Sequence[Rows],
        views: Views | None = None,
        finish: Callable[[Pixels], Any] = lambda pixels: pixels,
    ) -> Iterator[tuple[Rows, Any]]:
        """Yield the rows [b] and pixels [b, height, width, 3] of each batch; the next ones are made meanwhile.

        ``views`` augment the images; what is yielded for each batch is what ``finish`` makes of its pixels.
        """
        with ThreadPoolExecutor(self.workers) as pool:
            pending: deque[tuple[Rows, Callable[[], Any]]] = deque()
            remaining = iter(batches)
            while True:
                while len(pending) < PREFETCH_BATCHES and (rows := next(remaining, None)) is not None:
                    pending.append((rows, self._start(pool, rows, views, finish)))
                if not pending:
                    return
                rows, result = pending.popleft()
                yield rows, result()

    def _start(
        self, pool: ThreadPoolExecutor, rows: Rows, views: Views | None, finish: Callable[[Pixels], Any]
    ) -> Callable[[], Any]:
        """Start to make a batch; return a function that waits for it."""
        if views is None and self._is_kept[rows].all():
            return pool.submit(lambda: finish(self._kept[rows])).result

        def load(row: int) -> Pixels:
            return self.load(row) if views is None else views.apply(self.load(row), row)

        images: list[Future[Pixels]] = [pool.submit(load, int(row)) for row in rows]
        return lambda: finish(np.stack([image.result() for image in images]))


def memory_budget() -> int:
    """Return how many bytes of decoded images all processes keep: a quarter of the memory, 2 GiB where it is unknown.

    That is the machine's memory, or what the container may use of it.
    """
    limits = []
    with suppress(AttributeError, OSError, ValueError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):
        limits.append(int(MEMORY_LIMIT.read_text("ascii")))
    return min(limits, default=8 * 2**30) // 4
