"""Compare input sizes of a backbone: leave-one-group-out log-loss on training images, and time of the graph.

    python choose_size.py efficientnet-lite0-imagenet.safetensors DATA... --sizes 160 192 224

Validation images are only reported. The choice: the fastest size that on no dataset is worse than the best one by more
than one standard error of the paired difference, by groups.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from efficientnet_lite0 import PREPROCESS, SOURCE, build
from graph_builder import write_backbone
from safetensors.numpy import load_file

from headstart import Compute, FitOptions, FitResult, fit_dataset, open_dataset
from headstart.backbones import store
from headstart.features.runtime import load_graph

COMPUTE = Compute("onnxruntime")
RUNS = 21


def losses(result: FitResult) -> np.ndarray:
    """Return the log-loss [n] of each training image, predicted with its group left out."""
    predictions = result.evaluations["leave_group_out"].predictions
    chosen = predictions.probabilities[np.arange(len(predictions)), predictions.truth]
    return -np.log(np.maximum(chosen, 1e-12))


def standard_error(difference: np.ndarray, groups: np.ndarray) -> float:
    """Return the standard error of a mean of which the images of a group are not independent."""
    sums = np.bincount(groups, difference - difference.mean())
    return float(np.sqrt((sums**2).sum()) / len(difference))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 192, 224])
    options = parser.parse_args()
    weights = load_file(options.weights)
    names, graphs = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in options.sizes:
            model, taps = build(weights, size)
            preprocess = {"height": size, "width": size, **PREPROCESS}
            folder = Path(temporary) / str(size)
            description = {"id": f"size-{size}", "licence": "Apache-2.0", "source": SOURCE}
            write_backbone(folder, model, {**description, "preprocess": preprocess, "taps": taps})
            backbone = store.read(folder, f"size-{size}")
            assert backbone is not None
            store.put(f"size-{size}", backbone)
            names.append(f"size-{size}")
            graphs[size] = load_graph(folder / "backbone.onnx", Compute("onnxruntime", workers=1))
        seconds = {size: [] for size in options.sizes}
        for _ in range(RUNS):  # they take turns
            for size, graph in graphs.items():
                images = np.zeros((1, size, size, 3), np.uint8)
                start = time.perf_counter()
                graph.run(images)
                seconds[size].append(time.perf_counter() - start)
    print("| data | size | LGO log-loss | worse than the best by (se) | LGO accuracy | validation | ms |")
    print("|---|---|---|---|---|---|---|")
    for data in options.data:
        dataset = open_dataset(data)
        results = [fit_dataset(dataset, FitOptions(backbone=name, compute=COMPUTE)) for name in names]
        values = [losses(result) for result in results]
        best = min(range(len(values)), key=lambda i: values[i].mean())
        for size, result, value in zip(options.sizes, results, values, strict=True):
            groups = result.data.split.groups.index
            difference = value - values[best]
            print(
                f"| {Path(data).name} | {size} | {value.mean():.4f} | {difference.mean():.4f} "
                f"({standard_error(difference, groups):.4f}) | {result.accuracy['leave_group_out'].value:.4f} | "
                f"{result.accuracy['validation'].correct} of {result.accuracy['validation'].count} | "
                f"{1000 * median(seconds[size]):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
