"""A model of statistics alone beside one of rows: how much is lost by what cannot be chosen and measured.

    python benchmarks/from_statistics.py [--backbone headstart-m]

Features of the training images of ants-bees and horse-or-human, by ``embed`` with and without ``--statistics``; both
are fitted by ``merge`` and evaluated on the validation images, whose labels neither has seen.
"""

from __future__ import annotations

import argparse
import json
import subprocess

import numpy as np
from measure import COMMAND, Scratch, print_table, shared

from headstart import Predictor
from headstart.data import open_dataset

DATA = {"ants-bees": ("train", "val"), "horse-or-human": ("train", "validation")}


def call(*arguments: object) -> dict[str, object]:
    """Run a command and return what it prints as JSON."""
    command = [COMMAND, *map(str, arguments), "--json"]
    result: dict[str, object] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="headstart-m")
    backbone = parser.parse_args().backbone
    rows = []
    with Scratch() as scratch:
        for name, (training, validation) in DATA.items():
            data = shared() / "data" / name
            for kind, flags in (("rows", []), ("statistics", ["--statistics"])):
                part, model = scratch.path / f"{name}-{kind}", scratch.path / f"{name}-{kind}-model"
                call("embed", data / training, "-o", part, "--backbone", backbone, *flags)
                fitted = call("merge", part, "-o", model)
                size = sum(path.stat().st_size for path in part.iterdir())
                predictions = Predictor.load(str(model)).predict_dataset(open_dataset(data / validation))
                truth = predictions.truth
                assert truth is not None
                loss = -np.log(np.maximum(predictions.probabilities[np.arange(len(truth)), truth], 1e-7)).mean()
                head = fitted["head"]
                assert isinstance(head, dict)
                settings = ", ".join(f"{k} {v:.3g}" for k, v in head.items() if isinstance(v, float))
                right = f"{int(predictions.is_correct.sum())} of {len(truth)}"
                about = {"data": name, "from": kind, "MB": round(size / 1e6, 1), "head": f"{head['kind']} ({settings})"}
                rows.append({**about, "right": right, "log-loss": f"{loss:.3f}"})
    print_table(rows)


if __name__ == "__main__":
    main()
