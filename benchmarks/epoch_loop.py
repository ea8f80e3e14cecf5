"""Against a plain loop: ten epochs, each decoding every image again with Pillow, a linear head trained by Adam.

    python benchmarks/epoch_loop.py [--runs 5]

Both use the same backbone on the same runtime, all cores, and the same validation set.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterable

import numpy as np
from measure import COMMAND, Scratch, alternating_medians, mobilenetv2, parse_runs, print_table, run_process, shared
from PIL import Image

from headstart import Compute, Dataset, backbones, open_dataset
from headstart.features.runtime import Graph, load_graph
from headstart.heads.head import softmax

EPOCHS, BATCH_SIZE = 10, 32
LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8  # of Adam (Kingma & Ba 2015)
SIZE, RESIZED = 224, 256  # pixels


def decode(data: bytes) -> np.ndarray:
    """Decode with Pillow, resize the shorter side to 256 and take the middle 224 x 224."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = RESIZED / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))


def compute_features(graph: Graph, dataset: Dataset, indices: Iterable[int]) -> np.ndarray:
    """Compute the features of some images, with a column of ones for the bias."""
    values = graph.run(np.stack([decode(dataset.read(int(i))) for i in indices]))["features"]
    return np.c_[values, np.ones(len(values))]


def train(graph: Graph, dataset: Dataset) -> np.ndarray:
    """Train a linear head [1281, classes] by gradient descent on the cross-entropy."""
    labels = np.array([dataset.classes.index(str(item.label)) for item in dataset.items])
    one_hot = np.eye(len(dataset.classes))[labels]
    generator = np.random.default_rng(0)
    weights = np.zeros((1281, len(dataset.classes)))
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    step = 0
    for _ in range(EPOCHS):
        order = generator.permutation(len(dataset))
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            x = compute_features(graph, dataset, rows)
            gradient = x.T @ (softmax(x @ weights) - one_hot[rows]) / len(rows)
            step += 1
            mean = BETA1 * mean + (1 - BETA1) * gradient
            square = BETA2 * square + (1 - BETA2) * gradient**2
            update = (mean / (1 - BETA1**step)) / (np.sqrt(square / (1 - BETA2**step)) + EPSILON)
            weights -= LEARNING_RATE * update
    return weights


def accuracy(graph: Graph, weights: np.ndarray, dataset: Dataset) -> float:
    """Return the accuracy of the head on a dataset."""
    correct = 0
    for start in range(0, len(dataset), BATCH_SIZE):
        rows = range(start, min(start + BATCH_SIZE, len(dataset)))
        labels = [dataset.classes.index(str(dataset.items[i].label)) for i in rows]
        predicted = (compute_features(graph, dataset, rows) @ weights).argmax(axis=1)
        correct += int((predicted == labels).sum())
    return correct / len(dataset)


def main() -> None:
    runs = parse_runs(__doc__, default=3)
    data = shared() / "data" / "horse-or-human"
    dataset = open_dataset(data)
    accuracies: dict[str, float] = {}
    with Scratch() as scratch:
        command = [COMMAND, "fit", data, "--backbone", mobilenetv2(), "-o", scratch.path / "model", "--json", "--quiet"]

        def headstart() -> float:
            result = run_process(command, scratch.cache())
            accuracies["headstart"] = json.loads(result.output)["accuracy"]["validation"]["value"]
            return result.seconds

        def loop() -> float:
            graph = load_graph(backbones.load(mobilenetv2()).graph, Compute(workers=1))
            start = time.perf_counter()
            weights = train(graph, dataset.split("train"))
            accuracies["loop"] = accuracy(graph, weights, dataset.split("validation"))
            return time.perf_counter() - start

        seconds = alternating_medians(runs, {"headstart": headstart, "loop": loop})
    print_table(
        [
            {
                "what": f"headstart fit, whole process, cold ({runs} runs)",
                "seconds": seconds["headstart"],
                "validation accuracy": accuracies["headstart"],
            },
            {
                "what": f"plain loop, {EPOCHS} epochs",
                "seconds": seconds["loop"],
                "validation accuracy": accuracies["loop"],
            },
            {"what": "ratio", "seconds": seconds["loop"] / seconds["headstart"], "validation accuracy": ""},
        ]
    )


if __name__ == "__main__":
    main()
