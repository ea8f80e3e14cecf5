"""Against a plain loop: ten epochs, each reading every picture again with Pillow, a linear head by Adam.

    python benchmarks/epoch_loop.py [--runs 5]

Both use the same backbone on the same runtime, all cores, and the same validation set.
"""

from __future__ import annotations

import io
import json
import time

import numpy as np
from measure import COMMAND, Scratch, arguments, process, shared, side_by_side, table
from PIL import Image

from headstart import backbones
from headstart.data import open_dataset
from headstart.features.runtime import load_graph

EPOCHS, BATCH, RATE = 10, 32, 1e-3


def picture(data: bytes) -> np.ndarray:
    """Pillow's decode, shorter side to 256, the middle 224: what a plain loop does."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def loop(train, validation, graph) -> tuple[float, float]:
    """Seconds, and accuracy on the validation set after the last epoch."""
    began = time.perf_counter()
    labels = np.array([train.classes.index(item.label) for item in train.items])
    rng = np.random.default_rng(0)
    weights = np.zeros((1281, len(train.classes)))
    first, second, step = np.zeros_like(weights), np.zeros_like(weights), 0

    def features(dataset, indices):
        values = graph.run(np.stack([picture(dataset.read(int(i))) for i in indices]))["features"]
        return np.c_[values, np.ones(len(values))]

    for _ in range(EPOCHS):
        order = rng.permutation(len(train))
        for i in range(0, len(order), BATCH):
            rows = order[i : i + BATCH]
            x = features(train, rows)
            scores = x @ weights
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            slope = x.T @ (p - np.eye(len(train.classes))[labels[rows]]) / len(rows)
            step += 1
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            weights -= RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    right = 0
    for i in range(0, len(validation), BATCH):
        rows = range(i, min(i + BATCH, len(validation)))
        truth = [validation.classes.index(validation.items[j].label) for j in rows]
        right += int(((features(validation, rows) @ weights).argmax(axis=1) == truth).sum())
    return time.perf_counter() - began, right / len(validation)


if __name__ == "__main__":
    runs = arguments(__doc__, runs=3).runs
    data, weights = shared() / "data" / "horse-or-human", shared() / "weights" / "mobilenetv2-imagenet.onnx"
    dataset, accuracies = open_dataset(data), {}
    train, validation = dataset.split("train"), dataset.split("validation")
    with Scratch() as scratch:

        def headstart() -> float:
            command = [
                COMMAND,
                "fit",
                data,
                "--backbone",
                f"onnx:{weights}",
                "-o",
                scratch.path / "m",
                "--json",
                "--quiet",
            ]
            wall, _, out = process(command, scratch.cache())
            accuracies["headstart"] = json.loads(out)["accuracy"]["validation"]["value"]
            return wall

        def plain() -> float:
            graph = load_graph(backbones.load(f"onnx:{weights}").graph, workers=1)
            wall, accuracies["loop"] = loop(train, validation, graph)
            return wall

        found = side_by_side(runs, headstart=headstart, loop=plain)
        table(
            [{"what": f"headstart fit, whole process, cold ({runs} runs)", "seconds": found["headstart"],
              "validation": accuracies["headstart"]},
             {"what": f"plain loop, {EPOCHS} epochs", "seconds": found["loop"], "validation": accuracies["loop"]},
             {"what": "ratio", "seconds": found["loop"] / found["headstart"], "validation": ""}]
        )  # fmt: skip
