"""Workers as processes of this machine, each with one thread for each session of its runtime.

Python's own ``ProcessPoolExecutor`` gives up all work when one of its processes dies, and does not say which task it
had. Here each worker has a pipe of its own and one shard at a time, so that a death costs one try at that shard.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Self

from headstart.machine import cores
from headstart.scale.contract import STALLED_SECONDS, WORKER_ENVIRONMENT, Failure, Work, attempt
from headstart.scale.run import Event
from headstart.scale.shards import Shard

REPORT_SECONDS = 0.5  # between two reports of a worker
END_SECONDS = 5.0  # for a worker to end by itself


@dataclass
class _Worker:
    """A process, our end of its pipe, and the shard that it works on."""

    process: SpawnProcess
    connection: Connection
    shard: Shard | None = None


class ProcessWorkers:
    """At most ``count`` processes, started as shards are submitted; one that dies is replaced.

    They are started anew (spawn), not forked: the threads of runtimes do not survive a fork. They end with this
    process, also where it is killed.
    """

    def __init__(self, work: Work, count: int | None = None, shards: int | None = None) -> None:
        self._work = work
        self.count = min(count or cores(), shards or count or cores())
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def submit(self, shard: Shard) -> None:
        """Give a shard to a worker that has none, or to a new one."""
        worker = next((one for one in self._workers if one.shard is None), None) or self._start()
        worker.shard = shard
        with suppress(OSError):  # it died just now: ``wait`` will see it
            worker.connection.send(shard)

    def wait(self, seconds: float) -> list[Event]:
        """Return reports, results, and a failure for the shard of each worker that died."""
        busy = {one.connection: one for one in self._workers if one.shard is not None}
        events: list[Event] = []
        for connection in wait(list(busy), seconds):
            worker = busy[connection]  # type: ignore[index]  # only connections were given
            shard = worker.shard
            if shard is None:
                continue
            try:
                outcome = worker.connection.recv()
            except (EOFError, OSError):  # the other end is closed, maybe within a message
                events.append(Event(shard.sha256, Failure(self._remove(worker))))
                continue
            events.append(Event(shard.sha256, outcome))
            if not isinstance(outcome, int):
                worker.shard = None
        return events

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._work), name="headstart worker", daemon=True)
        with _environment(WORKER_ENVIRONMENT):  # inherited: libraries read it as they are imported
            process.start()
        theirs.close()  # so that ours reports its end
        self._workers.append(worker := _Worker(process, ours))
        return worker

    def _remove(self, worker: _Worker) -> str:
        """Remove a worker that died, and return why."""
        worker.process.join(END_SECONDS)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        return _end_reason(worker.process.exitcode)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers; those that are within a shard at once."""
        for worker in self._workers:
            with suppress(OSError):
                worker.connection.send(None)
            worker.connection.close()
            if kind is not None or worker.shard is not None:
                worker.process.kill()
        deadline = time.monotonic() + END_SECONDS
        for worker in self._workers:
            worker.process.join(max(deadline - time.monotonic(), 0))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment for a process that is started within."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_reason(code: int | None) -> str:
    if code is None or code >= 0:
        return (
            f"Its worker ended with status {code}: it could not start, or did no image for {STALLED_SECONDS} seconds."
        )
    name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
    lack = ", as a lack of memory does it" if -code == signal.SIGKILL else ""
    return f"Its worker was ended by {name}{lack}."


def _work(connection: Connection, work: Work) -> None:
    """Work on the shards that come, until there are no more. The main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    last = 0.0

    def report(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_SECONDS:
            last = time.monotonic()
            connection.send(done)

    with suppress(EOFError, OSError):
        while (shard := connection.recv()) is not None:
            connection.send(attempt(work, shard, report))


def _end_with_parent() -> None:
    """End this process when its parent does, so that no one works on who is not waited for."""
    parent = multiprocessing.parent_process()
    wait([] if parent is None else [parent.sentinel])
    os._exit(1)
