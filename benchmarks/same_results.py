"""Whether two versions of Headstart give the same results where images have one label.

    python benchmarks/same_results.py --old OTHER_CHECKOUT/src

Each version computes the features anew, fits, evaluates and checks ants-bees, horse-or-human and a rendered sample,
with the built-in backbones and MobileNetV2. It prints, for each case, whether the file of the head has the same bytes,
and whether the probabilities of all images, the metrics with their intervals, the candidates and the findings of
``check`` are the same numbers; where they are not, the largest difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from measure import ROOT, Scratch, mobilenetv2, print_table, shared

SAMPLE = "horses-or-humans"


def run_worker(data: str, backbone: str) -> None:
    """Fit and check one dataset with the version on the path, and print what came out as JSON."""
    import tempfile

    from headstart import FitOptions, fit_dataset, open_dataset

    dataset = open_dataset(data)
    result = fit_dataset(dataset, FitOptions(backbone=backbone))
    with tempfile.TemporaryDirectory() as folder:
        result.save(Path(folder) / "model")
        head = hashlib.sha256((Path(folder) / "model" / "head.safetensors").read_bytes()).hexdigest()
    evaluations = {}
    for name, evaluation in result.evaluations.items():
        evaluations[name] = evaluation.predictions.probabilities.tolist()
    accuracy = {name: [a.correct, a.count, *a.interval] for name, a in result.accuracy.items()}
    candidates = [[c.log_loss, c.accuracy, c.temperature, c.weight] for c in result.selected.candidates]
    command = [sys.executable, "-m", "headstart", "check", data, "--backbone", backbone, "--json"]
    output = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout
    findings = json.loads(output)["findings"]
    print(
        json.dumps(
            {
                "head": head,
                "accuracy": accuracy,
                "candidates": candidates,
                "probabilities": evaluations,
                "findings": findings,
            }
        )
    )


def run_version(source: Path, cache: Path, data: str, backbone: str) -> dict:
    """Return what a version makes of a dataset."""
    environment = {**os.environ, "PYTHONPATH": str(source), "HEADSTART_CACHE": str(cache)}
    command = [sys.executable, __file__, "--worker", data, backbone]
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def compared(old: object, new: object) -> str:
    """Return "same", or by how much numbers in the same places differ, or "differs"."""
    if old == new:
        return "same"
    try:
        first, second = (
            np.concatenate([np.ravel(v) for v in x.values()]) if isinstance(x, dict) else np.array(x)
            for x in (old, new)
        )
        return f"differs by up to {np.abs(first - second).max():.2g}"
    except (TypeError, ValueError):
        return "differs"


def main() -> None:
    """Run both versions and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="the src folder of the version to compare with")
    parser.add_argument("--worker", nargs=2, metavar=("DATA", "BACKBONE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_worker(*arguments.worker)
        return
    if arguments.old is None:
        parser.error("--old is needed")
    rows = []
    with Scratch() as scratch:
        folder = scratch.path
        sample = folder / "sample"
        subprocess.run(
            [sys.executable, "-m", "headstart", "sample", SAMPLE, sample],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        datasets = {
            "ants-bees": shared() / "data" / "ants-bees",
            "horse-or-human": shared() / "data" / "horse-or-human",
            "sample": sample,
        }
        for name, data in datasets.items():
            for backbone in ("headstart-m", "headstart-s", mobilenetv2()):
                old = run_version(arguments.old.resolve(), folder / "old", str(data), backbone)
                new = run_version(ROOT / "src", folder / "new", str(data), backbone)
                short = "MobileNetV2" if ":" in backbone else backbone
                correct = ", ".join(f"{right}/{count}" for right, count, *_ in new["accuracy"].values())
                row = {"data": name, "backbone": short, "correct": correct, "found": len(new["findings"])}
                rows.append({**row, **{key: compared(old[key], new[key]) for key in old}})
                print(rows[-1], file=sys.stderr, flush=True)
    print_table(rows)


if __name__ == "__main__":
    main()
