"""The course lesson's own recipe in plain Keras on TensorFlow, beside ``headstart fit``, on horse-or-human.

    python benchmarks/keras_lesson.py --peer PYTHON [--epochs 20] [--networks InceptionV3,MobileNetV2]
                                      [--inception-weights FILE] [--runs 3]

``--peer`` is the interpreter of an environment with TensorFlow (see keras_lesson_peer.py). Both are whole processes on
all cores, Headstart with an empty cache and its report. The lesson trains for its 20 epochs, or until 99.9% of the
augmented training pictures are right; with fewer ``--epochs`` its time is extrapolated, and marked so. MobileNetV2 has
real weights, InceptionV3 only where a file of them is given: otherwise only its seconds are shown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from statistics import median

from measure import COMMAND, Scratch, process, shared, table

LESSON_EPOCHS, ENOUGH = 20, 0.999
PEER = Path(__file__).with_name("keras_lesson_peer.py")


def lesson(python: str, data: Path, network: str, epochs: int, weights: Path | None) -> dict[str, object]:
    """A row: how long the lesson took, and how often it was right after its last epoch."""
    command = [python, PEER, data, network, epochs, *([weights] if weights else [])]
    began, rows = time.perf_counter(), []
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        for text in run.stdout:
            if text.startswith("{"):
                rows.append(json.loads(text))
                print(text, end="", flush=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {run.returncode}")
    seconds, ready, last = time.perf_counter() - began, rows[0]["seconds"], rows[-1]
    each = (last["seconds"] - ready) / last["epoch"]
    whole = last["epoch"] == LESSON_EPOCHS or last["accuracy"] >= ENOUGH
    return {
        "what": f"the lesson in Keras, {network}",
        "epochs": str(last["epoch"]) if whole else f"{last['epoch']}, time extrapolated to {LESSON_EPOCHS}",
        "seconds an epoch": each,
        "seconds": seconds if whole else seconds + each * (LESSON_EPOCHS - last["epoch"]),
        "training": f"{last['accuracy']:.1%}" if weights else "random weights",
        "validation": f"{last['validation']:.1%}" if weights else "random weights",
    }


def headstart(data: Path, runs: int, name: str, more: list[object]) -> dict[str, object]:
    """The same of ``headstart fit``: the median of ``runs`` processes, each with an empty cache."""
    walls = []
    with Scratch() as scratch:
        for i in range(runs):
            command = [COMMAND, "fit", data, *more, "-o", scratch.path / f"m{i}", "--json", "--quiet"]
            wall, _, out = process(command, scratch.cache())
            walls.append(wall)
    accuracy = json.loads(out)["accuracy"]
    return {
        "what": f"headstart fit, {name}", "epochs": "", "seconds an epoch": "", "seconds": median(walls),
        "training": f"{accuracy['leave_group_out']['value']:.1%} on groups left out",
        "validation": f"{accuracy['validation']['value']:.1%}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", required=True)
    parser.add_argument("--epochs", type=int, default=LESSON_EPOCHS)
    parser.add_argument("--networks", default="InceptionV3,MobileNetV2")
    parser.add_argument("--inception-weights", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    data, weights = shared() / "data" / "horse-or-human", shared() / "weights"
    of = {"InceptionV3": chosen.inception_weights, "MobileNetV2": weights / "mobilenetv2-imagenet.weights.h5"}
    onnx = ["--backbone", f"onnx:{weights / 'mobilenetv2-imagenet.onnx'}"]
    rows = [headstart(data, chosen.runs, "its default", []), headstart(data, chosen.runs, "MobileNetV2", onnx)]
    table(rows)  # what there is, should the rest be stopped
    fastest = rows[0]["seconds"]
    for network in chosen.networks.split(","):
        rows.append(lesson(chosen.peer, data, network, chosen.epochs, of[network]))
        table([{**row, "times as long as the default": row["seconds"] / fastest} for row in rows])


if __name__ == "__main__":
    main()
