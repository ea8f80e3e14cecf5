"""Peak memory of ``fit`` at 1,000, 5,000 and 20,000 generated pictures, on both runtimes.

python benchmarks/memory.py
"""

from __future__ import annotations

import subprocess
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from measure import Scratch, table
from PIL import Image

COUNTS = (1_000, 5_000, 20_000)
CODE = """
import resource, sys
from headstart import ImageClassifier
c = ImageClassifier(runtime=sys.argv[2], cache=False).fit(sys.argv[1])
features = c.run_["images"]["train"] * (2 * sum(t for t in (24, 32, 96, 320, 1280)) + 768 + 32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, features)
"""


def picture(job: tuple[Path, int]) -> None:
    folder, i = job
    rng = np.random.default_rng(i)
    coarse = rng.integers(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray(coarse).resize((160, 160), Image.Resampling.BICUBIC)
    image.save(folder / f"class{i % 4}" / f"{i}.jpg", quality=85)


if __name__ == "__main__":
    with Scratch() as scratch, Pool() as pool:
        rows = []
        for count in COUNTS:
            folder = scratch.path / str(count)
            for c in range(4):
                (folder / f"class{c}").mkdir(parents=True)
            pool.map(picture, [(folder, i) for i in range(count)], chunksize=100)
        for runtime in sys.argv[1:] or ("onnxruntime", "openvino"):
            peaks = []
            for count in COUNTS:
                done = subprocess.run(
                    [sys.executable, "-c", CODE, str(scratch.path / str(count)), runtime],
                    stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                peak, features = map(int, done.stdout.split())
                peaks.append((peak, features))
            before = None
            for count, (peak, features) in zip(COUNTS, peaks, strict=True):
                row = {"runtime": runtime, "pictures": count, "peak (MiB)": peak // 2**20}
                if before:
                    grown, own = (peak - before[0]) / 2**20, (features - before[1]) / 2**20
                    row |= {"grown by (MiB)": round(grown), "features alone (MiB)": round(own), "ratio": grown / own}
                rows.append(row)
                before = (peak, features)
        table(rows)
