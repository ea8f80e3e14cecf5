"""Workers on Ray (extra ``ray``), on this machine or on a cluster.

Ray only decides where a shard is done: a task takes one shard and returns its counts, so nothing large passes through
its object store, and no result depends on the order of tasks. Without an address Ray is started here, for this run
alone: on the loopback interface, behind a token, without its dashboard, which has been a way in for attackers
(CVE-2025-62593, CVE-2026-27482), and without usage statistics.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from headstart import __version__
from headstart.errors import OptionError, missing_extra, one_line
from headstart.machine import cores
from headstart.scale.contract import Failure, ShardResult, Work, attempt
from headstart.scale.run import Event
from headstart.scale.shards import Shard

OBJECT_STORE_BYTES = 128 * 2**20  # only shards and counts pass through it; by default Ray takes 30% of the memory
CONNECT_SECONDS = 10.0
LOOPBACK = "127.0.0.1"
# Read by Ray as it is imported or started; what a user has set stays.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


# Without it Ray (2.60) puts an address that others reach in the place of 127.0.0.1, and listens on all of them.
ONLY_HERE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def check_installed() -> None:
    """Raise MissingExtraError where Ray is not installed. It is not imported: its settings are read as it is."""
    if find_spec("ray") is None:
        raise missing_extra("Ray is not installed", "ray")


class RayWorkers:
    """At most ``count`` tasks at once, each with one core: as many as the machine, or the cluster, has cores.

    ``address`` is that of a running cluster, or "auto"; without one Ray is started here and ended afterwards. Every
    machine of a cluster needs Headstart of the same version, and sees data and output under the same paths. A cluster
    that this process is connected to already is used, and stays. Raises MissingExtraError; OptionError where the
    cluster cannot be reached.
    """

    def __init__(
        self, work: Work, count: int | None = None, shards: int | None = None, address: str | None = None
    ) -> None:
        check_installed()
        settings = SETTINGS
        if (
            address is None and "ray" not in sys.modules
        ):  # a token is taken where Ray is imported, and by what it starts
            settings = {**SETTINGS, **ONLY_HERE, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        for name, value in settings.items():
            os.environ.setdefault(name, value)
        import ray

        self._ray = ray
        self._folder = ""
        self._is_ours = not ray.is_initialized()
        if self._is_ours and address is None:
            self._start_here(min(count or cores(), shards or cores()))
        elif self._is_ours and address is not None:
            self._connect(address)
        self.count = min(count or int(ray.cluster_resources().get("CPU", 1)), shards or 2**31)
        self._work = ray.put(work)
        # A worker that dies is a failure of its shard, which ``run_shards`` counts: Ray does not try again by itself.
        self._try = ray.remote(num_cpus=1, max_retries=0)(_try)
        self._shards: dict[Any, Shard] = {}

    def _start_here(self, count: int) -> None:
        self._folder = tempfile.mkdtemp(prefix="hs-ray-")  # short: paths of sockets have at most 107 bytes
        try:
            self._ray.init(
                num_cpus=count,
                include_dashboard=False,
                _node_ip_address=LOOPBACK,
                _temp_dir=self._folder,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:
            self._end()
            raise OptionError(f"Ray cannot be started here ({one_line(error)}); give --on processes.") from None
        except BaseException:
            self._end()
            raise

    def _connect(self, address: str) -> None:
        try:
            host, _, port = address.rpartition(":")
            if port.isdecimal() and "/" not in host:  # Ray itself tries for many minutes
                socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # of sockets, of Ray, and of gRPC
            raise OptionError(
                f"There is no Ray cluster at {address} ({one_line(error)}); start one by: ray start --head."
            ) from None

    def __enter__(self) -> Self:
        return self

    def submit(self, shard: Shard) -> None:
        """Give a shard to the cluster."""
        self._shards[self._try.remote(self._work, shard, __version__)] = shard

    def wait(self, seconds: float) -> list[Event]:
        """Return results, and a failure for the shard of each task whose process or machine died."""
        if not self._shards:
            time.sleep(seconds)
            return []
        finished, _ = self._ray.wait(list(self._shards), num_returns=1, timeout=seconds)
        return [Event(self._shards.pop(task).sha256, self._outcome(task)) for task in finished]

    def _outcome(self, task: Any) -> ShardResult | Failure:
        try:
            outcome: ShardResult | Failure = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return Failure(f"Its worker was lost ({type(error).__name__}: {COLOURS.sub('', one_line(error))})")
        return outcome

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what is under way, and end Ray where it was started here."""
        for task in self._shards:
            with suppress(Exception):  # it may just have ended
                self._ray.cancel(task, force=True)
        self._end()

    def _end(self) -> None:
        if self._is_ours:
            self._ray.shutdown()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _try(work: Work, shard: Shard, version: str) -> ShardResult | Failure:
    if version != __version__:
        error = OptionError(f"A machine of the cluster has Headstart {__version__}, not {version}; install the same.")
        return Failure(str(error), error)
    return attempt(work, shard, _ignore)


def _ignore(_done: int) -> None:
    """Take a report: results of whole shards are enough, since a message for each would pass the driver's machine."""
