"""Images for training: the pixels of the frozen path, decoded and augmented in threads ahead of the training."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset
from headstart.images.augment import AUGMENTATIONS, random_affine, warp
from headstart.images.decoding import decode
from headstart.images.preprocess import Preprocess

Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]
CACHE_BYTES = 2 * 2**30  # of decoded images kept in memory; those beyond it are decoded anew in each epoch
PREFETCH_BATCHES = 3


class ImageLoader:
    """Loads the images of a dataset at ``indices`` [n]; row i is the image at ``indices[i]``.

    ``workers`` threads decode and augment; threads need no ``__main__`` guard.
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int], preprocess: Preprocess, workers: int) -> None:
        self.dataset = dataset
        self.indices = [int(i) for i in indices]
        self.preprocess = preprocess
        self.workers = workers
        self._cache: dict[int, Pixels] = {}
        self._capacity = CACHE_BYTES // (preprocess.height * preprocess.width * 3)

    def load(self, row: int) -> Pixels:
        """Load the pixels [height, width, 3] of one image, equal to those of the frozen path."""
        if row in self._cache:
            return self._cache[row]
        source = self.dataset.read(self.indices[row])
        pixels = self.preprocess(
            decode(
                source,
                min_size=self.preprocess.min_size,
                sample_range=self.preprocess.sample_range,
                scaled=self.preprocess.is_scaled,
            )
        )
        if len(self._cache) < self._capacity:
            self._cache[row] = pixels
        return pixels

    def load_augmented(self, row: int, augmentation: str, seed: int, epoch: int) -> Pixels:
        """Load one image and augment it; the seed, the epoch and the image's index alone determine how."""
        pixels = self.load(row)
        if augmentation == "none":
            return pixels
        text = f"{seed} {epoch} {self.indices[row]}".encode()
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))
        settings = AUGMENTATIONS[augmentation]
        warped = warp(pixels, random_affine(settings, pixels.shape[0], pixels.shape[1], rng))
        return np.ascontiguousarray(warped[:, ::-1]) if settings.flip and rng.random() < 0.5 else warped

    def batches(
        self, batches: Sequence[Rows], augmentation: str = "none", seed: int = 0, epoch: int = 0
    ) -> Iterator[tuple[Rows, Pixels]]:
        """Yield the rows [b] and pixels [b, height, width, 3] of each batch; the next ones are made meanwhile."""
        with ThreadPoolExecutor(self.workers) as pool:
            pending: deque[tuple[Rows, list[Future[Pixels]]]] = deque()
            remaining = iter(batches)
            while True:
                while len(pending) < PREFETCH_BATCHES and (rows := next(remaining, None)) is not None:
                    futures = [pool.submit(self.load_augmented, int(row), augmentation, seed, epoch) for row in rows]
                    pending.append((rows, futures))
                if not pending:
                    return
                rows, futures = pending.popleft()
                if len(rows):
                    yield rows, np.stack([future.result() for future in futures])
                else:
                    yield rows, np.empty((0, self.preprocess.height, self.preprocess.width, 3), np.uint8)
