"""Whole-process time of ``fit`` on horse-or-human: cold, warm, and with ten pictures added.

    python benchmarks/fit_time.py [--runs 5]

``fit`` is timed without its report and with it; people see the result before the report is made. The bound of a cold
fit, measured in the same run: processor time of decoding over the cores, plus one forward pass.
"""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
from measure import COMMAND, Scratch, arguments, process, shared, side_by_side, table

from headstart import backbones
from headstart.data import open_dataset
from headstart.features.extractor import BATCH
from headstart.features.runtime import load_graph
from headstart.images.decode import decode
from headstart.machine import cores


def bound(dataset, backbone, runtime: str) -> float:
    """Seconds: decoding and resizing alone over the cores, plus inference alone on all of them."""
    from concurrent.futures import ThreadPoolExecutor

    prepare = backbone.preprocess
    began = time.process_time()
    pixels = [prepare(decode(dataset.read(i), at_least=prepare.at_least)) for i in range(len(dataset))]
    decoding = (time.process_time() - began) / cores()
    graph = load_graph(backbone.graph, runtime=runtime)
    batches = [np.stack(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)]
    with ThreadPoolExecutor(graph.workers) as pool:
        list(pool.map(graph.run, batches[:4]))  # warm up
        began = time.perf_counter()
        list(pool.map(graph.run, batches))
        return decoding + time.perf_counter() - began


if __name__ == "__main__":
    runs = arguments(__doc__).runs
    data, weights = shared() / "data" / "horse-or-human", shared() / "weights" / "mobilenetv2-imagenet.onnx"
    rows = []
    with Scratch() as scratch:
        dataset = open_dataset(data)
        for runtime in ("openvino", "onnxruntime"):
            warm_cache = scratch.cache()

            def fit(cache, source=data, runtime=runtime, report="--no-report"):
                command = [COMMAND, "fit", source, "--backbone", f"onnx:{weights}", "-o", scratch.path / "m", "--json"]
                wall, _, out = process([*command, "--runtime", runtime, "--quiet", report], cache)
                return wall, json.loads(out)

            fit(warm_cache)
            backbone = backbones.load(f"onnx:{weights}")
            found = side_by_side(
                runs,
                bound=lambda runtime=runtime, backbone=backbone: bound(dataset, backbone, runtime),
                cold=lambda fit=fit: fit(scratch.cache())[0],
                cold_report=lambda fit=fit: fit(scratch.cache(), report="--report")[0],
                warm=lambda fit=fit, cache=warm_cache: fit(cache)[0],
                warm_report=lambda fit=fit, cache=warm_cache: fit(cache, report="--report")[0],
            )
            more = scratch.path / f"more-{runtime}"
            shutil.copytree(data, more)
            new = sorted((shared() / "data" / "ants-bees" / "val" / "bees").glob("*.jpg"))[:10]
            for picture in new:
                shutil.copy(picture, more / "train" / "horses" / picture.name)
            _, told = fit(warm_cache, more)
            rows.append(
                {"runtime": runtime, "bound (s)": found["bound"],
                 "limit 1.25 x bound + 1 (s)": 1.25 * found["bound"] + 1,
                 "cold (s)": found["cold"], "cold, with the report (s)": found["cold_report"],
                 "warm (s)": found["warm"], "warm, with the report (s)": found["warm_report"],
                 "misses after ten more": told["cache"]["misses"]}
            )  # fmt: skip
        table(rows)
