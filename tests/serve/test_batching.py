"""Batches: every image has its own outputs, whatever runs together."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import BackboneError
from headstart.serve.batching import Batcher


def image(value):
    return np.full((2, 2, 3), value, np.uint8)


def run(pixels, is_alone):
    return {"mean": pixels.reshape(len(pixels), -1).mean(axis=1, keepdims=True).astype(np.float32)}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 3))
def test_each_image_has_its_own_outputs(values, max_batch, streams):
    async def main():
        with ThreadPoolExecutor(streams) as pool:
            batcher = Batcher(run, pool, max_batch=max_batch, streams=streams)
            outputs = await asyncio.gather(*(batcher.submit(image(value)) for value in values))
        return outputs, batcher

    outputs, batcher = asyncio.run(main())
    assert [float(output["mean"][0, 0]) for output in outputs] == values
    assert sum(size * count for size, count in batcher.sizes.items()) == len(values)
    assert max(batcher.sizes) <= max_batch
    assert batcher.waiting == 0


def test_an_error_reaches_the_images_of_its_batch_and_no_others():
    def fail_on_seven(pixels, is_alone):
        if (pixels == 7).any():
            raise BackboneError("seven")
        return run(pixels, is_alone)

    async def main():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(fail_on_seven, pool, max_batch=1, streams=1)
            return await asyncio.gather(*(batcher.submit(image(v)) for v in (1, 7, 2)), return_exceptions=True)

    first, error, last = asyncio.run(main())
    assert (float(first["mean"][0, 0]), float(last["mean"][0, 0])) == (1, 2)
    assert isinstance(error, BackboneError)


def test_requests_that_were_given_up_are_not_run():
    started, release, seen = threading.Event(), threading.Event(), []

    def wait(pixels, is_alone):
        seen.extend(pixels[:, 0, 0, 0].tolist())
        started.set()
        release.wait(20)
        return run(pixels, is_alone)

    async def main():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(wait, pool, max_batch=1, streams=1)
            tasks = [asyncio.create_task(batcher.submit(image(value))) for value in (1, 2, 3)]
            await asyncio.to_thread(started.wait, 20)
            tasks[1].cancel()
            release.set()
            await asyncio.gather(tasks[0], tasks[2])

    asyncio.run(main())
    assert seen == [1, 3]


def test_no_more_images_are_decoded_than_keep_the_threads_busy():
    async def main():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(run, pool, max_batch=2, streams=1)
            most = count = 0

            async def one():
                nonlocal most, count
                async with batcher.place():
                    count += 1
                    most = max(most, count)
                    await asyncio.sleep(0)
                    count -= 1

            await asyncio.gather(*(one() for _ in range(100)))
            return most, batcher.waiting

    assert asyncio.run(main()) == (6, 0)


@pytest.mark.parametrize("others", [0, 1])
def test_an_image_alone_may_use_all_cores(others):
    found = []

    def note(pixels, is_alone):
        found.append(is_alone)
        return run(pixels, is_alone)

    async def main():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(note, pool, max_batch=1, streams=1)
            await asyncio.gather(*(batcher.submit(image(1)) for _ in range(1 + others)))

    asyncio.run(main())
    assert found == [True] if not others else [False, True]


def test_an_image_that_comes_as_the_last_batch_ends_is_run():
    async def main():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(run, pool, max_batch=4, streams=1)
            first = asyncio.create_task(batcher.submit(image(1)))
            await asyncio.sleep(0)
            (worker,) = asyncio.all_tasks() - {first, asyncio.current_task()}
            while not worker.done():
                await asyncio.sleep(0)
            async with asyncio.timeout(20):
                return await batcher.submit(image(2)), await first

    second, first = asyncio.run(main())
    assert (float(first["mean"][0, 0]), float(second["mean"][0, 0])) == (1, 2)
