"""Peak memory of ``fit`` and of ``check`` at growing numbers of generated images, beside what their features take.

    python benchmarks/memory.py [fit] [check]

``fit`` at 1,000 and 20,000 images on both runtimes, ``check`` at 5,000, 20,000 and 100,000 on ONNX Runtime.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from measure import Scratch, print_table
from PIL import Image

CLASSES = 4
# What is kept of an image, in bytes: the taps in int16, tiny image, content hash, image statistics.
BYTES_PER_IMAGE = 2 * sum((24, 32, 96, 320, 1280)) + 768 + 32 + 16

FIT = """
import sys
from headstart import Compute, FitOptions, fit_dataset, open_dataset
from headstart.cli.options import MANY_IMAGES
from headstart.machine import return_freed_memory
dataset = open_dataset(sys.argv[1])
if len(dataset) >= MANY_IMAGES:  # as the command does
    return_freed_memory()
fit_dataset(dataset, FitOptions(compute=Compute(sys.argv[2]), cache=False))
"""
CHECK = """
import sys
from headstart import Compute, open_dataset
from headstart.check import check_dataset
check_dataset(open_dataset(sys.argv[1]), Compute(sys.argv[2]))
"""
MEASURED = """
import resource, time
start = time.time()
{}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.time() - start)
"""


@dataclass(frozen=True)
class Task:
    """What is measured: a program, the numbers of images and the runtimes."""

    code: str
    counts: tuple[int, ...]
    runtimes: tuple[str, ...]


TASKS = {
    "fit": Task(FIT, (1_000, 20_000), ("onnxruntime", "openvino")),
    "check": Task(CHECK, (5_000, 20_000, 100_000), ("onnxruntime",)),
}


def write_image(folder: Path, i: int) -> None:
    """Write the image number ``i``, smooth noise, into the folder of its class."""
    noise = np.random.default_rng(i).integers(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray(noise).resize((160, 160), Image.Resampling.BICUBIC)
    image.save(folder / f"class{i % CLASSES}" / f"{i}.jpg", quality=85)


def write_images(folder: Path, count: int) -> Path:
    """Write ``count`` images into folders of classes."""
    for c in range(CLASSES):
        (folder / f"class{c}").mkdir(parents=True)
    with Pool() as pool:
        pool.starmap(write_image, [(folder, i) for i in range(count)], chunksize=100)
    return folder


def run_task(code: str, folder: Path, runtime: str) -> tuple[float, float]:
    """Run a program in a process of its own; return its peak memory in bytes and its seconds."""
    command = [sys.executable, "-c", MEASURED.format(code), str(folder), runtime]
    completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    peak, seconds = map(float, completed.stdout.split())
    return peak, seconds


def measure(name: str, folders: dict[int, Path]) -> list[dict[str, object]]:
    """Return a row for each runtime and number of images, with the growth since the number before."""
    task = TASKS[name]
    rows = []
    for runtime in task.runtimes:
        previous: tuple[float, int] | None = None
        for count in task.counts:
            peak, seconds = run_task(task.code, folders[count], runtime)
            row: dict[str, object] = {
                "": name,
                "runtime": runtime,
                "images": f"{count:,}",
                "seconds": seconds,
                "peak (MiB)": round(peak / 2**20),
            }
            if previous:
                previous_peak, previous_count = previous
                growth = (peak - previous_peak) / 2**20
                features = (count - previous_count) * BYTES_PER_IMAGE / 2**20
                row |= {
                    "grown by (MiB)": round(growth),
                    "features alone (MiB)": round(features),
                    "ratio": growth / features,
                }
            rows.append(row)
            previous = (peak, count)
    return rows


def main() -> None:
    names = sys.argv[1:] or list(TASKS)
    with Scratch() as scratch:
        counts = sorted({count for name in names for count in TASKS[name].counts})
        folders = {count: write_images(scratch.path / str(count), count) for count in counts}
        for name in names:
            print_table(measure(name, folders))


if __name__ == "__main__":
    main()
