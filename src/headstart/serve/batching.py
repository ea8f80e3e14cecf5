"""Dynamic batching: images of different requests that arrive together go through the network together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager

import numpy as np
from numpy.typing import NDArray

from headstart.features.runtime import Outputs

Pixels = NDArray[np.uint8]
WAIT = 0.002  # seconds that a batch waits for images that are being decoded


class Batcher:
    """Collects images and runs them in batches. Of one event loop.

    ``run`` computes outputs by name, each [n, ...], of pixels [n, height, width, 3]; its second argument says whether
    it runs alone, so that it may use all cores. At most ``streams`` batches run at once, in ``executor``. Where nothing
    else is to come, an image does not wait.
    """

    def __init__(
        self, run: Callable[[Pixels, bool], Outputs], executor: Executor, *, max_batch: int, streams: int
    ) -> None:
        self.run, self.executor, self.max_batch, self.streams = run, executor, max_batch, streams
        self.pending: list[tuple[Pixels, asyncio.Future[Outputs]]] = []
        self.arriving = self.queued = 0
        # More would only be held in memory, decoded: so many keep all threads busy.
        self._places = asyncio.Semaphore(2 * streams * (max_batch + 1))
        self.sizes: dict[int, int] = {}  # how many batches had how many images
        self._tasks: set[asyncio.Task[None]] = set()
        self._change = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many images wait for a place, are being decoded, or wait for the network."""
        return self.queued + self.arriving + len(self.pending)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait until there is a place for an image that is to be decoded and submitted."""
        self.queued += 1
        try:
            await self._places.acquire()
        finally:
            self.queued -= 1
        try:
            yield
        finally:
            self._places.release()

    @contextmanager
    def announce(self) -> Iterator[None]:
        """Let batches wait for the image that is being decoded within this context."""
        self.arriving += 1
        try:
            yield
        finally:
            self.arriving -= 1
            self._change.set()

    async def submit(self, pixels: Pixels) -> Outputs:
        """Return the outputs for one image [height, width, 3]. Raises BackboneError."""
        future: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self.pending.append((pixels, future))
        self._change.set()
        if len(self._tasks) < self.streams:
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
        return await future

    async def _work(self) -> None:
        """Run batches until no image is left."""
        try:
            while self.pending:
                await self._wait_for_more()
                batch, self.pending = self.pending[: self.max_batch], self.pending[self.max_batch :]
                batch = [(pixels, future) for pixels, future in batch if not future.cancelled()]
                if batch:
                    await self._run_batch(batch)
        finally:  # not in a callback of the task: an image that is submitted before it would wait for a task that ended
            self._tasks.discard(asyncio.current_task())

    async def _wait_for_more(self) -> None:
        """Wait until a batch is full, or until nothing more is being decoded, or a little while."""
        try:
            async with asyncio.timeout(WAIT):
                while self.arriving and len(self.pending) < self.max_batch:
                    self._change.clear()
                    await self._change.wait()
        except TimeoutError:
            pass

    async def _run_batch(self, batch: list[tuple[Pixels, asyncio.Future[Outputs]]]) -> None:
        self.sizes[len(batch)] = self.sizes.get(len(batch), 0) + 1
        is_alone = len(self._tasks) == 1 and not self.arriving and not self.pending
        pixels = np.stack([image for image, _ in batch])
        loop = asyncio.get_running_loop()
        try:
            outputs = await loop.run_in_executor(self.executor, self.run, pixels, is_alone)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for row, (_, future) in enumerate(batch):
            if not future.done():
                future.set_result({name: value[row : row + 1] for name, value in outputs.items()})
