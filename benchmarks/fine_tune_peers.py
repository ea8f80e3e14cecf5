"""Fine-tuning beside fastai and plain Keras, each in its own environment: accuracy, seconds, seconds an epoch.

    python benchmarks/fine_tune_peers.py --fastai PYTHON --keras PYTHON [--seeds 5] [--epochs 5] [--arms fastai,...]

The task is ``turned`` of fine_tune.py, with the same pictures, MobileNetV2 and its shared weights; batches of 16 at
224 x 224, nothing varied, all cores. Each trains for as many epochs with layers of the network unfrozen; what the peers
do before with the network frozen comes on top, by their own custom. Arms:

fastai       ``vision_learner(...).fine_tune(epochs)``, all its defaults (see fine_tune_fastai.py)
keras        the MobileNetV2 tutorial's two stages and rates (see fine_tune_keras.py)
keras-10     the same at ten times its rates, as there are few steps here
plain        a plain PyTorch loop over all layers from a random head, with the pictures in memory
headstart    ``fine_tune`` with its defaults but for the epochs, without flips; it trains for each fold and, if that is
             better than frozen, once more
headstart-all  the same from the first layer on

``--keras`` is an environment with TensorFlow, ``--fastai`` one with fastai, timm and safetensors; this one needs the
extras ``torch`` and ``timm``. A JSON line a run, then a table: medians over the seeds, with Wilson's interval of the
median accuracy. The seconds an epoch are those of the last one, over all pictures to learn from.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from statistics import median

import numpy as np
from fine_tune import fitted, pixels, plain, turned
from measure import Scratch, shared, table

import headstart as hs
from headstart.data import open_dataset
from headstart.finetune import FineTuneConfig, fine_tune
from headstart.stats.accuracy import held_out_accuracy

ARMS = ("fastai", "keras", "keras-10", "plain", "headstart", "headstart-all")
HERE = Path(__file__).parent


def peer(python: str, script: str, *arguments: object) -> dict[str, object]:
    """What the last line of a script says, run in its own environment."""
    command = [python, HERE / script, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def plain_loop(data: Path, weights: Path, epochs: int, seed: int) -> dict[str, object]:
    model, dataset = fitted(data, weights, seed).model, open_dataset(str(data))
    learn, held = (
        pixels(dataset.split(name), list(model.classes), model.preprocess) for name in ("train", "validation")
    )
    right, seconds = plain(weights, None, learn, held, epochs, seed, flip=False)
    return {"right": int(right.sum()), "count": len(right), "seconds": seconds, "epochs": [seconds / epochs]}


def headstart(data: Path, weights: Path, epochs: int, seed: int, where: str | None) -> dict[str, object]:
    began = time.perf_counter()
    config = FineTuneConfig(epochs=epochs, augmentation="none", unfreeze_from=where)
    model = fine_tune(fitted(data, weights, seed), config).model
    seconds = time.perf_counter() - began
    tuned = model.run["fine_tuning"]
    folds = [history for name, history in tuned["trainings"].items() if name.startswith("fold")]
    # Each of the folds is left out once: their trainings see all pictures so many times less one.
    each = [sum(epoch["seconds"] for epoch in some) / (len(folds) - 1) for some in zip(*folds, strict=True)]
    found = hs.Predictor(model).evaluate(data).accuracy
    return {"right": found.correct, "count": found.count, "seconds": seconds, "epochs": each,
            "kept": tuned["kept"]}  # fmt: skip


def measured(arm: str, given: argparse.Namespace, data: Path, seed: int) -> dict[str, object]:
    weights = shared() / "weights" / "mobilenetv2-imagenet.safetensors"
    keras_weights = weights.with_suffix(".weights.h5")
    match arm:
        case "fastai":
            return peer(given.fastai, "fine_tune_fastai.py", data, weights, given.epochs, seed)
        case "keras":
            return peer(given.keras, "fine_tune_keras.py", data, keras_weights, given.epochs, seed)
        case "keras-10":
            return peer(given.keras, "fine_tune_keras.py", data, keras_weights, given.epochs, seed, 1e-3)
        case "plain":
            return plain_loop(data, weights, given.epochs, seed)
        case _:
            return headstart(data, weights, given.epochs, seed, "all" if arm == "headstart-all" else None)


def row(arm: str, runs: list[dict[str, object]]) -> dict[str, object]:
    count = runs[0]["count"]
    right = round(median(run["right"] for run in runs))
    low, high = held_out_accuracy(np.arange(count) < right).interval
    return {
        "arm": arm, "accuracy": f"{right / count:.1%} ({low:.1%} to {high:.1%}) of {count}",
        "seeds": ", ".join(str(run["right"]) for run in runs),
        "seconds": median(run["seconds"] for run in runs),
        "seconds an epoch": median(run["epochs"][-1] for run in runs),
        "kept": ", ".join(str(run.get("kept", "")) for run in runs),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fastai")
    parser.add_argument("--keras")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--arms", default=",".join(ARMS))
    given = parser.parse_args()
    arms = given.arms.split(",")
    for arm in arms:
        if arm not in ARMS:
            parser.error(f"there is no arm {arm}; expected some of {', '.join(ARMS)}")
        if getattr(given, arm.partition("-")[0], True) is None:
            parser.error(f"{arm} needs --{arm.partition('-')[0]} PYTHON")
    found: dict[str, list[dict[str, object]]] = {arm: [] for arm in arms}
    with Scratch() as scratch:
        data = turned(shared() / "data" / "horse-or-human", scratch.path / "turned")
        for seed in range(given.seeds):
            for arm in arms:
                found[arm].append(measured(arm, given, data, seed))
                print(json.dumps({"arm": arm, "seed": seed, **found[arm][-1]}), flush=True)
    table([row(arm, runs) for arm, runs in found.items()])


if __name__ == "__main__":
    main()
