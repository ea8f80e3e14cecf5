"""Every shard exactly once: the rules of trying again, without processes."""

import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.data import ReadOptions
from headstart.data.dataset import Item
from headstart.errors import DataError, OptionError
from headstart.scale import run
from headstart.scale.contract import Failure, ShardResult, attempt
from headstart.scale.run import TRIES, Event, Progress, run_shards
from headstart.scale.shards import Shard


def shard(number: int, images: int | None = 4) -> Shard:
    items = tuple(Item(f"{number}/{i}.jpg", "a", "train") for i in range(images or 0))
    return Shard(
        f"shard {number}", f"{number:064x}", "uri", "whole" if images is None else "part", ReadOptions(), items
    )


class Table:
    """Workers that answer from a table: how often each shard fails before it is done."""

    def __init__(self, count: int, failures: dict[str, int], seed: int) -> None:
        self.count, self.failures, self.rng = count, failures, random.Random(seed)
        self.busy: list[Shard] = []
        self.submitted: Counter[str] = Counter()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_closed = True

    def submit(self, one):
        assert len(self.busy) < self.count
        self.busy.append(one)
        self.submitted[one.sha256] += 1

    def wait(self, seconds):
        one = self.busy[self.rng.randrange(len(self.busy))]
        if self.rng.random() < 0.3:
            return [Event(one.sha256, 1)]
        self.busy.remove(one)
        if self.submitted[one.sha256] <= self.failures.get(one.sha256, 0):
            return [Event(one.sha256, Failure("bad luck"))]
        return [Event(one.sha256, ShardResult(one.sha256, one.count or 7))]


class Done:
    """Work of which an earlier run has done some shards."""

    def __init__(self, *finished: str) -> None:
        self._finished = finished

    def run(self, one, report):
        raise AssertionError("the workers answer from a table")

    def finished(self, one):
        return ShardResult(one.sha256, one.count or 7) if one.sha256 in self._finished else None


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_each_shard_is_done_once_or_quarantined_after_its_tries(plan, count, seed):
    shards = [shard(number) for number in range(len(plan))]
    failures = {one.sha256: times for one, (times, _) in zip(shards, plan, strict=True)}
    earlier = {one.sha256 for one, (_, is_done) in zip(shards, plan, strict=True) if is_done}
    lost = {key for key, times in failures.items() if times >= TRIES and key not in earlier}
    workers = Table(count, failures, seed)

    def go() -> run.Outcome:
        return run_shards(random.Random(seed).sample(shards, len(shards)), Done(*earlier), lambda _: workers)

    if len(lost) == len(shards):
        with pytest.raises(
            DataError, match=r"None of .* shards could be done; of shard \d+: bad luck \(tried 3 times\)"
        ):
            go()
        return
    outcome = go()

    assert [one.sha256 for one in outcome.results] == sorted({*failures} - lost)
    assert [one.path for one in outcome.quarantined] == [one.name for one in shards if one.sha256 in lost]
    assert outcome.resumed == len(earlier)
    assert workers.submitted == {key: min(times + 1, TRIES) for key, times in failures.items() if key not in earlier}
    assert outcome.retries == sum(min(times, TRIES) for key, times in failures.items() if key not in earlier)


def test_a_result_that_cannot_be_taken_is_a_failure_of_its_shard():
    """As a file of a worker elsewhere, which the network does not show to the driver at first, or not at all."""
    shards = [shard(number) for number in range(4)]
    earlier, late, never, good = (one.sha256 for one in shards)
    given = Counter()

    def arrived(one, result):
        given[one.sha256] += 1
        if one.sha256 == never or (one.sha256 in (earlier, late) and given[one.sha256] == 1):
            raise DataError("there is no file")

    workers = Table(2, {}, 0)
    outcome = run_shards(shards, Done(earlier), lambda _: workers, arrived=arrived)

    assert [one.sha256 for one in outcome.results] == [earlier, late, good]
    assert [(one.path, one.reason) for one in outcome.quarantined] == [("shard 2", "there is no file (tried 3 times)")]
    assert given == {earlier: 2, late: 2, never: TRIES, good: 1}
    assert workers.submitted == {earlier: 1, late: 2, never: TRIES, good: 1}
    assert outcome.resumed == 0


def test_progress_is_counted_in_images(monkeypatch):
    monkeypatch.setattr(run, "WAIT_SECONDS", 0.0)
    shards = [shard(0, 10), shard(1, 30), shard(2, 60)]
    told: list[Progress] = []

    run_shards(shards, Done(shards[0].sha256), lambda _: Table(1, {}, 0), progress=told.append)

    assert (told[0].share, told[0].resumed, told[0].shards_done, told[0].images) == (0.1, 0.1, 1, 0)
    assert told[0].seconds_left is None
    assert told[0].expected_images is None
    half = next(one for one in told if one.shards_done == 2)
    assert (round(half.share, 3), half.images, half.expected_images) == (0.4, 30, 90)
    assert half.seconds_left == pytest.approx(half.seconds * 0.6 / 0.3)
    assert (told[-1].share, told[-1].images, told[-1].seconds_left) == (1, 90, 0)


def test_shards_of_unknown_size_count_as_the_mean_of_those_that_are_done(monkeypatch):
    monkeypatch.setattr(run, "WAIT_SECONDS", 0.0)
    told: list[Progress] = []

    run_shards([shard(n, None) for n in range(4)], Done(), lambda _: Table(1, {}, 0), progress=told.append)

    second = next(one for one in told if one.shards_done == 2 and one.images == 14)
    assert (second.share, second.expected_images) == (0.5, 28)


def test_an_error_of_an_option_is_for_every_shard_and_one_of_data_is_not():
    class Raises(Done):
        def __init__(self, error):
            self.error = error

        def run(self, one, report):
            raise self.error

    def reasons(error):
        found = attempt(Raises(error), shard(0), lambda done: None)
        return found.reason, found.error

    wrong = OptionError("wrong option")
    assert reasons(wrong) == ("wrong option", wrong)
    assert reasons(DataError("a bad tar")) == ("a bad tar", None)
    assert reasons(MemoryError()) == ("It needs more memory than is available.", None)
    assert reasons(ValueError("a\nb")) == ("ValueError: a b", None)


HANGS = """
import time
from headstart.data import ReadOptions
from headstart.scale import contract
from headstart.scale.shards import Shard

class Hangs:
    def run(self, shard, report):
        report(1)
        time.sleep(60)

contract.STALLED_SECONDS = 0.5
contract.attempt(Hangs(), Shard("shard", "0" * 64, "uri", "part", ReadOptions()), lambda done: print(done, flush=True))
"""


def test_a_worker_that_hangs_says_where_and_ends_itself():
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (1, "1\n")
    assert ended.stderr.startswith("Timeout (0:00:00.500000)!\n")
    assert "in run\n" in ended.stderr
