"""The built-in backbone beside MobileNetV2 and two baselines, with the defaults of a fit; and speeds.

    python benchmarks/backbones.py [--runs 9]

Baselines: the same architecture with random weights, and HOG with a colour histogram under the same selection of heads.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from measure import Scratch, alternating_medians, mobilenetv2, parse_runs, print_table, shared
from onnx import numpy_helper
from PIL import Image

import headstart as hs
from headstart import backbones
from headstart.backbones import Backbone
from headstart.features import embed
from headstart.features.runtime import load_graph
from headstart.heads.selection import select_head
from headstart.heads.training_set import TrainingSet
from headstart.images.decoding import decode
from headstart.machine import cores
from headstart.splits.groups import find_groups

DATASETS = ("horse-or-human", "ants-bees")
RUNTIMES = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
NAMES = ("headstart-s", "MobileNetV2", "random weights", "HOG + colours")
COLOURS = 512  # bins of the colour histogram


def write_random_weights(folder: Path) -> Path:
    """Write the built-in graph with random weights: He initialisation for convolutions, biases of zero."""
    model, generator = onnx.load(backbones.load("headstart-s").graph), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.ndim == 4:
            fan_in = np.prod(value.shape[1:])
            weights = generator.normal(size=value.shape) * np.sqrt(2 / fan_in)
            tensor.CopyFrom(numpy_helper.from_array(weights.astype(value.dtype), tensor.name))
        elif value.ndim == 1 and value.size > 3 and value.dtype in (np.float32, np.float16):
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(value), tensor.name))
    path = folder / "random.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def hog(pixels: np.ndarray) -> np.ndarray:
    """Compute histograms of oriented gradients [1764] of an image [64, 64, 3].

    Dalal & Triggs 2005: cells of 8 x 8 pixels, 9 directions, blocks of 2 x 2 cells.
    """
    grey = np.sqrt(pixels.mean(axis=2))
    dy, dx = np.gradient(grey)
    magnitude, angle = np.hypot(dx, dy), np.mod(np.arctan2(dy, dx), np.pi) / np.pi * 9
    direction, share = np.floor(angle).astype(int) % 9, angle - np.floor(angle)
    cells = np.zeros((8, 8, 9))
    y, x = np.mgrid[:64, :64] // 8
    np.add.at(cells, (y, x, direction), magnitude * (1 - share))
    np.add.at(cells, (y, x, (direction + 1) % 9), magnitude * share)
    blocks = []
    for i in range(7):
        for j in range(7):
            block = cells[i : i + 2, j : j + 2].ravel()
            block = np.minimum(block / np.sqrt((block**2).sum() + 1e-6), 0.2)
            blocks.append(block / np.sqrt((block**2).sum() + 1e-6))
    return np.concatenate(blocks)


def colour_histogram(pixels: np.ndarray) -> np.ndarray:
    """Compute the square roots of an 8 x 8 x 8 histogram [512] of the colours of an image [64, 64, 3]."""
    bins = (pixels // 32).astype(int) @ [64, 8, 1]
    return np.sqrt(np.bincount(bins.ravel(), minlength=COLOURS) / bins.size)


def handmade_features(image: np.ndarray) -> dict[str, np.ndarray]:
    """Compute both kinds of features of an image of any size, by tap."""
    small = Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)
    pixels = np.asarray(small, np.float32)
    return {"hog": hog(pixels).astype(np.float32), "colours": (3 * colour_histogram(pixels)).astype(np.float32)}


def baseline_accuracy(dataset: hs.Dataset) -> float:
    """Return the validation accuracy of HOG and colours.

    Taps and heads are selected as for a backbone; groups are those by the features of headstart-s.
    """
    features, readable = [], []
    for i in range(len(dataset)):
        try:
            features.append(handmade_features(decode(dataset.read(i))))
        except hs.HeadstartError:
            continue
        readable.append(i)
    values = {tap: np.stack([image_features[tap] for image_features in features]) for tap in ("hog", "colours")}
    items = [dataset.items[i] for i in readable]
    labels = np.array([dataset.classes.index(str(item.label)) for item in items])
    is_train = np.array([item.split == "train" for item in items])
    grouping = embed(dataset.select(readable), backbones.load("headstart-s"))
    groups = find_groups(
        grouping.content_hashes[is_train],
        grouping.tiny_images[is_train],
        grouping.values["features"][is_train],
        labels[is_train],
    )
    training_values = {tap: vectors[is_train] for tap, vectors in values.items()}
    head = select_head(TrainingSet.of(training_values, labels[is_train], groups.index)).head
    validation = np.concatenate([values[tap][~is_train] for tap in head.taps], axis=1)
    return float((head.scores(validation).argmax(axis=1) == labels[~is_train]).mean())


def accuracies(scratch: Scratch) -> dict[tuple[str, str], float]:
    """Return the validation accuracy of all features on all datasets."""
    built_in = Path(backbones.load("headstart-s").graph)
    description = json.loads((built_in.parent / "backbone.json").read_text("utf-8"))
    random_weights = hs.FitOptions(
        f"onnx:{write_random_weights(scratch.path)}", hs.InputOptions(crop=description["preprocess"]["crop"])
    )
    options = {
        "headstart-s": hs.FitOptions("headstart-s"),
        "MobileNetV2": hs.FitOptions(mobilenetv2()),
        "random weights": random_weights,
    }
    accuracy = {}
    for data in DATASETS:
        dataset = hs.open_dataset(shared() / "data" / data)
        for name, fit_options in options.items():
            accuracy[name, data] = hs.fit_dataset(dataset, fit_options).accuracy["validation"].value
        accuracy["HOG + colours", data] = baseline_accuracy(dataset)
    return accuracy


def images_per_second(backbone: Backbone, compute: hs.Compute, images: int = 128) -> float:
    """Return how many images a second the graph alone takes, on all cores."""
    graph = load_graph(backbone.graph, compute)
    height, width = backbone.preprocess.height, backbone.preprocess.width
    batch = np.random.default_rng(0).integers(0, 256, (16, height, width, 3), np.uint8)
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(graph.run, [batch] * 4))
        start = time.perf_counter()
        list(pool.map(graph.run, [batch] * (images // 16)))
        return images / (time.perf_counter() - start)


def print_accuracies(scratch: Scratch) -> None:
    accuracy = accuracies(scratch)
    print_table([{"features": name, **{data: round(accuracy[name, data], 4) for data in DATASETS}} for name in NAMES])
    gains = []
    for data in DATASETS:
        baseline = max(accuracy["random weights", data], accuracy["HOG + colours", data])
        gain = (accuracy["headstart-s", data] - baseline) / (accuracy["MobileNetV2", data] - baseline)
        gains.append({"dataset": data, "better baseline": baseline, "share of MobileNetV2's gain over it": gain})
    print_table(gains)


def print_speeds(runs: int) -> None:
    networks = {"headstart-s": backbones.load("headstart-s"), "MobileNetV2": backbones.load(mobilenetv2())}
    rows = []
    for runtime, precision in RUNTIMES:
        compute = hs.Compute(runtime, precision)
        speeds = alternating_medians(
            runs, {name: partial(images_per_second, backbone, compute) for name, backbone in networks.items()}
        )
        rows.append(
            {
                "runtime": f"{runtime} {precision}",
                "headstart-s (images/s)": round(speeds["headstart-s"]),
                "MobileNetV2 at 224": round(speeds["MobileNetV2"]),
                "ratio": speeds["headstart-s"] / speeds["MobileNetV2"],
            }
        )
    print_table(rows)


def main() -> None:
    runs = parse_runs(__doc__, default=9)
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        print_accuracies(scratch)
        print_speeds(runs)


if __name__ == "__main__":
    main()
