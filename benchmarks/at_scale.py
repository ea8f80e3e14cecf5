"""What a fit takes beyond one machine: seconds and peak memory by the number of images, with generated features.

    python benchmarks/at_scale.py [--parts statistics,driver,head,groups,rows,merge] [--largest 1000000]

Each row is a process of its own with one thread; seconds are those of the processor. Features are whole numbers of
1,280 channels.

*statistics*: shards of 4,096 rows are summed one after the other (1,000 classes), and a head is made of the sums.
*driver*: who hands out the shards, 1,024 images each, and takes their results, with workers that do nothing. *head*:
the choice of the head as in ``head_time.py``, of the deepest tap alone. *groups*: by pixels and features, of all pairs
up to 20,000 images and among nearest neighbours beyond. *rows*: kept rows are read and put in order, as ``merge`` does
first; "arrays" are the MiB that they take themselves. *merge*: all that the command does with kept rows of all taps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from measure import print_table

SOURCE = Path(__file__).resolve().parents[1] / "src"
START = """
import hashlib, json, resource, sys, time
import numpy as np
from headstart.machine import single_threaded_blas
count, classes, width = int(sys.argv[1]), int(sys.argv[2]), 1280
rng = np.random.default_rng(0)
def end(start, **more):
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, **more}))
"""
FEATURES = """
from headstart.heads.integers import IntegerVectors
spread = np.geomspace(1, 0.03, width).astype(np.float32)
labels = rng.permutation(np.arange(count) % classes)
means = rng.standard_normal((classes, width), dtype=np.float32) * spread**1.5 * 0.28
whole = np.empty((count, width), np.int16)
for i in range(0, count, 4096):
    rows = slice(i, min(i + 4096, count))
    noise = rng.standard_normal((rows.stop - rows.start, width), dtype=np.float32) * spread
    whole[rows] = np.rint((means[labels[rows]] + noise) * 4096)
x = IntegerVectors(whole, np.full(width, -12))
"""
ROWS = """
import tempfile
from pathlib import Path
from headstart.classifier.parts import merge_parts
from headstart.features.rows import Machine, Rows, Source
from headstart.features.rows_folder import FILE, Shard, listing, shard_bytes, shard_entry
from headstart.features.runtime import RuntimeInfo
def write_shards(folder, source, generated):
    entries = []
    for first in range(0, count, 1024):
        size = min(1024, count - first)
        labels, values = generated(first, size)
        rows = Rows(rng.integers(0, 256, (size, 32), np.uint8),
            tuple(f"photos/{label:04}/{i:09}.jpg" for i, label in enumerate(labels.tolist(), first)),
            tuple(f"{label:04}" for label in labels.tolist()),
            ("train",) * size, (None,) * size, ("",) * size, rng.integers(0, 256, (size, 768), np.uint8),
            np.zeros((size, 4), np.float32), values)
        data = shard_bytes(Shard(rows))
        entries.append(shard_entry(f"{first:032x}.parquet", size, data))
        (folder / entries[-1]["name"]).write_bytes(data)
    (folder / FILE).write_bytes(listing(source, entries))
"""
PARTS = {
    "statistics": START
    + """
from headstart.heads.from_statistics import TapStatistics, fit_statistics
from headstart.heads.integers import IntegerVectors
from headstart.heads.statistics import Statistics
shard = rng.integers(-9000, 9001, (4096, width)).astype(np.int16)
label = rng.integers(0, classes, 4096)
def parts():
    for i in range(0, count, 4096):
        size = min(4096, count - i)
        rows = np.roll(shard[:size], i // 4096, axis=1)  # another shard, without the time of making one
        yield Statistics.of(IntegerVectors(rows, np.full(width, -12)), label[:size], classes)
with single_threaded_blas():
    start = time.process_time()
    total = Statistics.merged(parts())
    summed = time.process_time() - start
    fit_statistics(TapStatistics({"features": (-12,) * width}, total))
end(start, sums=round(summed, 1))
""",
    "driver": START
    + """
from headstart.data import ReadOptions
from headstart.scale.contract import ShardResult
from headstart.scale.run import Event, run_shards
from headstart.scale.shards import Shard
names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(count // 1024)]
shards = [Shard(f"{i:06}.tar", name, f"s3://bucket/{i:06}.tar", "whole", ReadOptions()) for i, name in enumerate(names)]
class Work:
    def finished(self, shard): return None
class Workers:
    count = 64
    def __enter__(self):
        self.given = []
        return self
    def __exit__(self, *_): pass
    def submit(self, shard): self.given.append(shard)
    def wait(self, seconds):
        done, self.given = self.given, []
        return [Event(s.sha256, ShardResult(s.sha256, 1024, file_bytes=3_500_000, file_sha256=s.sha256)) for s in done]
start = time.process_time()
outcome = run_shards(shards, Work(), lambda _: Workers(), progress=lambda _: None)
end(start, shards=len(outcome.results))
""",
    "head": START
    + FEATURES
    + """
from headstart.heads.selection import select_head
from headstart.heads.training_set import TrainingSet
start = time.process_time()
with single_threaded_blas():
    selected = select_head(TrainingSet.of({"features": x}, labels, np.arange(count)))
end(start, head=selected.head.kind, right=round(float((selected.probabilities.argmax(1) == labels).mean()), 4))
""",
    "groups": START
    + FEATURES
    + """
from headstart.splits.groups import find_groups
tiny = rng.integers(0, 256, (count, 768), np.uint8)
copies = np.arange(0, count // 20 * 2, 2)  # a tenth of the images are pairs
tiny[copies + 1], whole[copies + 1], labels[copies + 1] = tiny[copies], whole[copies] + 20, labels[copies]
hashes = np.frombuffer(b"".join(hashlib.sha256(i.to_bytes(8, "big")).digest() for i in range(count)), np.uint8)
start = time.process_time()
with single_threaded_blas():
    groups = find_groups(hashes.reshape(count, 32), tiny, x, labels)
pairs = int((groups.index[copies] == groups.index[copies + 1]).sum())
end(start, by=groups.method, found=f"{pairs:,} of {len(copies):,}")
""",
    "rows": START
    + ROWS
    + """
from headstart.images.preprocess import Preprocess
def noise(first, size):
    return np.arange(first, first + size) % classes, {"features": rng.integers(-9000, 9001, (size, width), np.int16)}
machine = Machine(RuntimeInfo("onnxruntime", "1", "fp32"), "x86_64", {"features": np.zeros((8, width), np.float32)})
backbone = {"id": "headstart-s", "sha256": "ab" * 32, "licence": "", "source": "", "precision": "fp32"}
source = Source(backbone, {"features": (-12,) * width}, None, Preprocess(160, 160), (machine,))
with tempfile.TemporaryDirectory() as folder:
    write_shards(Path(folder), source, noise)
    start = time.process_time()
    rows = merge_parts([Path(folder)]).rows
arrays = (rows.content_hashes, rows.tiny_images, rows.image_stats, *rows.values.values())
assert rows.hashes == sorted(rows.hashes)
end(start, arrays=sum(array.nbytes for array in arrays) // 2**20)
""",
    "merge": START
    + ROWS
    + """
from PIL import Image
from headstart import open_dataset
from headstart.classifier import FitOptions
from headstart.classifier.embed_folder import embed_to_folder
from headstart.features.rows_folder import open_rows
from headstart.classifier.refit import fit_features
with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    for i in range(2):
        (folder / "images" / f"{i}").mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / "images" / f"{i}" / "image.png")
    embed_to_folder(open_dataset(folder / "images"), folder / "few", FitOptions("headstart-s", cache=False))
    source = open_rows(folder / "few").source
    widths = {tap: len(exponents) for tap, exponents in source.taps.items()}
    spread = {tap: np.geomspace(1, 0.03, width).astype(np.float32) for tap, width in widths.items()}
    means = {tap: rng.standard_normal((classes, width), dtype=np.float32) * spread[tap]**1.5 * 0.28
        for tap, width in widths.items()}
    def generated(first, size):
        labels = np.arange(first, first + size) % classes
        return labels, {tap: np.rint((means[tap][labels]
            + rng.standard_normal((size, width), dtype=np.float32) * spread[tap]) * 4096).astype(np.int16)
            for tap, width in widths.items()}
    (folder / "rows").mkdir()
    write_shards(folder / "rows", source, generated)
    start = time.process_time()
    marks = []
    def log(text): marks.append(f"{time.process_time() - start:.0f} s: {text}")
    features = merge_parts([folder / "rows"])
    log("rows")
    result = fit_features(features, FitOptions(), log=log)
    log("fit")
    result.save(folder / "model")
    arrays = (features.rows.tiny_images, *features.rows.values.values())
sys.stderr.write(chr(10).join(marks) + chr(10))
end(start, arrays=sum(array.nbytes for array in arrays) // 2**20, groups=result.model.run["groups"]["count"])
""",
}
CASES = {
    "statistics": [(10**4, 1000), (10**5, 1000), (10**6, 1000), (10**7, 1000)],
    "driver": [(10**6, 1), (10**7, 1), (10**8, 1)],
    "head": [(10**4, 100), (10**5, 100), (10**6, 100), (20_000, 1000)],
    "groups": [(10**4, 100), (2 * 10**4, 100), (10**5, 100), (2 * 10**5, 100), (10**6, 100)],
    "rows": [(10**4, 100), (10**5, 100), (10**6, 100)],
    "merge": [(10**4, 100), (10**5, 100), (10**6, 100)],
}


def main() -> None:
    """Run all cases and print a row for each."""
    import json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(CASES))
    parser.add_argument("--largest", type=int, default=10**6, help="images; more are left out, but of the driver")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds a case may take")
    arguments = parser.parse_args()
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    for part in arguments.parts.split(","):
        rows = []
        for count, classes in CASES[part]:
            if count > arguments.largest and part != "driver":
                continue
            about = {"part": part, "images": f"{count:,}", "classes": f"{classes:,}"}
            command = [sys.executable, "-c", PARTS[part], str(count), str(classes)]
            try:
                run = subprocess.run(
                    command, env=environment, check=True, stdout=subprocess.PIPE, timeout=arguments.limit
                )
            except subprocess.TimeoutExpired:
                rows.append({**about, "seconds": f"more than {arguments.limit:.0f}"})
                continue
            result = json.loads(run.stdout)
            rows.append({**about, **result, "seconds": round(result["seconds"], 1)})
            sys.stderr.write(f"{rows[-1]}\n")
        print_table(rows)


if __name__ == "__main__":
    main()
