"""Several labels an image beside fastai's multi-label learner, on the same pictures: mAP and processor seconds.

    python benchmarks/multi_label_peers.py --fastai PYTHON [--epochs 3] [--seed 0] [--arms fastai,fit,...]

The collages of ``multi_label.py``, but 200 to train on and 160 of other source images to measure on, whose groups give
the intervals. Arms: fastai's ``fine_tune`` with MobileNetV2 (see multi_label_fastai.py); ``fit`` with the same network
and weights, frozen; ``fine_tune`` of that fit, which may keep the frozen model; ``fit`` with headstart-m. Processor
seconds are those of one thread, from the pictures to the finished model, without the import of libraries.

``--fastai`` is an environment with fastai, timm and safetensors; this one needs the extras ``torch`` and ``timm``.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm  # noqa: F401  # not to be timed
import torch
from fine_tune import BACKBONE
from fine_tune_peers import run_peer
from measure import Scratch, print_table, shared
from multi_label import write_collages
from numpy.typing import NDArray

import headstart as hs
from headstart.backbones import InputOptions
from headstart.classifier import MultiLabelFitResult, fit_multi_label
from headstart.finetune import FineTuneConfig, fine_tune
from headstart.stats.label_metrics import multi_label_metrics

ARMS = ("fastai", "fit", "fine-tune", "headstart-m")
WEIGHTS = shared() / "weights" / "mobilenetv2-imagenet.safetensors"


def fit(table: Path, backbone: str, seed: int) -> MultiLabelFitResult:
    """Fit on the frozen network, without the cache."""
    mobilenet = InputOptions(weights=str(WEIGHTS)) if backbone == BACKBONE else None
    options = hs.FitOptions(
        backbone, input_options=mobilenet, group_by="group", seed=seed, cache=False, compute=hs.Compute(workers=1)
    )
    return fit_multi_label(hs.open_dataset(table, hs.ReadOptions(group_column="group")), options)


def tune(table: Path, epochs: int, seed: int) -> MultiLabelFitResult:
    """Fit, and fine-tune that."""
    return fine_tune(fit(table, BACKBONE, seed), FineTuneConfig(epochs=epochs), log=print)


def run_ours(images: list[Path], make: Callable[[], MultiLabelFitResult]) -> dict[str, Any]:
    """Make a model and let it predict; return what the script of fastai prints."""
    start = time.process_time()
    result = make()
    seconds = time.process_time() - start
    predictions = hs.Predictor(result.model).predict([str(path) for path in images])
    kept = result.model.run.get("fine_tuning", {}).get("kept", "")
    probabilities = predictions.probabilities.tolist()
    return {"labels": predictions.classes, "probabilities": probabilities, "cpu_seconds": seconds, "kept": kept}


def table_row(
    arm: str, record: dict[str, Any], truth: NDArray[np.bool_], groups: NDArray[np.int64]
) -> dict[str, object]:
    """Return the metrics of an arm; a label holds from a probability of 0.5 on."""
    probabilities = np.array(record["probabilities"])
    decisions, known = probabilities >= 0.5, np.ones(truth.shape, bool)
    metrics = multi_label_metrics(probabilities, decisions, truth, known, record["labels"], groups)
    return {
        "arm": arm,
        "mAP": str(metrics.mean_average_precision),
        "micro F1": str(metrics.micro_f1),
        "every label right": str(metrics.exact_match),
        "processor seconds": f"{record['cpu_seconds']:.0f}",
        "kept": record.get("kept", ""),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fastai")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", default=",".join(ARMS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    epochs, seed = arguments.epochs, arguments.seed
    with Scratch() as scratch:
        rng = np.random.default_rng(0)
        table = scratch.path / "labels.csv"
        rows = write_collages(scratch.path, "train", 50, 4, rng)
        rows += write_collages(scratch.path, "validation", 40, 4, rng)
        table.write_text("\n".join(["path,labels,split,group", *rows]), "utf-8")
        validation = [row for row in csv.DictReader(table.open()) if row["split"] == "validation"]
        images = [table.parent / row["path"] for row in validation]
        cells = [row["labels"].split(";") for row in validation]
        truth = np.array([[label in cell for label in ("ants", "bees", "horses")] for cell in cells])
        groups = np.unique([row["group"] for row in validation], return_inverse=True)[1]
        cases: dict[str, Callable[[], dict[str, Any]]] = {
            "fastai": lambda: run_peer(arguments.fastai, "multi_label_fastai.py", table, WEIGHTS, epochs, seed),
            "fit": lambda: run_ours(images, lambda: fit(table, BACKBONE, seed)),
            "fine-tune": lambda: run_ours(images, lambda: tune(table, epochs, seed)),
            "headstart-m": lambda: run_ours(images, lambda: fit(table, "headstart-m", seed)),
        }
        print_table([table_row(arm, cases[arm](), truth, groups) for arm in arguments.arms.split(",")])


if __name__ == "__main__":
    main()
