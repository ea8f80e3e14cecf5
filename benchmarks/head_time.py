"""Processor time of the choice of the head by the number of images and classes, in two versions of Headstart.

    python benchmarks/head_time.py [--old OTHER_CHECKOUT/src] [--cases 2000x2,3030x101,20000x100]

Features are generated: taps of 112, 320 and 1,280 channels whose variances fall as those of a network's features do,
with classes that differ most where the features vary most. Each case is a process of its own with one thread. "Loss" is
the log-loss leaving one image out, "new" that on 2,000 other images of the same kind.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
CASES = "2000x2,3030x101,20000x100,20000x1000"
WORKER = """
import json, resource, sys, time
import numpy as np
from headstart.heads.selection import select_head
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas

count, classes, test = int(sys.argv[1]), int(sys.argv[2]), 2000
rng = np.random.default_rng(0)
labels = rng.permutation(np.arange(count + test) % classes)
values = {}
for tap, width, signal in (("early", 112, 0.15), ("middle", 320, 0.22), ("late", 1280, 0.28)):
    spread = np.geomspace(1, 0.03, width).astype(np.float32)
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0].astype(np.float32)
    means = rng.normal(size=(classes, width)).astype(np.float32) * spread**1.5 * signal * (0.6 if classes == 2 else 1)
    noise = rng.standard_normal((count + test, width), dtype=np.float32) * spread
    values[tap] = ((means[labels] + noise) @ rotation).astype(np.float16)
training_set = TrainingSet.of({tap: x[:count] for tap, x in values.items()}, labels[:count], np.arange(count))
start = time.process_time()
with single_threaded_blas():
    selected = select_head(training_set)
seconds = time.process_time() - start
x = np.concatenate([values[tap][count:] for tap in selected.head.taps], axis=1).astype(np.float32)
new = selected.head.probabilities(x)
def loss(p, y):
    return float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)).mean())
print(json.dumps({
    "seconds": seconds,
    "loss": loss(selected.probabilities, labels[:count]),
    "new": loss(new, labels[count:]),
    "accuracy": float((new.argmax(axis=1) == labels[count:]).mean()),
    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
}))
"""


def main() -> None:
    """Run all cases and print a row for each."""
    import json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", default=None, help="the src folder of the version to compare with")
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds a run may take")
    arguments = parser.parse_args()
    print("| images x classes | version | processor time, s | loss | new | accuracy, new | memory, MiB |")
    print("|---|---|---|---|---|---|---|")
    for case in arguments.cases.split(","):
        for name, source in (("now", SOURCE), ("before", arguments.old)):
            if source is None:
                continue
            environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-c", WORKER, *case.split("x")]
            try:
                output = subprocess.run(
                    command, env=environment, check=True, stdout=subprocess.PIPE, timeout=arguments.limit
                ).stdout
            except subprocess.TimeoutExpired:
                print(f"| {case} | {name} | more than {arguments.limit:.0f} | | | | |", flush=True)
                continue
            result = json.loads(output)
            print(
                f"| {case} | {name} | {result['seconds']:.1f} | {result['loss']:.4f} | {result['new']:.4f} | "
                f"{result['accuracy']:.1%} | {result['memory']} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
