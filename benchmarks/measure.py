"""What the benchmarks share: reference data, timed processes, medians, tables."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
COMMAND = str(Path(sys.executable).with_name("headstart"))


@dataclass(frozen=True)
class ProcessResult:
    """Result of a process: wall time and processor time in seconds, and its standard output."""

    seconds: float
    cpu_seconds: float
    output: str


def shared() -> Path:
    """Return the folder of the reference data: ``$HEADSTART_SHARED``, or ``../shared`` beside the repository."""
    folder = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        sys.exit(f"There is no reference data in {folder}; set HEADSTART_SHARED.")
    return folder


def mobilenetv2() -> str:
    """Return the id of MobileNetV2 at 224 x 224 pixels with weights of ImageNet, a file of the reference data."""
    return f"onnx:{shared() / 'weights' / 'mobilenetv2-imagenet.onnx'}"


def parse_runs(description: str | None, default: int = 5) -> int:
    """Read the number of runs, ``--runs N``, from the command line."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=default, help="medians of more runs vary less")
    runs: int = parser.parse_args().runs
    return runs


def run_process(command: Sequence[object], cache: Path) -> ProcessResult:
    """Run a command with the cache folder ``cache``; end this process with a message if it fails.

    The command may write byte code and finds it, as that of an installed package does.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["HEADSTART_CACHE"] = str(cache)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    completed = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if completed.returncode:
        sys.exit(f"{command} ended with status {completed.returncode}: {completed.stderr}")
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ProcessResult(seconds, cpu_seconds, completed.stdout)


def alternating_medians(runs: int, cases: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Return the median of ``runs`` values of each case; the cases take turns, so that a busy moment affects all."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, case in cases.items():
            values[name].append(case())
    return {name: median(measured) for name, measured in values.items()}


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a Markdown table; the columns are the keys of all rows, in the order of their first use."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print(f"| {' | '.join(columns)} |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print(f"| {' | '.join(_cell(row.get(name, '')) for name in columns)} |")
    print(flush=True)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Scratch:
    """A temporary folder as a context manager, with a new cache folder on demand."""

    def __enter__(self) -> Scratch:
        self.path = Path(tempfile.mkdtemp(prefix="headstart-benchmark-"))
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)

    def cache(self) -> Path:
        """Make an empty cache folder."""
        return Path(tempfile.mkdtemp(dir=self.path, prefix="cache-"))
