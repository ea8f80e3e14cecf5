"""Fine-tuning beside fastai and plain Keras, each in its own environment: accuracy, seconds, seconds per epoch.

    python benchmarks/fine_tune_peers.py --fastai PYTHON --keras PYTHON [--seeds 5] [--epochs 5] [--arms fastai,...]

The task is ``rotation`` of fine_tune.py, with the same images, MobileNetV2 and its shared weights; batches of 16 at
224 x 224, no augmentation, all cores. Each trains for as many epochs with layers of the network unfrozen; what the
peers do before that with the network frozen comes on top, as their guides have it. Arms:

fastai       ``vision_learner(...).fine_tune(epochs)``, all its defaults (see fine_tune_fastai.py)
keras        the MobileNetV2 tutorial's two stages and learning rates (see fine_tune_keras.py)
keras-10     the same at ten times its learning rates, as there are few steps here
plain        a plain PyTorch loop over all layers from a random head, with the images in memory
headstart    ``fine_tune`` with its defaults but for the epochs, without flips; it trains for each fold and, if that is
             better than frozen, once more
headstart-all  the same from the first layer on

``--keras`` is an environment with TensorFlow, ``--fastai`` one with fastai, timm and safetensors; this one needs the
extras ``torch`` and ``timm``. A JSON line for each run, then a table: medians over the seeds, with Wilson's interval of
the median accuracy. The seconds per epoch are those of the last one, over all training images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from statistics import median

import torch
from fine_tune import accuracy_cell, fit_frozen, load_images, load_network, run_plain_loop, task_folder
from measure import Scratch, print_table, shared

import headstart as hs
from headstart.finetune import FineTuneConfig, fine_tune

ARMS = ("fastai", "keras", "keras-10", "plain", "headstart", "headstart-all")
HERE = Path(__file__).parent
Record = dict[str, object]  # correct, count, seconds, epochs (seconds of each), kept


def run_peer(python: str, script: str, *arguments: object) -> Record:
    """Run a script in its own environment; return its last line."""
    command = [str(part) for part in (python, HERE / script, *arguments)]
    completed = subprocess.run(command, capture_output=True, text=True)
    if completed.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {completed.returncode}: {completed.stderr[-2000:]}")
    record: Record = json.loads(completed.stdout.splitlines()[-1])
    return record


def run_plain(data: Path, weights: Path, epochs: int, seed: int) -> Record:
    """Run the plain loop from a random head."""
    model, dataset = fit_frozen(data, weights, seed).model, hs.open_dataset(data)
    train, validation = (
        load_images(dataset.split(name), model.classes, model.preprocess) for name in ("train", "validation")
    )
    torch.manual_seed(seed)
    network = load_network(weights, len(model.classes), None)
    run = run_plain_loop(network, train, validation, epochs, flip=False)
    return {
        "correct": int(run.is_correct.sum()),
        "count": len(run.is_correct),
        "seconds": run.seconds,
        "epochs": [run.seconds / epochs],
    }


def run_headstart(data: Path, weights: Path, epochs: int, seed: int, unfreeze_from: str | None) -> Record:
    """Fit and fine-tune."""
    start = time.perf_counter()
    config = FineTuneConfig(epochs=epochs, augmentation="none", unfreeze_from=unfreeze_from)
    model = fine_tune(fit_frozen(data, weights, seed), config).model
    seconds = time.perf_counter() - start
    fine_tuning = model.run["fine_tuning"]
    folds = [history for name, history in fine_tuning["trainings"].items() if name.startswith("fold")]
    # Each of k folds is left out once, so that the k trainings together see every image k - 1 times in an epoch.
    epoch_seconds = [
        sum(epoch["seconds"] for epoch in epochs) / (len(folds) - 1) for epochs in zip(*folds, strict=True)
    ]
    accuracy = hs.Predictor(model).evaluate(data).accuracy
    return {
        "correct": accuracy.correct,
        "count": accuracy.count,
        "seconds": seconds,
        "epochs": epoch_seconds,
        "kept": fine_tuning["kept"],
    }


def run_arm(arm: str, arguments: argparse.Namespace, data: Path, seed: int) -> Record:
    """Run an arm with a seed."""
    weights = shared() / "weights" / "mobilenetv2-imagenet.safetensors"
    keras_weights, epochs = weights.with_suffix(".weights.h5"), arguments.epochs
    match arm:
        case "fastai":
            return run_peer(arguments.fastai, "fine_tune_fastai.py", data, weights, epochs, seed)
        case "keras":
            return run_peer(arguments.keras, "fine_tune_keras.py", data, keras_weights, epochs, seed)
        case "keras-10":
            return run_peer(arguments.keras, "fine_tune_keras.py", data, keras_weights, epochs, seed, 1e-3)
        case "plain":
            return run_plain(data, weights, epochs, seed)
        case _:
            return run_headstart(data, weights, epochs, seed, "all" if arm == "headstart-all" else None)


def row(arm: str, records: list[Record]) -> dict[str, object]:
    """Return medians over the seeds."""
    return {
        "arm": arm,
        "accuracy": accuracy_cell(round(median(record["correct"] for record in records)), records[0]["count"]),
        "correct by seed": ", ".join(str(record["correct"]) for record in records),
        "seconds": median(record["seconds"] for record in records),
        "seconds per epoch": median(record["epochs"][-1] for record in records),
        "kept": ", ".join(str(record.get("kept", "")) for record in records),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fastai")
    parser.add_argument("--keras")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--arms", default=",".join(ARMS))
    arguments = parser.parse_args()
    arms = arguments.arms.split(",")
    for arm in arms:
        if arm not in ARMS:
            parser.error(f"unknown arm {arm}; expected some of {', '.join(ARMS)}")
        environment = arm.partition("-")[0]
        if getattr(arguments, environment, True) is None:
            parser.error(f"{arm} needs --{environment} PYTHON")
    records: dict[str, list[Record]] = {arm: [] for arm in arms}
    with Scratch() as scratch:
        data = task_folder("rotation", scratch.path)
        for seed in range(arguments.seeds):
            for arm in arms:
                records[arm].append(run_arm(arm, arguments, data, seed))
                print(json.dumps({"arm": arm, "seed": seed, **records[arm][-1]}), flush=True)
    print_table([row(arm, of_arm) for arm, of_arm in records.items()])


if __name__ == "__main__":
    main()
