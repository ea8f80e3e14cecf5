"""Fine-tuning beside the frozen model: accuracy on pictures that had no part in it, and seconds.

    python benchmarks/fine_tune.py [--seeds 5] [--epochs 5] [--tasks ants-bees,horse-or-human,turned]

MobileNetV2 (``timm:``, the shared weights). ``turned`` is a task that frozen features are weak at: which way up is the
picture (four quarter turns of 200 pictures of horse-or-human to learn from, and 100 others)? Arms: the frozen model; a
plain PyTorch loop over all layers from a random head; the same loop from the frozen head; ``fine_tune`` with its
defaults but for the epochs (and without flips where turned), which may keep the frozen model. Needs the extras
``torch`` and ``timm``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import timm
import torch
from measure import Scratch, shared, table
from PIL import Image
from safetensors.torch import load_file

import headstart as hs
from headstart.backbones import InputOptions
from headstart.data import Dataset, open_dataset
from headstart.finetune import FineTuneConfig, fine_tune
from headstart.images.decode import decode
from headstart.stats.accuracy import held_out_accuracy
from headstart.stats.paired import mcnemar

NETWORK = {"pad_type": "same", "num_classes": 1001}
BACKBONE = "timm:mobilenetv2_100?pad_type=same&num_classes=1001"
HALF = (0.5, 0.5, 0.5)


def turned(source: Path, target: Path) -> Path:
    """Four folders of quarter turns; a picture has one of them."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 200), ("validation", 100)):
        files = sorted((source / split).rglob("*.jpg")) or sorted((source / split).rglob("*.png"))
        for number, place in enumerate(rng.choice(len(files), count, replace=False)):
            folder = target / split / f"turn{number % 4}"
            folder.mkdir(parents=True, exist_ok=True)
            with Image.open(files[place]) as picture:
                picture.convert("RGB").rotate(90 * (number % 4)).save(folder / f"{files[place].stem}.png")
    return target


def pixels(dataset, classes, preprocess) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised pictures [n, 3, height, width] of what can be read, and their labels."""
    images, labels = [], []
    for i, item in enumerate(dataset.items):
        try:
            images.append(preprocess(decode(dataset.read(i), at_least=preprocess.at_least)))
        except hs.HeadstartError:
            continue
        labels.append(classes.index(item.label))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.tensor(labels)


def plain(weights: Path, head, learn, held, epochs: int, seed: int, flip: bool) -> tuple[np.ndarray, float]:
    """All layers by AdamW at 3e-4, batches of 16, batch norm updated: which of ``held`` are right, and seconds."""
    torch.manual_seed(seed)
    network = timm.create_model("mobilenetv2_100", **NETWORK)
    network.load_state_dict(load_file(weights))
    classes = int(learn[1].max()) + 1
    network.reset_classifier(classes)
    if head is not None:
        with torch.no_grad():
            network.classifier.weight.copy_(torch.from_numpy(head.weights.T / head.temperature))
            network.classifier.bias.copy_(torch.from_numpy(head.bias / head.temperature))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-4)
    began = time.perf_counter()
    for _ in range(epochs):
        network.train()
        for rows in torch.randperm(len(learn[1])).split(16):
            if len(rows) > 1:
                image = learn[0][rows].float() / 127.5 - 1
                if flip:
                    mirrored = torch.rand(len(rows)) < 0.5
                    image[mirrored] = image[mirrored].flip(3)
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(network(image), learn[1][rows]).backward()
                optimiser.step()
    seconds = time.perf_counter() - began
    network.eval()
    with torch.no_grad():
        answers = torch.cat([network(part.float() / 127.5 - 1) for part in held[0].split(32)]).argmax(1)
    return (answers == held[1]).numpy(), seconds


def fitted(data: Path, weights: Path, seed: int) -> hs.FitResult:
    """The frozen model."""
    options = InputOptions(weights=str(weights), mean=HALF, std=HALF)
    return hs.fit_dataset(
        open_dataset(str(data)),
        hs.FitOptions(BACKBONE, options, cut="features", head="ridge", seed=seed, cache=False),
    )


def right_of(result: hs.FitResult, held: Dataset) -> np.ndarray:
    """Which pictures are right."""
    predictions = hs.Predictor(result.model).predict_dataset(held)
    found = [result.model.classes[row] for row in predictions.probabilities.argmax(axis=1)]
    labels = {item.path: item.label for item in held.items}
    return np.array([label == labels[path] for label, path in zip(found, predictions.paths, strict=True)])


def rows_of(task: str, data: Path, weights: Path, seeds: int, epochs: int) -> list[dict]:
    found: dict[str, list[tuple[np.ndarray, float]]] = {}
    kept, flip = [], task != "turned"
    for seed in range(seeds):
        began = time.perf_counter()
        model = fitted(data, weights, seed)
        spent = time.perf_counter() - began
        dataset = open_dataset(str(data))
        others = dataset.split("validation" if "validation" in dataset.splits else "test")
        preprocess, classes = model.model.preprocess, list(model.model.classes)
        learn, held = (pixels(part, classes, preprocess) for part in (dataset.split("train"), others))
        found.setdefault("frozen", []).append((right_of(model, others), spent))
        head = model.selected.head
        for name, start in (("all layers, random head", None), ("all layers, frozen head", head)):
            found.setdefault(name, []).append(plain(weights, start, learn, held, epochs, seed, flip))
        config = FineTuneConfig(epochs=epochs, augmentation="light" if flip else "none")
        began = time.perf_counter()
        model = fine_tune(model, config)
        spent += time.perf_counter() - began
        kept.append(model.model.run["fine_tuning"]["kept"])
        found.setdefault("fine_tune", []).append((right_of(model, others), spent))
        told = {name: int(runs[-1][0].sum()) for name, runs in found.items()}
        print(json.dumps({"task": task, "seed": seed, **told, "kept": kept[-1]}), flush=True)
    return [row(task, name, runs, found["fine_tune"], kept) for name, runs in found.items()]


def row(task: str, name: str, runs: list, shipped: list, kept: list[str]) -> dict[str, object]:
    """Medians over the seeds; "beats fine_tune" counts the seeds where McNemar's exact test says so at 5%."""
    count = len(runs[0][0])
    right = int(median(one.sum() for one, _ in runs))
    low, high = held_out_accuracy(np.arange(count) < right).interval
    pairs = [
        (int((one & ~own).sum()), int((own & ~one).sum())) for (one, _), (own, _) in zip(runs, shipped, strict=True)
    ]
    beats = sum(more > fewer and mcnemar(more, fewer) < 0.05 for more, fewer in pairs)
    return {"task": task, "arm": name, "accuracy": f"{right / count:.1%} ({low:.1%} to {high:.1%}) of {count}",
            "seeds": ", ".join(str(int(one.sum())) for one, _ in runs), "seconds": median(s for _, s in runs),
            "beats fine_tune": "" if name == "fine_tune" else f"{beats} of {len(runs)}",
            "kept": ", ".join(kept) if name == "fine_tune" else ""}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--tasks", default="ants-bees,horse-or-human,turned")
    given = parser.parse_args()
    weights = shared() / "weights" / "mobilenetv2-imagenet.safetensors"
    with Scratch() as scratch:
        for task in given.tasks.split(","):
            data = shared() / "data" / task
            if task == "turned":
                data = turned(shared() / "data" / "horse-or-human", scratch.path / "turned")
            table(rows_of(task, data, weights, given.seeds, given.epochs))
