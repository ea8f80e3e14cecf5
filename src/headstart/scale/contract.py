"""What a worker is asked to do, and what it answers: the one contract of all that runs workers.

A worker gets a ``Shard`` and calls ``Work.run``, which writes its rows whole or not at all, under a name that depends
on the shard alone. So it does no harm where a shard is done twice, as after a lost connection: the same bytes take the
place of the same bytes. What goes wrong with one shard is a ``Failure``; it is a value, so that nothing about the error
has to survive the way between processes.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from headstart.errors import DataError, HeadstartError, one_line
from headstart.features.rows import Unread
from headstart.scale.shards import Shard

STALLED_SECONDS = 900  # without an image done, after which a worker ends itself; the shard is tried again
# Read as libraries are imported: one thread for each worker, since there are as many workers as cores.
WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Report = Callable[[int], None]  # takes how many images of the shard are done


@dataclass(frozen=True)
class ShardResult:
    """What a shard gave: how many images have a row, and which have none and why.

    ``remarks`` are those of ``features.Features``; ``file_bytes`` and ``file_sha256`` describe the file of rows.
    ``seconds`` of the clock and ``processor_seconds`` of all threads were spent on it in this run, and ``peak_bytes``
    is the most memory that the worker has had; all are 0 for a shard that an earlier run had finished.
    """

    sha256: str
    images: int
    unread: tuple[Unread, ...] = ()
    remarks: Mapping[str, int] = field(default_factory=dict)
    file_bytes: int = 0
    file_sha256: str = ""
    seconds: float = 0.0
    processor_seconds: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True)
class Failure:
    """Why a try at a shard failed. ``error`` is set where every other shard would fail in the same way."""

    reason: str
    error: HeadstartError | None = None


class Work(Protocol):
    """What is done with each shard. It is sent to workers, so it must be possible to pickle it."""

    def run(self, shard: Shard, report: Report) -> ShardResult:
        """Do the work, and call ``report`` at least once in ``STALLED_SECONDS``. Raises what goes wrong."""

    def finished(self, shard: Shard) -> ShardResult | None:
        """Return the result where an earlier run has done the shard, else None."""


def attempt(work: Work, shard: Shard, report: Report) -> ShardResult | Failure:
    """Try a shard once, in a worker. An error that is not about its images would meet every shard.

    A worker that makes no progress for ``STALLED_SECONDS`` prints where it hangs and ends, whatever holds it up.
    """
    start, processor_start = time.perf_counter(), time.process_time()

    def watched(done: int) -> None:
        _watch(STALLED_SECONDS)
        report(done)

    _watch(STALLED_SECONDS)
    try:
        result = work.run(shard, watched)
    except DataError as error:
        return Failure(str(error))
    except HeadstartError as error:
        return Failure(str(error), error)
    except MemoryError:
        return Failure("It needs more memory than is available.")
    except Exception as error:  # a fault of one shard, or of ours: the others go on, and it is named
        return Failure(f"{type(error).__name__}: {one_line(error)}")
    finally:
        faulthandler.cancel_dump_traceback_later()
    return replace(
        result,
        seconds=time.perf_counter() - start,
        processor_seconds=time.process_time() - processor_start,
        peak_bytes=peak_bytes(),
    )


def peak_bytes() -> int:
    """Return the most memory that this process has had, in bytes; 0 on Windows."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _watch(seconds: float) -> None:
    with suppress(OSError, ValueError):  # descriptor 2 is closed: there is nowhere to say where it hangs
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)
