"""What int8 gives and costs: speed of both built-in backbones beside MobileNetV2 at 224 pixels, and accuracy.

    python benchmarks/int8.py MOBILENETV2.onnx DATA...

Speed: images per second of CPU time on one core, batches of 16, all graphs of a runtime taking turns; medians, and the
median of the ratios within turns. Accuracy: heads fitted to features of either precision. The difference in log-loss is
on the training images, each predicted with its group left out, with a 95% interval by resampling groups; validation
images are only counted. Nothing is chosen here.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from headstart import Compute, FitOptions, FitResult, backbones, fit_dataset, open_dataset
from headstart.features.runtime import load_graph

BUILT_IN = ("headstart-s", "headstart-m")
BATCH = 16
ROUNDS = 15
RESAMPLES = 10_000


def runner(backbone: backbones.Backbone, taps: list[str], compute: Compute) -> Callable[[], float]:
    """Return a function that runs the graph cut at ``taps`` once, and returns the images per CPU second."""
    graph = load_graph(backbones.cut(backbone, taps).SerializeToString(), compute)
    size = (backbone.preprocess.height, backbone.preprocess.width)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *size, 3), np.uint8)

    def run() -> float:
        start = time.process_time()
        graph.run(images)
        return BATCH / (time.process_time() - start)

    run()
    return run


def print_speeds(mobilenet: str) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("| runtime | graph | images per CPU second | times MobileNetV2 fp32 | times its own fp32 |")
    print("|---|---|---|---|---|")
    for runtime in ("openvino", "onnxruntime"):
        runners = {}
        loaded = backbones.load(f"onnx:{mobilenet}")
        runners["MobileNetV2 fp32"] = runner(loaded, [loaded.taps[-1].name], Compute(runtime, "fp32", 1))
        for name in BUILT_IN:
            for precision in ("fp32", "int8"):
                loaded = backbones.load(name, precision=precision)
                runners[f"{name} {precision}"] = runner(loaded, ["features"], Compute(runtime, precision, 1))
        rates = {label: np.array([0.0] * ROUNDS) for label in runners}
        for i in range(ROUNDS):
            for label, run in runners.items():
                rates[label][i] = run()
        for label, rate in rates.items():
            own = rates[f"{label.split()[0]} fp32"]
            print(
                f"| {runtime} | {label} | {np.median(rate):.0f} | {np.median(rate / rates['MobileNetV2 fp32']):.2f} | "
                f"{np.median(rate / own):.2f} |",
                flush=True,
            )


def losses(result: FitResult) -> np.ndarray:
    """Return the log-loss [n] of each training image, predicted with its group left out."""
    predictions = result.evaluations["leave_group_out"].predictions
    chosen = predictions.probabilities[np.arange(len(predictions)), predictions.truth]
    return -np.log(np.maximum(chosen, 1e-12))


def interval(difference: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return the 95% interval of a mean, by drawing whole groups with replacement."""
    sums, counts = np.bincount(groups, difference), np.bincount(groups)
    draws = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    low, high = np.quantile(draws @ sums / (draws @ counts), [0.025, 0.975])
    return float(low), float(high)


def print_accuracy(data: list[str]) -> None:
    print("| data | backbone | runtime | validation fp32, int8 | LGO log-loss fp32, int8 | difference (95%) | groups |")
    print("|---|---|---|---|---|---|---|")
    for path in data:
        dataset = open_dataset(path)
        for name in BUILT_IN:
            for runtime in ("openvino", "onnxruntime"):
                results = [
                    fit_dataset(dataset, FitOptions(backbone=name, compute=Compute(runtime, precision)))
                    for precision in ("fp32", "int8")
                ]
                groups = results[0].data.split.groups.index
                values = [losses(result) for result in results]
                difference = values[1] - values[0]
                low, high = interval(difference, groups)
                correct = [result.accuracy["validation"].correct for result in results]
                print(
                    f"| {Path(path).name} | {name} | {runtime} | {correct[0]}, {correct[1]} of "
                    f"{results[0].accuracy['validation'].count} | {values[0].mean():.4f}, {values[1].mean():.4f} | "
                    f"{difference.mean():+.4f} ({low:+.4f} to {high:+.4f}) | {groups.max() + 1} |",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mobilenet", help="MobileNetV2 at 224 pixels as an ONNX file")
    parser.add_argument("data", nargs="*")
    options = parser.parse_args()
    print_accuracy(options.data)
    print_speeds(options.mobilenet)


if __name__ == "__main__":
    main()
