"""An epoch of training, and a whole fine-tuning, beside fastai and a plain PyTorch loop, on the processor.

    python benchmarks/fine_tune_epoch.py --fastai PYTHON [--data ants-bees,horse-or-human] [--rounds 3] [--epochs 3]

MobileNetV2 (``timm:``, the shared weights), batches of 16 at 224 x 224; each arm is a process. They take turns on all
cores, or with ``--first-core N`` run at the same time, each on two of the six cores from N on. Trained are the last two
stages with all that follows them, or all layers.

headstart  ``train`` with its defaults, images decoded once before the first epoch
fastai     ``vision_learner``, its defaults but for the layers that are trained; see fine_tune_fastai_epoch.py
plain      a PyTorch loop over images decoded once, AdamW, mirrored at random; frozen stages run without gradients

Seconds of an epoch (wall, and processor seconds of the process and its loaders) leave its evaluation out; the first
epoch, in which a library prepares itself, is left out of the medians. ``whole`` is a whole process: for Headstart the
command ``headstart fine-tune``, which fits, trains for each of three folds, and trains once more if that is better; for
fastai and the plain loop imports, decoding, ``--epochs`` epochs and one evaluation. ``--fastai`` is an environment with
fastai, timm and safetensors; this one needs the extras ``torch`` and ``timm``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from measure import Scratch, print_table, shared

ARMS = ("headstart", "fastai", "plain")
DEPTHS = ("last two stages", "all layers")
HERE = Path(__file__).parent


def processor_seconds() -> float:
    """Return the processor seconds of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def train_headstart(data: Path, weights: Path, depth: str, epochs: int) -> list[dict[str, float]]:
    """Train by the loop of ``fine_tune``; return the seconds of each epoch."""
    from fine_tune import fit_frozen

    from headstart.finetune import FineTuneConfig
    from headstart.finetune.frozen_fit import frozen_fit
    from headstart.finetune.loop import NO_ROWS, State, train
    from headstart.finetune.run import _prepare

    config = FineTuneConfig(epochs=epochs, unfreeze_from="all" if depth == "all layers" else None)
    setup = _prepare(frozen_fit(fit_frozen(data, weights, 0)), config, lambda *_: None, 3)
    setup.task.network.load_state_dict(setup.plan.initial)
    rows, seconds, before = np.arange(len(setup.task.labels)), [], processor_seconds()
    for epoch in train(setup.task, setup.plan, rows, NO_ROWS, State()):
        seconds.append({"wall": epoch.seconds, "processor": processor_seconds() - before})
        before = processor_seconds()
    return seconds


def train_plainly(data: Path, weights: Path, depth: str, epochs: int) -> list[dict[str, float]]:
    """Train by a plain loop and evaluate once; return the seconds of each epoch."""
    import torch
    from fine_tune import BATCH_SIZE, LEARNING_RATE, load_images, load_network, normalised

    import headstart as hs
    from headstart.images.preprocess import Preprocess

    dataset = hs.open_dataset(data)
    classes = tuple(sorted({str(item.label) for item in dataset.items}))
    preprocess = Preprocess(224, 224)
    train = load_images(dataset.split("train"), classes, preprocess)
    validation = load_images(dataset.split("validation"), classes, preprocess)
    network = load_network(weights, len(classes), None)
    if depth != "all layers":
        network.requires_grad_(False)
        for part in (network.blocks[-2:], network.conv_head, network.bn2, network.classifier):
            part.requires_grad_(True)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=LEARNING_RATE)
    seconds = []
    for _ in range(epochs):
        start, before = time.perf_counter(), processor_seconds()
        network.train()
        for rows in torch.randperm(len(train.labels)).split(BATCH_SIZE):
            if len(rows) < 2:  # a batch norm needs two
                continue
            batch = normalised(train.pixels[rows])
            is_flipped = torch.rand(len(rows)) < 0.5
            batch[is_flipped] = batch[is_flipped].flip(3)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(batch), train.labels[rows]).backward()
            optimizer.step()
        seconds.append({"wall": time.perf_counter() - start, "processor": processor_seconds() - before})
    network.eval()
    with torch.no_grad():
        for batch in validation.pixels.split(32):
            network(normalised(batch))
    return seconds


def run(command: list[object], first_core: int | None) -> tuple[str, float]:
    """Run a process, on two cores if the first is given; return what it printed, and its seconds."""
    pinned = [] if first_core is None else ["taskset", "-c", f"{first_core},{first_core + 1}"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **({"OMP_NUM_THREADS": "2"} if pinned else {})}
    start = time.perf_counter()
    command = [*pinned, *(str(part) for part in command)]
    completed = subprocess.run(command, capture_output=True, text=True, env=environment)
    if completed.returncode:
        raise SystemExit(f"{command} ended with status {completed.returncode}: {completed.stderr[-2000:]}")
    return completed.stdout, time.perf_counter() - start


def run_arm(arm: str, data: Path, depth: str, arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Run an arm in processes of its own; return the seconds of its epochs and of the whole process."""
    weights = shared() / "weights" / "mobilenetv2-imagenet.safetensors"
    core = None if arguments.first_core is None else arguments.first_core + 2 * ARMS.index(arm)
    if arm == "fastai":
        script = HERE / "fine_tune_fastai_epoch.py"
        output, whole = run([arguments.fastai, script, data, weights, depth, arguments.epochs], core)
    else:
        options = ["--only", arm, "--depth", depth, "--epochs", arguments.epochs, "--data", data]
        output, whole = run([sys.executable, __file__, *options], core)
    if arm == "headstart":
        whole = None if arguments.no_whole else run(fine_tune_command(data, depth, arguments.epochs, folder), core)[1]
    return {"epochs": json.loads(output.splitlines()[-1]), "whole": whole}


def fine_tune_command(data: Path, depth: str, epochs: int, folder: Path) -> list[object]:
    """Return the command ``headstart fine-tune`` with an empty cache."""
    weights = shared() / "weights" / "mobilenetv2-imagenet.safetensors"
    backbone = ["--backbone", "timm:mobilenetv2_100?pad_type=same&num_classes=1001", "--weights", weights]
    scaling = ["--mean", ".5,.5,.5", "--std", ".5,.5,.5"]
    layers = ["--unfreeze-from", "all"] if depth == "all layers" else []
    options = ["--batch-size", 16, "--epochs", epochs, "--no-cache", "--overwrite", "-o", folder / "model"]
    return [sys.executable, "-m", "headstart", "fine-tune", data, *backbone, *scaling, *layers, *options]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fastai")
    parser.add_argument("--data", default="ants-bees,horse-or-human")
    parser.add_argument("--depths", default=",".join(DEPTHS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--first-core", type=int, help="run the arms at the same time, each on two cores")
    parser.add_argument("--no-whole", action="store_true", help="leave out the command headstart fine-tune")
    parser.add_argument("--only", choices=("headstart", "plain"), help="run an arm in this process")
    parser.add_argument("--depth", choices=DEPTHS)
    arguments = parser.parse_args()
    if arguments.only is not None:
        weights = shared() / "weights" / "mobilenetv2-imagenet.safetensors"
        train = train_headstart if arguments.only == "headstart" else train_plainly
        print(json.dumps(train(Path(arguments.data), weights, arguments.depth, arguments.epochs)))
        return
    if arguments.fastai is None:
        parser.error("give --fastai PYTHON")
    rows = []
    with Scratch() as scratch:
        for name in arguments.data.split(","):
            data = shared() / "data" / name
            for depth in arguments.depths.split(","):
                records: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
                whole: dict[str, list[float]] = {arm: [] for arm in ARMS}
                for _ in range(arguments.rounds):
                    with ThreadPoolExecutor(1 if arguments.first_core is None else len(ARMS)) as pool:
                        futures = [pool.submit(run_arm, arm, data, depth, arguments, scratch.path) for arm in ARMS]
                    for arm, future in zip(ARMS, futures, strict=True):
                        record = future.result()
                        print(json.dumps({"data": name, "depth": depth, "arm": arm, **record}), flush=True)
                        records[arm] += record["epochs"][1:]
                        if record["whole"] is not None:
                            whole[arm].append(record["whole"])
                rows += [_row(name, depth, arm, records, whole) for arm in ARMS]
    print_table(rows)


def _row(name: str, depth: str, arm: str, records: dict[str, list], whole: dict[str, list[float]]) -> dict[str, object]:
    wall = median(record["wall"] for record in records[arm])
    return {
        "data": name,
        "trained": depth,
        "arm": arm,
        "epoch (s)": wall,
        "of fastai's": wall / median(record["wall"] for record in records["fastai"]),
        "epoch, processor (s)": median(record["processor"] for record in records[arm]),
        "whole (s)": median(whole[arm]) if whole[arm] else "",
    }


if __name__ == "__main__":
    main()
