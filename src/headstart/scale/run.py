"""Every shard exactly once, whatever happens to those who work on it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from headstart.data import Quarantined
from headstart.errors import DataError
from headstart.scale.contract import Failure, ShardResult, Work
from headstart.scale.shards import Shard

TRIES = 3  # of a shard, before it is quarantined
WAIT_SECONDS = 0.5  # between two times that progress is told, and at most for a worker to do something


@dataclass(frozen=True)
class Event:
    """What became of the shard with this hash: a result, a failure, or how many of its images are done."""

    sha256: str
    outcome: ShardResult | Failure | int


class Workers(Protocol):
    """Workers of one kind: ``headstart.scale.processes`` or ``headstart.scale.ray``. Used in a ``with`` block."""

    count: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def submit(self, shard: Shard) -> None:
        """Give a shard to a worker; there is one that has none."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """Return what has happened, at the latest after ``seconds``. A worker that died is a failure of its shard."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: ``shards_done`` of ``shards``, and ``images`` that this run has done in ``seconds``.

    ``share`` is how much of the work is done, 0..1, counted in images where they are known, else in shards, and
    ``resumed`` the part of it that earlier runs have done.
    """

    shards_done: int
    shards: int
    images: int
    seconds: float
    share: float
    resumed: float

    @property
    def images_per_second(self) -> float:
        """Images of this run in a second, over all workers."""
        return self.images / self.seconds if self.seconds > 0 else 0.0

    @property
    def expected_images(self) -> int | None:
        """About how many images this run does in all, by the share that is done; None while nothing is."""
        done = self.share - self.resumed
        return round(self.images * (1 - self.resumed) / done) if done > 0 and self.images else None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the speed so far; None while nothing is done."""
        done = self.share - self.resumed
        return self.seconds * (1 - self.share) / done if done > 0 else None


@dataclass(frozen=True)
class Outcome:
    """What all shards gave, in the order of their hashes. ``quarantined`` shards gave nothing, by ``reasons``.

    ``resumed`` shards, of ``resumed_images`` with a row, were finished by an earlier run; ``retries`` counts tries that
    failed.
    """

    results: tuple[ShardResult, ...]
    quarantined: tuple[Quarantined, ...]
    resumed: int
    resumed_images: int
    retries: int
    seconds: float

    @property
    def images(self) -> int:
        """How many images have a row."""
        return sum(result.images for result in self.results)


@dataclass
class _State:
    """What a run knows so far."""

    shards: dict[str, Shard]
    results: dict[str, ShardResult] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)  # how many images are done of those under way
    tries: Counter[str] = field(default_factory=Counter)
    resumed: frozenset[str] = frozenset()

    def progress(self, seconds: float) -> Progress:
        """Return how far the run is, in images; a shard of unknown size counts as the mean of those that are done."""
        done = [result.images for result in self.results.values()]
        mean = max(sum(done) / len(done), 1) if done else 1
        weights = {sha256: mean if shard.count is None else shard.count for sha256, shard in self.shards.items()}
        total = sum(weights.values()) or 1
        finished = sum(weights[sha256] for sha256 in {*self.results, *self.given_up})
        partly = sum(min(count, weights[sha256]) for sha256, count in self.running.items())
        images = sum(result.images for sha256, result in self.results.items() if sha256 not in self.resumed)
        return Progress(
            len(self.results) + len(self.given_up),
            len(self.shards),
            images + sum(self.running.values()),
            seconds,
            min((finished + partly) / total, 1.0),
            sum(weights[sha256] for sha256 in self.resumed) / total,
        )


def run_shards(
    shards: Sequence[Shard],
    work: Work,
    open_workers: Callable[[int], Workers],
    *,
    progress: Callable[[Progress], None] | None = None,
    arrived: Callable[[Shard, ShardResult], None] | None = None,
) -> Outcome:
    """Do every shard that no earlier run has finished, exactly once for each hash.

    ``open_workers`` makes the workers for at most so many shards at once. A shard that fails is tried again after the
    others, and after ``TRIES`` it is quarantined with the reason, while the rest goes on. Results are in the order of
    the shards' hashes, never in that in which they came; ``arrived`` is given each as it comes, those of earlier runs
    first. Where it raises DataError, as for a file that a network does not show here yet, the shard has failed. Raises
    the error that would meet every shard, and DataError where each one was quarantined.
    """
    start = time.perf_counter()
    state = _State({shard.sha256: shard for shard in shards})
    for sha256, shard in state.shards.items():
        if (result := work.finished(shard)) is not None and isinstance(_taken(shard, result, arrived), ShardResult):
            state.results[sha256] = result
    state.resumed = frozenset(state.results)
    queue = deque(shard for sha256, shard in state.shards.items() if sha256 not in state.results)

    told = -WAIT_SECONDS

    def tell(is_last: bool = False) -> None:
        nonlocal told
        seconds = time.perf_counter() - start
        if progress is not None and (is_last or seconds - told >= WAIT_SECONDS):  # it looks at every shard
            told = seconds
            progress(state.progress(seconds))

    tell()
    if queue:
        with open_workers(len(queue)) as workers:
            while queue or state.running:
                while queue and len(state.running) < workers.count:
                    shard = queue.popleft()
                    state.running[shard.sha256] = 0
                    workers.submit(shard)
                for event in workers.wait(WAIT_SECONDS):
                    outcome = event.outcome
                    if isinstance(outcome, ShardResult):
                        outcome = _taken(state.shards[event.sha256], outcome, arrived)
                    _take(Event(event.sha256, outcome), state, queue)
                tell()
    tell(is_last=True)
    if state.shards and not state.results:
        name, reason = next((state.shards[key].name, reason) for key, reason in state.given_up.items())
        raise DataError(f"None of {len(state.shards):,} shards could be done; of {name}: {reason}")
    return Outcome(
        tuple(result for _, result in sorted(state.results.items())),
        tuple(Quarantined(state.shards[key].name, reason) for key, reason in sorted(state.given_up.items())),
        len(state.resumed),
        sum(state.results[key].images for key in state.resumed),
        sum(state.tries.values()),
        time.perf_counter() - start,
    )


def _taken(
    shard: Shard, result: ShardResult, arrived: Callable[[Shard, ShardResult], None] | None
) -> ShardResult | Failure:
    """Give ``arrived`` a result, and return that, or a failure where it cannot be taken."""
    try:
        if arrived is not None:
            arrived(shard, result)
    except DataError as error:
        return Failure(str(error))
    return result


def _take(event: Event, state: _State, queue: deque[Shard]) -> None:
    """Take over what has happened. Raises the error of a failure that would meet every shard."""
    sha256, outcome = event.sha256, event.outcome
    if isinstance(outcome, int):
        state.running[sha256] = outcome
        return
    del state.running[sha256]
    if isinstance(outcome, ShardResult):
        state.results[sha256] = outcome
        return
    if outcome.error is not None:
        raise outcome.error
    state.tries[sha256] += 1
    if state.tries[sha256] < TRIES:
        queue.append(state.shards[sha256])
    else:
        state.given_up[sha256] = f"{outcome.reason} (tried {TRIES} times)"
