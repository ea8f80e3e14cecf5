"""What the benchmarks share: whole processes timed side by side, medians, tables."""

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
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
COMMAND = str(Path(sys.executable).with_name("headstart"))


def shared() -> Path:
    """The reference data (``$HEADSTART_SHARED``, else ``../shared`` beside the repository)."""
    folder = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        sys.exit(f"There is no reference data in {folder}; set HEADSTART_SHARED.")
    return folder


def arguments(description: str | None, runs: int = 5) -> argparse.Namespace:
    """``--runs N``; more is steadier."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=runs)
    return parser.parse_args()


def process(command: Sequence[object], cache: Path, **variables: str) -> tuple[float, float, str]:
    """Seconds of wall time and of processor time of a whole process, and its standard output.

    The process may write byte code and finds it, as that of an installed package does.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        list(map(str, command)), env={**inherited, "HEADSTART_CACHE": str(cache), **variables},
        capture_output=True, text=True,
    )  # fmt: skip
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{command} ended with {done.returncode}: {done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def side_by_side(runs: int, **cases: Callable[[], float]) -> dict[str, float]:
    """The median of each case; the cases take turns, so that a busy moment hits all of them."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, case in cases.items():
            found[name].append(case())
    return {name: median(values) for name, values in found.items()}


def table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a Markdown table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names))
    for row in rows:
        cells = (row.get(name, "") for name in names)
        print("| " + " | ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in cells) + " |")
    print(flush=True)


class Scratch:
    """A temporary folder as a context manager, with a fresh cache folder on demand."""

    def __enter__(self) -> Scratch:
        self.path = Path(tempfile.mkdtemp(prefix="headstart-benchmark-"))
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)

    def cache(self) -> Path:
        """An empty cache folder."""
        return Path(tempfile.mkdtemp(dir=self.path, prefix="cache-"))
