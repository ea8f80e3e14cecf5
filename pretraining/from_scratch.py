"""The point of transfer learning, measured: the same architecture trained from random weights on the same pictures.

    python from_scratch.py DATA ... --headstart ../.venv/bin/headstart [--times 10]

Times a whole cold ``headstart fit`` on each data set, then trains for that many times its wall time: AdamW, one cycle,
random-resized crops and flips, the last epoch's weights. DATA has train/ and validation/ (or val/) with class folders.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from pictures import SUFFIXES, centre_crop, normalised, random_crop
from student import Student
from torch.nn import functional as F

SIZE, BATCH, RATE = 160, 32, 2e-3


def fitted(command: str, data: Path) -> tuple[float, float]:
    """Seconds of a cold fit, whole process, and its accuracy on the validation pictures."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        done = subprocess.run(
            [command, "fit", data, "-o", f"{folder}/model", "--json"], stdout=subprocess.PIPE, check=True,
            env={**os.environ, "HEADSTART_CACHE": f"{folder}/cache"},
        )  # fmt: skip
        return time.perf_counter() - began, json.loads(done.stdout)["accuracy"]["validation"]["value"]


def pictures(folder: Path, classes: list[str]) -> tuple[list[bytes], np.ndarray]:
    """The readable pictures, and the number of each one's class."""
    files = [(p, c) for c, name in enumerate(classes) for p in sorted((folder / name).iterdir())]
    kept = []
    for path, label in files:
        if path.suffix.lower() in SUFFIXES:
            try:
                centre_crop(path.read_bytes(), 32)
            except OSError:
                continue
            kept.append((path.read_bytes(), label))
    return [data for data, _ in kept], np.array([label for _, label in kept])


def batches(count: int, rng: np.random.Generator):
    while True:
        order = rng.permutation(count)
        yield from (order[i : i + BATCH] for i in range(0, count - BATCH + 1, BATCH))


def trained(data: list[bytes], labels: np.ndarray, classes: int, seconds: float, seed: int = 0):
    """The network and its head after ``seconds`` of training, and the epochs that were done."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network, head = Student(norm=True), torch.nn.Linear(1280, classes)
    weights = [*network.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.05)
    began, done = time.perf_counter(), 0
    network.train()
    for rows in batches(len(data), rng):
        share = (time.perf_counter() - began) / seconds
        if share >= 1:
            break
        for group in optimiser.param_groups:  # one cycle, by the clock
            group["lr"] = RATE * min(share / 0.1, 1.0) * 0.5 * (1 + np.cos(np.pi * share))
        x = torch.from_numpy(normalised(np.stack([random_crop(data[i], (SIZE,), rng)[0] for i in rows])))
        loss = F.cross_entropy(head(network(x)[-1].mean(dim=(2, 3))), torch.from_numpy(labels[rows]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        done += len(rows)
    return network.eval(), head.eval(), done / len(data)


@torch.no_grad()
def accuracy(network, head, data: list[bytes], labels: np.ndarray) -> float:
    answers = []
    for i in range(0, len(data), 64):
        x = torch.from_numpy(normalised(np.stack([centre_crop(d, SIZE) for d in data[i : i + 64]])))
        answers.append(head(network(x)[-1].mean(dim=(2, 3))).argmax(dim=1).numpy())
    return float((np.concatenate(answers) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--headstart", required=True)
    parser.add_argument("--times", type=float, default=10)
    options = parser.parse_args()
    for data in options.data:
        seconds, transferred = fitted(options.headstart, data)
        classes = sorted(p.name for p in (data / "train").iterdir() if p.is_dir())
        held = next(data / name for name in ("validation", "val") if (data / name).is_dir())
        found = trained(*pictures(data / "train", classes), len(classes), options.times * seconds)
        print(
            json.dumps({
                "data": data.name, "headstart_seconds": seconds, "headstart": transferred,
                "from_scratch_seconds": options.times * seconds, "epochs": found[2],
                "from_scratch": accuracy(*found[:2], *pictures(held, classes)),
            }),
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
