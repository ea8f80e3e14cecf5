"""What the report costs: to write and to hold at 1,000 and 10,000 generated images, and what a fit pays for it.

    python benchmarks/report.py [--runs 5]

A fit is timed as a whole process, with and without the report, cold and warm, and up to the printed result.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from measure import COMMAND, Scratch, alternating_medians, mobilenetv2, parse_runs, print_table, run_process, shared
from memory import write_images

COUNTS = (1_000, 10_000)
# Prints seconds of the first report, of another, and of ``headstart report``; the size of the page in bytes; and the
# peak memory in KiB of the fit, and with the reports.
WRITE_REPORTS = """
import resource, sys, time
from headstart import fit_dataset, open_dataset
from headstart.features import FeatureCache
from headstart.cli.options import MANY_IMAGES
from headstart.machine import return_freed_memory
from headstart.model.folder import write_model
dataset = open_dataset(sys.argv[1])
if len(dataset) >= MANY_IMAGES:  # as the command does
    return_freed_memory()
result = fit_dataset(dataset)
write_model(result.model, sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from headstart import report
times = [time.perf_counter()]
for _ in range(2):
    with FeatureCache() as cache:
        page = report.write_report(result, sys.argv[2], cache=cache)
    times.append(time.perf_counter())
report.rewrite_report(sys.argv[2])
times.append(time.perf_counter())
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(*(end - start for start, end in zip(times, times[1:])), page.stat().st_size, before, after)
"""


def measure_sizes() -> list[dict[str, object]]:
    """Return a row for each number of images: seconds, size and memory of the report."""
    rows = []
    with Scratch() as scratch:
        for count in COUNTS:
            folder = write_images(scratch.path / str(count), count)
            result = run_process([sys.executable, "-c", WRITE_REPORTS, folder, scratch.path / "model"], scratch.cache())
            first, again, rewritten, size, before, after = map(float, result.output.split())
            rows.append(
                {
                    "images": f"{count:,}",
                    "first report (s)": first,
                    "again (s)": again,
                    "headstart report (s)": rewritten,
                    "report.html (MB)": size / 1e6,
                    "peak of the fit (MiB)": round(before / 2**10),
                    "with the report (MiB)": round(after / 2**10),
                }
            )
    return rows


def seconds_until_printed(command: list[object], cache: Path) -> float:
    """Return the seconds until a fit has printed the folder of its model."""
    environment = {**os.environ, "HEADSTART_CACHE": str(cache)}
    start = time.perf_counter()
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        seconds = next(time.perf_counter() - start for line in process.stdout if line.startswith("Model"))
        process.stdout.read()
    return seconds


def measure_fit(backbone: str, runs: int, scratch: Scratch) -> dict[str, object]:
    """Return the row of a backbone."""
    data = shared() / "data" / "horse-or-human"
    command = [COMMAND, "fit", data, "--backbone", backbone, "-o", scratch.path / "model", "--quiet"]
    warm_cache = scratch.cache()
    run_process(command, warm_cache)
    cpu_seconds: dict[str, list[float]] = {}  # a busy machine changes them less

    def fit(case: str, cache: Path, *flags: str) -> float:
        result = run_process([*command, *flags], cache)
        cpu_seconds.setdefault(case, []).append(result.cpu_seconds)
        return result.seconds

    seconds = alternating_medians(
        runs,
        {
            "warm, no report": lambda: fit("warm, no report", warm_cache, "--no-report"),
            "warm, until printed": lambda: seconds_until_printed(command, warm_cache),
            "warm, whole": lambda: fit("warm, whole", warm_cache),
            "cold, no report": lambda: fit("cold, no report", scratch.cache(), "--no-report"),
            "cold, whole": lambda: fit("cold, whole", scratch.cache()),
        },
    )
    cpu = {case: median(values) for case, values in cpu_seconds.items()}
    return {
        "backbone": Path(backbone).name,
        **{f"{case} (s)": value for case, value in seconds.items()},
        "processor time of the report, warm (s)": cpu["warm, whole"] - cpu["warm, no report"],
        "cold (s)": cpu["cold, whole"] - cpu["cold, no report"],
    }


def main() -> None:
    runs = parse_runs(__doc__)
    own_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{own_memory} MiB at the start; load {os.getloadavg()[0]:.1f}")
    with Scratch() as scratch:
        print_table([measure_fit(backbone, runs, scratch) for backbone in ("headstart-s", mobilenetv2())])
    print_table(measure_sizes())


if __name__ == "__main__":
    main()
