"""Work that takes longer than a request: saving, reports and exports, one after the other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from headstart.errors import HeadstartError
from headstart.studio.events import Events

logger = logging.getLogger(__name__)
KEPT = 50
MAX_WAITING = 4

Job = dict[str, Any]


class TooManyJobsError(Exception):
    """So many jobs wait that no further one is taken."""


class Jobs:
    """The last jobs and how they went, in the JSON form of the API. Safe with several threads."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._jobs: dict[int, Job] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "headstart-job")

    def start(self, what: str, work: Callable[[], dict[str, Any]]) -> Job:
        """Begin a job, whose result is what ``work`` returns. Raises TooManyJobsError."""
        with self._lock:
            if sum(job["state"] == "running" for job in self._jobs.values()) >= MAX_WAITING:
                raise TooManyJobsError
            self._count += 1
            job: Job = {"id": self._count, "what": what, "state": "running", "result": None, "error": None}
            self._jobs[self._count] = job
            while len(self._jobs) > KEPT:
                del self._jobs[next(iter(self._jobs))]
        self._events.send("job", job)
        self._pool.submit(self._run, job["id"], work)
        return dict(job)

    def get(self, id: str) -> Job:
        """Return a job by the text of its number: Python reads no number of thousands of digits. Raises KeyError."""
        with self._lock:
            return dict({str(number): job for number, job in self._jobs.items()}[id])

    @property
    def all(self) -> list[Job]:
        """All jobs that are remembered."""
        with self._lock:
            return [dict(job) for job in self._jobs.values()]

    def stop(self) -> None:
        """Wait for the job under way; those that wait are dropped."""
        self._pool.shutdown(cancel_futures=True)

    def _run(self, id: int, work: Callable[[], dict[str, Any]]) -> None:
        try:
            done: Job = {"state": "done", "result": work()}
        except (HeadstartError, OSError) as error:
            done = {"state": "failed", "error": str(error)}
        except Exception as error:
            logger.exception("job failed")
            done = {"state": "failed", "error": f"An error in the program: {error!r}"}
        with self._lock:
            job = self._jobs[id] = {**self._jobs[id], **done}
        self._events.send("job", job)
