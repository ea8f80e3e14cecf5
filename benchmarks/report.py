"""What the report costs: to write and to hold at 1,000 and 10,000 generated pictures, and what a fit pays for it.

    python benchmarks/report.py [--runs 5]

A fit is timed as a whole process, with and without the report, cold and warm, and up to the printed result.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from multiprocessing import Pool
from pathlib import Path
from statistics import median

from measure import COMMAND, Scratch, arguments, process, shared, side_by_side, table
from memory import picture

COUNTS = (1_000, 10_000)
CODE = """
import resource, sys, time
from pathlib import Path
from headstart import ImageClassifier
from headstart.features.cache import FeatureCache
with FeatureCache() as cache:
    c = ImageClassifier().fit(sys.argv[1])
c.save(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from headstart import report
found = [time.perf_counter()]
for _ in range(2):
    with FeatureCache() as cache:
        page = report.write(c, sys.argv[2], cache=cache)
    found.append(time.perf_counter())
report.rewrite(sys.argv[2])
found.append(time.perf_counter())
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(*(b - a for a, b in zip(found, found[1:])), page.stat().st_size, before * 1024, after * 1024)
"""


def until_printed(command: list[str], cache: Path) -> float:
    """Seconds until a fit has printed the folder of its model."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HEADSTART_CACHE": str(cache)}
    ) as run:
        assert run.stdout is not None
        seconds = next(time.perf_counter() - began for line in run.stdout if line.startswith("Model"))
        run.stdout.read()
    return seconds


def sizes() -> None:
    rows = []
    with Scratch() as scratch, Pool() as pool:
        for count in COUNTS:
            folder = scratch.path / str(count)
            for c in range(4):
                (folder / f"class{c}").mkdir(parents=True)
            pool.map(picture, [(folder, i) for i in range(count)], chunksize=100)
            _, _, out = process([sys.executable, "-c", CODE, folder, scratch.path / "model"], scratch.cache())
            first, again, rewritten, size, before, after = map(float, out.split())
            rows.append(
                {"pictures": f"{count:,}", "first report (s)": first, "again (s)": again,
                 "headstart report (s)": rewritten, "report.html (MB)": size / 1e6,
                 "peak of the fit (MiB)": round(before / 2**20), "with the report (MiB)": round(after / 2**20)}
            )  # fmt: skip
    table(rows)


def fits(runs: int) -> None:
    data, weights = shared() / "data" / "horse-or-human", shared() / "weights" / "mobilenetv2-imagenet.onnx"
    rows = []
    with Scratch() as scratch:
        for name in ("headstart-s", f"onnx:{weights}"):
            command = [COMMAND, "fit", data, "--backbone", name, "-o", scratch.path / "m", "--quiet"]
            warm = scratch.cache()
            process(command, warm)

            work: dict[str, list[float]] = {}  # processor time: a busy machine changes it less

            def whole(case, cache, *more, command=command, work=work):
                wall, processor, _ = process([*command, *more], cache)
                work.setdefault(case, []).append(processor)
                return wall

            found = side_by_side(
                runs,
                without=lambda whole=whole, warm=warm: whole("without", warm, "--no-report"),
                printed=lambda command=command, warm=warm: until_printed(list(map(str, command)), warm),
                whole=lambda whole=whole, warm=warm: whole("whole", warm),
                cold_without=lambda whole=whole: whole("cold_without", scratch.cache(), "--no-report"),
                cold=lambda whole=whole: whole("cold", scratch.cache()),
            )
            spent = {case: median(values) for case, values in work.items()}
            rows.append(
                {"backbone": Path(name).name, "warm, no report (s)": found["without"],
                 "warm, until printed (s)": found["printed"], "warm, whole (s)": found["whole"],
                 "cold, no report (s)": found["cold_without"], "cold, whole (s)": found["cold"],
                 "processor time of the report, warm (s)": spent["whole"] - spent["without"],
                 "cold (s)": spent["cold"] - spent["cold_without"]}
            )  # fmt: skip
    table(rows)


if __name__ == "__main__":
    runs = arguments(__doc__).runs
    print(
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB to begin with; {os.getloadavg()[0]:.1f} load"
    )
    fits(runs)
    sizes()
