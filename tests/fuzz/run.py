"""The campaign: inputs from one seed, each used in a process with limits of memory and time."""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ENTRY = Path(__file__).parent
KINDS = ("images", "archives", "tables", "models", "rows", "backbones", "cache")
OUTCOMES = ("answered", "quarantined", "refused", "crashed", "hung", "over memory")
FAILURES = OUTCOMES[3:]
MAX_SECONDS = 20.0
MAX_BYTES = 2**30  # above what the worker held before
COMMAND_BYTES = 400 * 2**20  # of a command before it reads anything: interpreter and libraries
JOB = 100  # inputs of one worker, which is replaced after each failure


@dataclass(frozen=True)
class Result:
    """What became of an input."""

    kind: str
    index: int
    outcome: str
    detail: str
    seconds: float
    peak: int  # bytes above what the worker held before


class Worker:
    """A process that uses inputs of one kind, watched from here."""

    def __init__(self, kind: str, seed: int, prepared: Path, keep: str = "") -> None:
        self.kind = kind
        self.errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # closed in close
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(ENTRY),
                "--worker",
                kind,
                "--seed",
                str(seed),
                "--prepared",
                str(prepared),
                "--keep",
                keep,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            bufsize=0,  # a line that is read ahead would not be seen by select
            start_new_session=True,
        )

    def run(self, index: int) -> Result:
        """Use one input. After a failure the process has ended."""
        assert self.process.stdin
        assert self.process.stdout
        self.errors.truncate(0)
        self.process.stdin.write(f"{index}\n".encode())
        start = json.loads(self.process.stdout.readline() or "{}")
        if not start:
            raise RuntimeError(f"Input {index} of {self.kind} cannot be built: {self._printed()}")
        began, peak = time.monotonic(), 0
        while True:
            if select.select([self.process.stdout], [], [], 0.02)[0]:
                break
            peak = max(peak, self._peak(start["memory"]))
            seconds = time.monotonic() - began
            if peak > MAX_BYTES or seconds > MAX_SECONDS:
                return self._stop(index, "over memory" if peak > MAX_BYTES else "hung", seconds, peak)
        seconds = time.monotonic() - began
        peak = max(peak, self._peak(start["memory"]))
        answer = json.loads(self.process.stdout.readline() or "{}")
        if not answer:
            detail = f"ended with status {self.process.wait()}: {self._printed()[-600:]!r}"
            return Result(self.kind, index, "crashed", detail, seconds, peak)
        if peak > MAX_BYTES:
            return self._stop(index, "over memory", seconds, peak)
        return Result(self.kind, index, answer["outcome"], answer["detail"], seconds, peak)

    def _peak(self, base: int) -> int:
        """Return the most memory that the process, or a command that it runs, has held above what it started with."""
        peak = _peak_of(self.process.pid) - base
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        except OSError:
            children = []
        return max([peak, *(_peak_of(int(child)) - COMMAND_BYTES for child in children)])

    def _stop(self, index: int, outcome: str, seconds: float, peak: int) -> Result:
        """Have the stacks of the process printed, and end it."""
        self.errors.truncate(0)
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)
        frames = re.findall(r'File "[^"]*/headstart/([^"]+)", line (\d+) in (\w+)', self._printed())
        stack = ", ".join(f"{file}:{line} {name}" for file, line, name in frames[:4])
        self.close()
        return Result(self.kind, index, outcome, stack, seconds, peak)

    def _printed(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    def close(self) -> None:
        """End the process and what it has started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        self.errors.close()


def _peak_of(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else 0


def run_job(kind: str, indices: range, seed: int, prepared: Path) -> list[Result]:
    """Use the inputs ``indices`` of a kind."""
    results: list[Result] = []
    worker = Worker(kind, seed, prepared)
    for index in indices:
        results.append(worker.run(index))
        if results[-1].outcome in FAILURES:
            worker.close()
            worker = Worker(kind, seed, prepared)
    worker.close()
    return results


def campaign(names: list[str], seed: int, count: int, workers: int, prepared: Path) -> Iterator[Result]:
    """Use ``count`` inputs, shared out among the kinds, and yield what became of each."""
    share = -(-count // len(names))
    jobs = [(name, range(i, min(i + JOB, share))) for i in range(0, share, JOB) for name in names]
    with ThreadPoolExecutor(workers) as pool:
        for results in pool.map(lambda job: run_job(*job, seed, prepared), jobs):
            yield from results


def main() -> None:
    """Run the campaign, or one input of it, or serve as a worker."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="all inputs follow from it")
    parser.add_argument("--count", type=int, default=240, help="inputs, shared out among the kinds")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind; may be repeated")
    parser.add_argument("--only", type=int, help="use one input, of the kind given, and show what is printed")
    parser.add_argument("--keep", default="", help="with --only: build it in this folder, where it stays")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes at once")
    for name in ("--worker", "--prepared"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        from fuzz.worker import main as serve

        serve(options.worker, str(options.seed), options.prepared, options.keep)
        return
    from fuzz.kinds import prepare

    with tempfile.TemporaryDirectory(prefix="headstart-fuzz-") as folder:
        prepare(Path(folder))
        names = options.kind or list(KINDS)
        if options.only is not None:
            worker = Worker(names[0], options.seed, Path(folder), options.keep)
            print(worker.run(options.only))
            worker.close()
            return
        results = list(
            _shown(campaign(names, options.seed, options.count, options.workers, Path(folder)), options.seed)
        )
    _print_table(results, names)
    sys.exit(any(result.outcome in FAILURES for result in results))


def _shown(results: Iterator[Result], seed: int) -> Iterator[Result]:
    """Print each failure as soon as it is known, with how to get it again."""
    for result in results:
        if result.outcome in FAILURES:
            print(f"{result.outcome}: {result.detail} ({result.seconds:.1f} s, {result.peak / 2**20:.0f} MiB)")
            print(f"    python tests/fuzz --kind {result.kind} --seed {seed} --only {result.index}", flush=True)
        yield result


def _print_table(results: list[Result], names: list[str]) -> None:
    print(f"| kind | inputs | {' | '.join(OUTCOMES)} | longest (s) | most memory (MiB) |")
    print("|" + "---|" * (len(OUTCOMES) + 4))
    for name in [*names, "all"]:
        rows = [result for result in results if name in (result.kind, "all")]
        counts = Counter(result.outcome for result in rows)
        most = max(result.seconds for result in rows), max(result.peak for result in rows) / 2**20
        cells = [name, len(rows), *(counts[outcome] for outcome in OUTCOMES), f"{most[0]:.1f}", f"{most[1]:.0f}"]
        print(f"| {' | '.join(map(str, cells))} |")
