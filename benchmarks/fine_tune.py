"""Fine-tuning beside the frozen model: accuracy on images that had no part in it, and seconds.

    python benchmarks/fine_tune.py [--seeds 5] [--epochs 5] [--tasks ants-bees,horse-or-human,rotation] [--no-loops]

MobileNetV2 (``timm:``, the shared weights). ``rotation`` is a task at which frozen features are weak: by how many
quarter turns was the image rotated? (200 images of horse-or-human to train on, 100 others to evaluate on.) Arms: the
frozen model; a plain PyTorch loop over all layers from a random head; the same loop from the frozen head; ``fine_tune``
with its defaults but for the epochs (and without flips for the rotation), which may keep the frozen model.
``--no-loops`` leaves the plain loops out. Needs the extras ``torch`` and ``timm``.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import timm
import torch
from measure import Scratch, print_table, shared
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import headstart as hs
from headstart.finetune import FineTuneConfig, fine_tune
from headstart.heads.head import Head
from headstart.images.decoding import decode
from headstart.images.preprocess import Preprocess
from headstart.stats.accuracy import held_out_accuracy
from headstart.stats.paired import SIGNIFICANCE, mcnemar

BACKBONE = "timm:mobilenetv2_100?pad_type=same&num_classes=1001"
NETWORK = {"pad_type": "same", "num_classes": 1001}
HALF = (0.5, 0.5, 0.5)  # mean and standard deviation of the network's input
ROTATION_IMAGES = {"train": 200, "validation": 100}
BATCH_SIZE, LEARNING_RATE = 16, 3e-4  # of the plain loop


@dataclass(frozen=True)
class Images:
    """Preprocessed images [n, 3, height, width] uint8, and their labels [n]."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Run:
    """One run of an arm: which images it classified correctly, and its seconds."""

    is_correct: np.ndarray
    seconds: float


def write_rotated(source: Path, target: Path) -> Path:
    """Write images of ``source``, each rotated by one of four quarter turns, into a folder for each; return it."""
    generator = np.random.default_rng(0)
    for split, count in ROTATION_IMAGES.items():
        files = sorted((source / split).rglob("*.jpg")) or sorted((source / split).rglob("*.png"))
        for i, number in enumerate(generator.choice(len(files), count, replace=False)):
            turns = i % 4
            folder = target / split / f"turn{turns}"
            folder.mkdir(parents=True, exist_ok=True)
            with Image.open(files[number]) as image:
                image.convert("RGB").rotate(90 * turns).save(folder / f"{files[number].stem}.png")
    return target


def task_folder(task: str, folder: Path) -> Path:
    """Return the dataset of a task; that of the rotation is written to ``folder``."""
    data = shared() / "data"
    return write_rotated(data / "horse-or-human", folder / task) if task == "rotation" else data / task


def load_images(dataset: hs.Dataset, classes: tuple[str, ...], preprocess: Preprocess) -> Images:
    """Load the images that can be read."""
    pixels, labels = [], []
    for i, item in enumerate(dataset.items):
        try:
            pixels.append(preprocess(decode(dataset.read(i), min_size=preprocess.min_size)))
        except hs.HeadstartError:
            continue
        labels.append(classes.index(str(item.label)))
    return Images(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), torch.tensor(labels))


def load_network(weights: Path, classes: int, head: Head | None) -> torch.nn.Module:
    """Load the network with a classifier of ``classes`` outputs: random, or with the weights of a frozen head."""
    network = timm.create_model("mobilenetv2_100", **NETWORK)
    network.load_state_dict(load_file(weights))
    network.reset_classifier(classes)
    if head is not None:
        with torch.no_grad():
            network.classifier.weight.copy_(torch.from_numpy(head.weights.T / head.temperature))
            network.classifier.bias.copy_(torch.from_numpy(head.bias / head.temperature))
    return network


def normalised(pixels: Tensor) -> Tensor:
    """Scale uint8 pixels to [-1, 1]."""
    return pixels.float() / 127.5 - 1


def train_plainly(network: torch.nn.Module, images: Images, epochs: int, *, flip: bool) -> float:
    """Train all layers by AdamW, batch norms following their batches; return the seconds."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    start = time.perf_counter()
    for _ in range(epochs):
        network.train()
        for rows in torch.randperm(len(images.labels)).split(BATCH_SIZE):
            if len(rows) < 2:  # a batch norm needs two
                continue
            batch = normalised(images.pixels[rows])
            if flip:
                is_flipped = torch.rand(len(rows)) < 0.5
                batch[is_flipped] = batch[is_flipped].flip(3)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(batch), images.labels[rows]).backward()
            optimizer.step()
    return time.perf_counter() - start


def run_plain_loop(network: torch.nn.Module, train: Images, validation: Images, epochs: int, *, flip: bool) -> Run:
    """Train plainly and evaluate."""
    seconds = train_plainly(network, train, epochs, flip=flip)
    network.eval()
    with torch.no_grad():
        scores = torch.cat([network(normalised(batch)) for batch in validation.pixels.split(32)])
    return Run((scores.argmax(1) == validation.labels).numpy(), seconds)


def fit_frozen(data: Path, weights: Path, seed: int) -> hs.FitResult:
    """Fit the frozen model."""
    input_options = hs.InputOptions(weights=str(weights), mean=HALF, std=HALF)
    options = hs.FitOptions(BACKBONE, input_options, cut="features", head="ridge", seed=seed, cache=False)
    return hs.fit_dataset(hs.open_dataset(data), options)


def correct_predictions(result: hs.FitResult, dataset: hs.Dataset) -> np.ndarray:
    """Return which images of a dataset the model classifies correctly."""
    return hs.Predictor(result.model).predict_dataset(dataset).is_correct


def run_arms(
    data: Path, weights: Path, seed: int, epochs: int, *, flip: bool, loops: bool
) -> tuple[dict[str, Run], str]:
    """Run the arms with a seed; return them, and whether ``fine_tune`` kept the fine-tuned or the frozen model."""
    start = time.perf_counter()
    frozen = fit_frozen(data, weights, seed)
    fit_seconds = time.perf_counter() - start
    dataset = hs.open_dataset(data)
    held_out = dataset.split("validation" if "validation" in dataset.splits else "test")
    runs = {"frozen": Run(correct_predictions(frozen, held_out), fit_seconds)}

    classes, preprocess = frozen.model.classes, frozen.model.preprocess
    if loops:
        train = load_images(dataset.split("train"), classes, preprocess)
        validation = load_images(held_out, classes, preprocess)
        for name, head in (("all layers, random head", None), ("all layers, frozen head", frozen.selected.head)):
            torch.manual_seed(seed)
            network = load_network(weights, len(classes), head)
            runs[name] = run_plain_loop(network, train, validation, epochs, flip=flip)

    start = time.perf_counter()
    config = FineTuneConfig(epochs=epochs, augmentation="light" if flip else "none")
    tuned = fine_tune(frozen, config)
    seconds = fit_seconds + time.perf_counter() - start
    runs["fine_tune"] = Run(correct_predictions(tuned, held_out), seconds)
    return runs, tuned.model.run["fine_tuning"]["kept"]


def run_task(task: str, data: Path, weights: Path, seeds: int, epochs: int, *, loops: bool) -> list[dict[str, object]]:
    """Run the arms with every seed, and print a JSON line for each; return a row for each arm."""
    arms: dict[str, list[Run]] = {}
    kept = []
    for seed in range(seeds):
        runs, kept_model = run_arms(data, weights, seed, epochs, flip=task != "rotation", loops=loops)
        kept.append(kept_model)
        for name, run in runs.items():
            arms.setdefault(name, []).append(run)
        correct = {name: int(run.is_correct.sum()) for name, run in runs.items()}
        print(json.dumps({"task": task, "seed": seed, **correct, "kept": kept_model}), flush=True)
    return [row(task, name, runs, arms["fine_tune"], kept) for name, runs in arms.items()]


def accuracy_cell(correct: int, count: int) -> str:
    """Return an accuracy with Wilson's interval."""
    low, high = held_out_accuracy(np.arange(count) < correct).interval
    return f"{correct / count:.1%} ({low:.1%} to {high:.1%}) of {count}"


def is_significantly_better(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether the first model is better than the second, by McNemar's exact test at 5%."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return only_first > only_second and mcnemar(only_first, only_second) < SIGNIFICANCE


def row(task: str, name: str, runs: list[Run], tuned: list[Run], kept: list[str]) -> dict[str, object]:
    """Return medians over the seeds; "beats fine_tune" counts the seeds where an arm is significantly better."""
    is_tuned = name == "fine_tune"
    wins = sum(is_significantly_better(a.is_correct, b.is_correct) for a, b in zip(runs, tuned, strict=True))
    return {
        "task": task,
        "arm": name,
        "accuracy": accuracy_cell(int(median(run.is_correct.sum() for run in runs)), len(runs[0].is_correct)),
        "correct by seed": ", ".join(str(int(run.is_correct.sum())) for run in runs),
        "seconds": median(run.seconds for run in runs),
        "beats fine_tune": "" if is_tuned else f"{wins} of {len(runs)}",
        "kept": ", ".join(kept) if is_tuned else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--tasks", default="ants-bees,horse-or-human,rotation")
    parser.add_argument("--no-loops", action="store_true", help="leave the plain loops out")
    arguments = parser.parse_args()
    weights = shared() / "weights" / "mobilenetv2-imagenet.safetensors"
    with Scratch() as scratch:
        for task in arguments.tasks.split(","):
            data = task_folder(task, scratch.path)
            print_table(run_task(task, data, weights, arguments.seeds, arguments.epochs, loops=not arguments.no_loops))


if __name__ == "__main__":
    main()
