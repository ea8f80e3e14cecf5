"""What transfer learning gains: the same architecture trained from random weights on the same images.

    python from_scratch.py DATA ... --headstart ../.venv/bin/headstart [--times 10]

Times a whole cold ``headstart fit`` with headstart-s on each dataset, then trains for that many times its wall time:
AdamW, one cycle, random resized crops and flips, the last epoch's weights. DATA has train/ and validation/ (or val/)
with class folders.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from images import SUFFIXES, centre_crop, normalise, random_crop
from student import HEAD_OUT, Student
from torch.nn import functional as F

SIZE, BATCH_SIZE, LEARNING_RATE = 160, 32, 2e-3
WARM_UP = 0.1  # share of the time


def run_headstart(command: str, data: Path) -> tuple[float, float]:
    """Return the seconds of a cold fit, whole process, and its accuracy on the validation images."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "HEADSTART_CACHE": f"{folder}/cache"}
        start = time.perf_counter()
        completed = subprocess.run(
            [command, "fit", data, "--backbone", "headstart-s", "-o", f"{folder}/model", "--json"],
            stdout=subprocess.PIPE,
            check=True,
            env=environment,
        )
        seconds = time.perf_counter() - start
    return seconds, json.loads(completed.stdout)["accuracy"]["validation"]["value"]


@dataclass(frozen=True)
class LabelledImages:
    """Image files and their labels [n]."""

    files: list[bytes]
    labels: np.ndarray


def read_images(folder: Path, classes: list[str]) -> LabelledImages:
    """Read the readable images of class folders."""
    files, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            if path.suffix.lower() not in SUFFIXES:
                continue
            try:
                centre_crop(path.read_bytes(), 32)
            except OSError:
                continue
            files.append(path.read_bytes())
            labels.append(label)
    return LabelledImages(files, np.array(labels))


def batches(count: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the rows of batches without end, in a new order in each epoch."""
    while True:
        order = generator.permutation(count)
        yield from (order[i : i + BATCH_SIZE] for i in range(0, count - BATCH_SIZE + 1, BATCH_SIZE))


class Classifier(torch.nn.Module):
    """The student with a linear layer on its pooled features."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network, self.head = Student(norm=True), torch.nn.Linear(HEAD_OUT, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.network(pixels)[-1].mean(dim=(2, 3)))


def train(images: LabelledImages, classes: int, seconds: float, seed: int = 0) -> tuple[Classifier, float]:
    """Train for ``seconds``; return the network and the number of epochs."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    model = Classifier(classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    start, samples = time.perf_counter(), 0
    model.train()
    for rows in batches(len(images.files), generator):
        progress = (time.perf_counter() - start) / seconds
        if progress >= 1:
            break
        for group in optimizer.param_groups:  # one cycle, by the clock
            group["lr"] = LEARNING_RATE * min(progress / WARM_UP, 1.0) * 0.5 * (1 + np.cos(np.pi * progress))
        crops = np.stack([random_crop(images.files[i], (SIZE,), generator)[0] for i in rows])
        loss = F.cross_entropy(model(torch.from_numpy(normalise(crops))), torch.from_numpy(images.labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        samples += len(rows)
    return model.eval(), samples / len(images.files)


@torch.no_grad()
def accuracy(model: Classifier, images: LabelledImages) -> float:
    """Return the accuracy on images."""
    predicted = []
    for i in range(0, len(images.files), 64):
        crops = np.stack([centre_crop(data, SIZE) for data in images.files[i : i + 64]])
        predicted.append(model(torch.from_numpy(normalise(crops))).argmax(dim=1).numpy())
    return float((np.concatenate(predicted) == images.labels).mean())


def compare(data: Path, command: str, times: float) -> dict[str, object]:
    """Return the accuracies of both on a dataset."""
    seconds, transferred = run_headstart(command, data)
    classes = sorted(path.name for path in (data / "train").iterdir() if path.is_dir())
    validation = next(data / name for name in ("validation", "val") if (data / name).is_dir())
    model, epochs = train(read_images(data / "train", classes), len(classes), times * seconds)
    return {
        "data": data.name,
        "headstart_seconds": seconds,
        "headstart": transferred,
        "from_scratch_seconds": times * seconds,
        "epochs": epochs,
        "from_scratch": accuracy(model, read_images(validation, classes)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--headstart", required=True)
    parser.add_argument("--times", type=float, default=10)
    options = parser.parse_args()
    for data in options.data:
        print(json.dumps(compare(data, options.headstart, options.times)), flush=True)


if __name__ == "__main__":
    main()
