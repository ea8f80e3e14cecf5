"""Time of ``Predictor.predict`` for one decoded image of 300 x 300 pixels, beside that of its graph alone, in pairs.

python benchmarks/predict_one.py [--runs 300]
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from measure import Scratch, parse_runs, print_table

from headstart import Compute, FitOptions, Predictor, fit_dataset, open_dataset
from headstart.data.rendered import render
from headstart.images.decoding import decode
from headstart.model.folder import write_model

LIMIT = 1.5


def main() -> None:
    runs = parse_runs(__doc__, default=300)
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        data, folder = scratch.path / "data", scratch.path / "model"
        render("horses-or-humans", data, train=48, validation=16)
        dataset = open_dataset(data)
        write_model(fit_dataset(dataset, FitOptions("headstart-s", compute=Compute("onnxruntime"))).model, folder)
        image = np.resize(decode(dataset.read(0)), (300, 300, 3))
        rows = [_row(Predictor.load(folder, Compute(runtime)), image, runs) for runtime in ("onnxruntime", "openvino")]
    print_table(rows)


def _row(predictor: Predictor, image: np.ndarray, runs: int) -> dict[str, object]:
    """Measure one runtime: both take turns, the graph that runs alone is the one that ``predict`` has compiled."""
    predictor.predict([image])
    (graph,) = predictor._graphs.values()
    pixels = predictor.model.preprocess(image)[None]
    pairs = [
        (_milliseconds(lambda: predictor.predict([image])), _milliseconds(lambda: graph.run(pixels)))
        for _ in range(runs)
    ]
    whole, alone = (median(values) for values in zip(*pairs, strict=True))
    ratio = median(first / second for first, second in pairs)
    preprocess = median(_milliseconds(lambda: predictor.model.preprocess(image)) for _ in range(runs))
    return {
        "runtime": graph.info.key,
        "predict([one]) (ms)": whole,
        "the graph alone (ms)": alone,
        "ratio, median of pairs": ratio,
        "limit": LIMIT,
        "crop and resize alone (ms)": preprocess,
    }


def _milliseconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1_000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
