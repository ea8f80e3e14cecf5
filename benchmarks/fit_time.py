"""Whole-process time of ``fit`` on horse-or-human with the default backbone: cold, warm, and with ten images added.

    python benchmarks/fit_time.py [--runs 5] [--old OTHER/src]

``fit`` is timed without its report and with it; people see the result before the report is made. The bound of a cold
fit, measured in the same run: processor time of decoding divided by the cores, plus one forward pass. With ``--old``
only this version and another take turns: machines differ more than versions do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import COMMAND, Scratch, alternating_medians, print_table, run_process, shared

from headstart import Compute, Dataset, backbones, open_dataset
from headstart.backbones import DEFAULT_BACKBONE, Backbone
from headstart.features.extractor import BATCH_SIZE
from headstart.features.runtime import load_graph
from headstart.images.decoding import decode
from headstart.machine import cores

ADDED_IMAGES = 10


def lower_bound(dataset: Dataset, backbone: Backbone, runtime: str) -> float:
    """Return seconds: decoding and resizing alone, divided by the cores, plus inference alone on all cores."""
    preprocess = backbone.preprocess
    start = time.process_time()
    pixels = [preprocess(decode(dataset.read(i), min_size=preprocess.min_size)) for i in range(len(dataset))]
    decoding = (time.process_time() - start) / cores()
    graph = load_graph(backbone.graph, Compute(runtime))
    batches = [np.stack(pixels[i : i + BATCH_SIZE]) for i in range(0, len(pixels), BATCH_SIZE)]
    with ThreadPoolExecutor(graph.workers) as pool:
        list(pool.map(graph.run, batches[:4]))  # warm up
        start = time.perf_counter()
        list(pool.map(graph.run, batches))
        return decoding + time.perf_counter() - start


def copy_with_more_images(data: Path, target: Path) -> Path:
    """Copy the dataset and add images of another to its training images."""
    shutil.copytree(data, target)
    for image in sorted((shared() / "data" / "ants-bees" / "val" / "bees").glob("*.jpg"))[:ADDED_IMAGES]:
        shutil.copy(image, target / "train" / "horses" / image.name)
    return target


def measure(data: Path, runtime: str, runs: int, scratch: Scratch) -> dict[str, object]:
    """Return the row of a runtime."""
    command = [COMMAND, "fit", "-o", scratch.path / "model", "--json", "--quiet"]

    def fit(source: Path, cache: Path, report: str) -> tuple[float, dict[str, Any]]:
        result = run_process([*command, source, "--runtime", runtime, report], cache)
        return result.seconds, json.loads(result.output)

    warm_cache = scratch.cache()
    fit(data, warm_cache, "--no-report")
    backbone = backbones.load(DEFAULT_BACKBONE)
    medians = alternating_medians(
        runs,
        {
            "bound": partial(lower_bound, open_dataset(data), backbone, runtime),
            "cold": lambda: fit(data, scratch.cache(), "--no-report")[0],
            "cold with report": lambda: fit(data, scratch.cache(), "--report")[0],
            "warm": lambda: fit(data, warm_cache, "--no-report")[0],
            "warm with report": lambda: fit(data, warm_cache, "--report")[0],
        },
    )
    _, summary = fit(copy_with_more_images(data, scratch.path / f"more-{runtime}"), warm_cache, "--no-report")
    return {
        "runtime": runtime,
        "bound (s)": medians["bound"],
        "limit 1.15 x bound + 0.8 (s)": 1.15 * medians["bound"] + 0.8,
        "cold (s)": medians["cold"],
        "cold, with the report (s)": medians["cold with report"],
        "warm (s)": medians["warm"],
        "warm, with the report (s)": medians["warm with report"],
        f"cache misses after {ADDED_IMAGES} more": summary["cache"]["misses"],
    }


def compare(data: Path, old: Path, runs: int, scratch: Scratch) -> list[dict[str, object]]:
    """Return a row for a first and for a second fit, without the report and with it, by this version and by another."""

    def fit(version: str, source: Path, report: str, is_cold: bool) -> float:
        python = ["env", f"PYTHONPATH={source}", sys.executable, "-m", "headstart"]
        options = ["--runtime", "openvino", "-o", scratch.path / version, "--quiet", report]
        cache = scratch.cache() if is_cold else scratch.path / f"cache-{version}"
        return run_process([*python, "fit", data, *options], cache).seconds

    versions = {"now": Path(__file__).resolve().parents[1] / "src", "before": old}
    rows = []
    for is_cold in (False, True):
        for report in ("--no-report", "--report"):
            cases = {name: partial(fit, name, source, report, is_cold) for name, source in versions.items()}
            alternating_medians(1, cases)  # byte code, and the cache of a second fit
            medians = alternating_medians(runs, cases)
            ratio = medians["now"] / medians["before"]
            rows.append({"fit": "first" if is_cold else "second", "report": report, **medians, "ratio": f"{ratio:.2f}"})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="medians of more runs vary less")
    parser.add_argument("--old", type=Path, help="the src folder of the version to compare with")
    arguments = parser.parse_args()
    with Scratch() as scratch:
        data = shared() / "data" / "horse-or-human"
        if arguments.old is not None:
            print_table(compare(data, arguments.old, arguments.runs, scratch))
            return
        print_table([measure(data, runtime, arguments.runs, scratch) for runtime in ("openvino", "onnxruntime")])


if __name__ == "__main__":
    main()
