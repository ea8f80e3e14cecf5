"""``headstart embed --on``: processor seconds an image, images a second and peak memory, beside Ray Data by hand.

    python benchmarks/scale.py [--images 1000,10000] [--runs 3] [--ray]

Generated images (JPEG, 300 x 300 pixels) in archives of 250, headstart-s on ONNX Runtime. One worker and two take
turns; peak memory is that of the largest worker and of the driver. With ``--ray`` the same shards go through Ray, and
through Ray Data's ``map_batches`` as one writes it by hand: an actor for each core that decodes, prepares and runs the
network.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from measure import print_table
from PIL import Image

IN_SHARD = 250

HEADSTART = """
import json, os, resource, sys, time
import headstart.classifier.embed_sharded as driver
from headstart.classifier import FitOptions
from headstart.data import ReadOptions
from headstart.features import Compute
from pathlib import Path

if __name__ == "__main__":
    pattern, out, on, workers = sys.argv[1:]
    kept = []
    run = driver.run_shards
    driver.run_shards = lambda *a, **k: kept.append(run(*a, **k)) or kept[0]
    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False)
    start = time.perf_counter()
    where = driver.Where(on, int(workers))
    driver.embed_sharded(pattern, Path(out), options, ReadOptions(), where)
    seconds = time.perf_counter() - start
    results = kept[0].results
    print(json.dumps({
        "images": sum(one.images for one in results),
        "seconds": seconds,
        "work_seconds": kept[0].seconds,
        "processor_seconds": sum(one.processor_seconds for one in results),
        "worker_peak": max(one.peak_bytes for one in results),
        "driver_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))
"""

RAY_DATA = """
import io, json, os, resource, sys, tarfile, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
import ray
import numpy as np

class Embed:
    def __init__(self):
        from headstart import backbones
        from headstart.features import Compute
        from headstart.features.extractor import load_backbone_graph
        self.backbone = backbones.load("headstart-s")
        self.graph = load_backbone_graph(self.backbone, Compute("onnxruntime", workers=1, fixed=True))

    def __call__(self, batch):
        from PIL import Image
        from headstart.features.extractor import run_backbone
        from headstart.images.decoding import decode
        start = time.process_time()
        pixels = np.stack([self.backbone.preprocess(Image.fromarray(decode(bytes(data)))) for data in batch["bytes"]])
        values = run_backbone(self.graph, self.backbone, pixels, 8)
        spent = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        n = len(pixels)
        return {**{tap: value.astype(np.float16) for tap, value in values.items()},
                "spent": np.full(n, spent / n), "peak": np.full(n, peak)}

def images(row):
    with tarfile.open(row["item"]) as archive:
        for member in archive:
            yield {"path": member.name, "bytes": archive.extractfile(member).read()}

if __name__ == "__main__":
    folder, out, workers = sys.argv[1:]
    shards = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    start = time.perf_counter()
    ray.init(num_cpus=int(workers) + 1, include_dashboard=False, object_store_memory=1 << 30, log_to_driver=False,
             logging_level="ERROR")
    ready = time.perf_counter()
    data = ray.data.from_items(shards, override_num_blocks=len(shards)).flat_map(images)
    rows = data.map_batches(Embed, batch_size=8, num_cpus=1, compute=ray.data.ActorPoolStrategy(size=int(workers)))
    rows.write_parquet(out)
    done = time.perf_counter()
    import pyarrow.parquet as parquet
    table = parquet.read_table(out, columns=["spent", "peak"])
    print(json.dumps({
        "images": table.num_rows,
        "seconds": done - start,
        "work_seconds": done - ready,
        "processor_seconds": float(np.sum(table.column("spent"))),
        "worker_peak": int(np.max(table.column("peak"))),
        "driver_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))
"""


def write_shards(folder: Path, count: int) -> Path:
    """Write ``count`` generated images of two classes, smooth colours under noise, in archives of ``IN_SHARD``."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for shard in range(count // IN_SHARD):
        with tarfile.open(folder / f"{shard:06}.tar", "w") as archive:
            for i in range(IN_SHARD):
                small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize(
                    (300, 300), Image.Resampling.BICUBIC
                )
                noise = rng.normal(0, 6, (300, 300, 1))
                stream = io.BytesIO()
                Image.fromarray(np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8)).save(
                    stream, "JPEG", quality=90
                )
                member = tarfile.TarInfo(f"{'ab'[i % 2]}/{shard:06}-{i:03}.jpg")
                member.size = stream.tell()
                stream.seek(0)
                archive.addfile(member, stream)
    return folder


def run(code: str, *arguments: object) -> dict[str, float]:
    """Run a program in a process of its own and return what it printed."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(code)
        script.flush()
        command = [sys.executable, script.name, *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Workers of headstart embed.")
    parser.add_argument("--images", default="1000,10000", help="numbers of generated images")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="also Ray, and Ray Data by hand")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for count in map(int, options.images.split(",")):
            folder = write_shards(Path(temporary) / f"{count}", count)
            pattern = f"{folder}/{{000000..{count // IN_SHARD - 1:06}}}.tar"
            kinds = [("processes", 1), ("processes", 2), *([("ray", 2), ("Ray Data", 2)] if options.ray else [])]
            found: dict[tuple[str, int], list[dict[str, float]]] = {kind: [] for kind in kinds}
            for number in range(options.runs):
                for kind, workers in kinds:
                    out = Path(temporary) / f"out-{count}-{kind}-{workers}-{number}".replace(" ", "-")
                    if kind == "Ray Data":
                        found[kind, workers].append(run(RAY_DATA, folder, out, workers))
                    else:
                        found[kind, workers].append(run(HEADSTART, pattern, out, kind, workers))
            show(count, found)


def show(count: int, found: dict[tuple[str, int], list[dict[str, float]]]) -> None:
    """Print a table of medians."""
    rows = []
    for (kind, workers), runs in found.items():
        middle = {name: median(one[name] for one in runs) for name in runs[0]}
        assert middle["images"] == count
        rows.append(
            {
                "by": kind,
                "workers": workers,
                "processor time of an image": f"{1000 * middle['processor_seconds'] / count:.1f} ms",
                "images/s": f"{count / middle['work_seconds']:,.0f}",
                "peak of a worker": f"{middle['worker_peak'] / 2**20:,.0f} MB",
                "peak of the driver": f"{middle['driver_peak'] / 2**20:,.0f} MB",
            }
        )
    print(f"\n{count:,} images, medians of {len(next(iter(found.values())))} runs that take turns\n")
    print_table(rows)
    first, second = (found["processes", number] for number in (1, 2))
    ratios = [b["processor_seconds"] / a["processor_seconds"] for a, b in zip(first, second, strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"\nProcessor seconds an image, two workers beside one: {median(ratios):.2f} ({spread})")


if __name__ == "__main__":
    main()
