"""Accuracy and speed of the built-in backbones, which ``headstart backbones list`` shows.

    python benchmarks/built_in.py [--runs 3] [--write]

With ``--write`` the figures are written to the ``backbone.json`` of each. By ONNX Runtime in fp32, which every
machine has.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from measure import Scratch, alternating_medians, print_table, shared

import headstart as hs
from headstart import backbones
from headstart.backbones import DEFAULT_BACKBONE, FAST_BACKBONE, Backbone
from headstart.features import embed

DATASETS = ("ants-bees", "horse-or-human")
PHOTOGRAPHS = "ants-bees"  # whose reading is timed
COMPUTE = hs.Compute("onnxruntime", "fp32")


def accuracies(id: str) -> dict[str, dict[str, int]]:
    """Return the correct validation images with the defaults of a fit, and all of them, by data set."""
    rows = {}
    for name in DATASETS:
        dataset = hs.open_dataset(shared() / "data" / name)
        accuracy = hs.fit_dataset(dataset, hs.FitOptions(id, compute=COMPUTE)).accuracy["validation"]
        rows[name] = {"correct": accuracy.correct, "count": accuracy.count}
    return rows


def images_per_second(backbone: Backbone) -> float:
    """Return how many photographs two cores read into features in a second, decoding included.

    By processor time, which other work on the machine changes less than the time that passes.
    """
    dataset = hs.open_dataset(shared() / "data" / PHOTOGRAPHS)
    start = time.process_time()
    images = len(embed(dataset, backbone, COMPUTE).index)
    return 2 * images / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    networks = {id: backbones.load(id) for id in (DEFAULT_BACKBONE, FAST_BACKBONE)}
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        accuracy = {id: accuracies(id) for id in networks}
        speeds = alternating_medians(
            options.runs, {id: partial(images_per_second, backbone) for id, backbone in networks.items()}
        )
    how = f"{datetime.now(UTC):%Y-%m-%d}, defaults of fit, ONNX Runtime fp32"
    for id, backbone in networks.items():
        path = Path(str(backbone.graph)).with_name("backbone.json")
        description = json.loads(path.read_text("utf-8"))
        description["measured"] = {"accuracy": accuracy[id], "images_per_second": round(speeds[id], 1), "how": how}
        if options.write:
            path.write_text(json.dumps(description, indent=2) + "\n", "utf-8")
    print_table(
        [
            {
                "backbone": id,
                "images/s": round(speeds[id], 1),
                **{name: f"{row['correct']}/{row['count']}" for name, row in accuracy[id].items()},
            }
            for id in networks
        ]
    )


if __name__ == "__main__":
    main()
