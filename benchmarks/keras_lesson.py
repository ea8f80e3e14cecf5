"""The course lesson's own recipe in plain Keras on TensorFlow, beside ``headstart fit``, on horse-or-human.

    python benchmarks/keras_lesson.py --peer PYTHON [--epochs 20] [--networks InceptionV3,MobileNetV2]
                                      [--inception-weights FILE] [--runs 3]

``--peer`` is the interpreter of an environment with TensorFlow (see keras_lesson_peer.py). Both are whole processes on
all cores, Headstart with an empty cache and its report. The lesson trains for its 20 epochs, or until it classifies
99.9% of the augmented training images correctly; with fewer ``--epochs`` its time is extrapolated, and marked so.
MobileNetV2 has real weights, InceptionV3 only where a file of them is given: otherwise only its seconds are shown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from statistics import median

from measure import COMMAND, Scratch, mobilenetv2, print_table, run_process, shared

LESSON_EPOCHS, STOP_AT_ACCURACY = 20, 0.999
PEER = Path(__file__).with_name("keras_lesson_peer.py")


def measure_lesson(python: str, data: Path, network: str, epochs: int, weights: Path | None) -> dict[str, object]:
    """Return a row: the seconds of the lesson and its accuracy after the last epoch."""
    command = [python, PEER, data, network, epochs, *([weights] if weights else [])]
    start = time.perf_counter()
    records = []
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("{"):
                records.append(json.loads(line))
                print(line, end="", flush=True)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with status {process.returncode}")
    seconds = time.perf_counter() - start
    ready, last = records[0], records[-1]
    seconds_per_epoch = (last["seconds"] - ready["seconds"]) / last["epoch"]
    is_complete = last["epoch"] == LESSON_EPOCHS or last["accuracy"] >= STOP_AT_ACCURACY
    if not is_complete:
        seconds += seconds_per_epoch * (LESSON_EPOCHS - last["epoch"])
    return {
        "what": f"the lesson in Keras, {network}",
        "epochs": str(last["epoch"]) if is_complete else f"{last['epoch']}, time extrapolated to {LESSON_EPOCHS}",
        "seconds per epoch": seconds_per_epoch,
        "seconds": seconds,
        "training accuracy": f"{last['accuracy']:.1%}" if weights else "random weights",
        "validation accuracy": f"{last['validation']:.1%}" if weights else "random weights",
    }


def measure_headstart(data: Path, runs: int, name: str, options: list[object]) -> dict[str, object]:
    """Return the row of ``headstart fit``: the median of ``runs`` processes, each with an empty cache."""
    results = []
    with Scratch() as scratch:
        for i in range(runs):
            command = [COMMAND, "fit", data, *options, "-o", scratch.path / f"model-{i}", "--json", "--quiet"]
            results.append(run_process(command, scratch.cache()))
    accuracy = json.loads(results[-1].output)["accuracy"]
    return {
        "what": f"headstart fit, {name}",
        "epochs": "",
        "seconds per epoch": "",
        "seconds": median(result.seconds for result in results),
        "training accuracy": f"{accuracy['leave_group_out']['value']:.1%} with groups left out",
        "validation accuracy": f"{accuracy['validation']['value']:.1%}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", required=True)
    parser.add_argument("--epochs", type=int, default=LESSON_EPOCHS)
    parser.add_argument("--networks", default="InceptionV3,MobileNetV2")
    parser.add_argument("--inception-weights", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    data = shared() / "data" / "horse-or-human"
    weights = {
        "InceptionV3": arguments.inception_weights,
        "MobileNetV2": shared() / "weights" / "mobilenetv2-imagenet.weights.h5",
    }
    rows = [
        measure_headstart(data, arguments.runs, "its default", []),
        measure_headstart(data, arguments.runs, "MobileNetV2", ["--backbone", mobilenetv2()]),
    ]
    print_table(rows)  # so that it is seen if the rest is stopped
    default_seconds = rows[0]["seconds"]
    for network in arguments.networks.split(","):
        rows.append(measure_lesson(arguments.peer, data, network, arguments.epochs, weights[network]))
        print_table([{**row, "times as long as the default": row["seconds"] / default_seconds} for row in rows])


if __name__ == "__main__":
    main()
