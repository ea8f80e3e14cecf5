"""Pictures for training: the frozen path's own pixels, decoded and varied by threads ahead of the training."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from headstart.data import Dataset
from headstart.images.augment import AUGMENTATIONS, random_affine, warp
from headstart.images.decode import decode
from headstart.images.preprocess import Preprocess
from headstart.machine import cores

Pixels = NDArray[np.uint8]
KEPT = 2 * 2**30  # bytes of decoded pictures held in memory; beyond that each epoch decodes anew
AHEAD = 3  # batches


class Pictures:
    """The pictures of a dataset at ``places`` [n]; threads decode them, so no ``__main__`` guard is needed."""

    def __init__(self, dataset: Dataset, places: Sequence[int], preprocess: Preprocess, workers: int | None) -> None:
        self.dataset, self.places, self.preprocess = dataset, [int(i) for i in places], preprocess
        self.workers = workers or cores()
        self.kept: dict[int, Pixels] = {}
        self.room = KEPT // (preprocess.height * preprocess.width * 3)

    def __call__(self, row: int) -> Pixels:
        """The pixels [height, width, 3] of one picture, as the frozen path has them."""
        if row in self.kept:
            return self.kept[row]
        source = self.dataset.read(self.places[row])
        pixels = self.preprocess(decode(source, at_least=self.preprocess.at_least))
        if len(self.kept) < self.room:
            self.kept[row] = pixels
        return pixels

    def varied(self, row: int, augmentation: str, seed: int, epoch: int) -> Pixels:
        """The same seen otherwise, settled by the seed, the epoch and the picture's place alone."""
        pixels = self(row)
        if augmentation == "none":
            return pixels
        text = f"{seed} {epoch} {self.places[row]}".encode()
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))
        how = AUGMENTATIONS[augmentation]
        seen = warp(pixels, random_affine(how, pixels.shape[0], pixels.shape[1], rng))
        return np.ascontiguousarray(seen[:, ::-1]) if how.flip and rng.random() < 0.5 else seen

    def batches(
        self, batches: Sequence[NDArray[np.int64]], augmentation: str = "none", seed: int = 0, epoch: int = 0
    ) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
        """The rows and pixels [b, height, width, 3] of each batch, made while the one before is learned from."""
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque[tuple[NDArray[np.int64], list[Future[Pixels]]]] = deque()
            todo = iter(batches)
            while True:
                while len(waiting) < AHEAD and (rows := next(todo, None)) is not None:
                    made = [pool.submit(self.varied, int(row), augmentation, seed, epoch) for row in rows]
                    waiting.append((rows, made))
                if not waiting:
                    return
                rows, made = waiting.popleft()
                if len(rows):
                    yield rows, np.stack([each.result() for each in made])
                else:
                    yield rows, np.empty((0, self.preprocess.height, self.preprocess.width, 3), np.uint8)
