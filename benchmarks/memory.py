"""Peak memory of ``fit`` and of ``check`` at growing numbers of generated pictures, beside what their features take.

    python benchmarks/memory.py [fit] [check]

``fit`` at 1,000 and 20,000 pictures on both runtimes, ``check`` at 5,000, 20,000 and 100,000 on ONNX Runtime.
"""

from __future__ import annotations

import subprocess
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from measure import Scratch, table
from PIL import Image

COUNTS = {"fit": (1_000, 20_000), "check": (5_000, 20_000, 100_000)}
RUNTIMES = {"fit": ("onnxruntime", "openvino"), "check": ("onnxruntime",)}
PER_PICTURE = 2 * sum((24, 32, 96, 320, 1280)) + 768 + 32 + 12  # bytes: taps in fp16, small picture, hash, looks
CODE = {
    "fit": """
from headstart import ImageClassifier
ImageClassifier(runtime=sys.argv[2], cache=False).fit(sys.argv[1])
""",
    "check": """
from headstart.check import check_dataset
from headstart.data import open_dataset
check_dataset(open_dataset(sys.argv[1]), runtime=sys.argv[2])
""",
}
FRAME = "import resource, sys, time\nt = time.time()\n{}\n" + (
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.time() - t)"
)


def picture(job: tuple[Path, int]) -> None:
    folder, i = job
    rng = np.random.default_rng(i)
    coarse = rng.integers(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray(coarse).resize((160, 160), Image.Resampling.BICUBIC)
    image.save(folder / f"class{i % 4}" / f"{i}.jpg", quality=85)


def generated(folder: Path, count: int) -> Path:
    for c in range(4):
        (folder / f"class{c}").mkdir(parents=True)
    with Pool() as pool:
        pool.map(picture, [(folder, i) for i in range(count)], chunksize=100)
    return folder


def grown(what: str, folders: dict[int, Path]) -> None:
    rows = []
    for runtime in RUNTIMES[what]:
        before = None
        for count in COUNTS[what]:
            command = [sys.executable, "-c", FRAME.format(CODE[what]), str(folders[count]), runtime]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            peak, seconds = map(float, done.stdout.split())
            row = {"": what, "runtime": runtime, "pictures": f"{count:,}", "seconds": seconds,
                   "peak (MiB)": round(peak / 2**20)}  # fmt: skip
            if before:
                more, own = (peak - before[0]) / 2**20, (count - before[1]) * PER_PICTURE / 2**20
                row |= {"grown by (MiB)": round(more), "features alone (MiB)": round(own), "ratio": more / own}
            rows.append(row)
            before = (peak, count)
    table(rows)


if __name__ == "__main__":
    asked = sys.argv[1:] or list(COUNTS)
    with Scratch() as scratch:
        counts = sorted({count for what in asked for count in COUNTS[what]})
        folders = {count: generated(scratch.path / str(count), count) for count in counts}
        for what in asked:
            grown(what, folders)
