"""What rounding features to int16 in steps costs, beside fp16 and fp32: accuracy and log-loss of the selected head.

    python benchmarks/integers.py [--sample FOLDER]

The features of each image are computed once, in fp32, and rounded in each way; groups, which are those of the integers,
and all else are the same. Accuracy and log-loss are those of the training images with their group left out, and of the
validation images. ``--sample`` is a folder that ``headstart sample horses-or-humans`` made, else it is rendered.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import Scratch, mobilenetv2, print_table, shared

from headstart import Compute, backbones, open_dataset
from headstart.backbones import Tap
from headstart.data import concatenate
from headstart.data.rendered import render
from headstart.features import embed
from headstart.features.features import embed_exactly
from headstart.heads.head import softmax
from headstart.heads.integers import AnyVectors, IntegerVectors, round_to_steps, take_rows
from headstart.heads.selection import select_head
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas
from headstart.splits.split import split_features

Values = np.ndarray
COMPUTE = Compute("onnxruntime", "fp32")


def to_int16(values: Values, tap: Tap) -> AnyVectors:
    exponents = np.array(tap.exponents, np.int8)
    return IntegerVectors(round_to_steps(values, exponents), exponents)


ROUNDINGS: dict[str, Callable[[Values, Tap], AnyVectors]] = {
    "fp32": lambda values, _: values,
    "fp16": lambda values, _: values.astype(np.float16),
    "int16": to_int16,
}


def losses(probabilities: Values, truth: Values) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-12)).mean())


def relative_error(vectors: AnyVectors, exact: Values) -> float:
    """Return the error of rounding relative to how much images differ, both as root mean squares."""
    spread = np.linalg.norm(exact - exact.mean(axis=0))
    return float(np.linalg.norm(np.asarray(vectors[:], np.float64) - exact) / spread)


def measure(backbone_id: str, data: str, folder: Path) -> list[dict[str, object]]:
    """Return a row for each rounding."""
    dataset, backbone = open_dataset(folder), backbones.load(backbone_id)
    images = concatenate(dataset.split("train"), dataset.split("validation"))
    features = embed(images, backbone, COMPUTE)
    exact = embed_exactly(images, backbone, COMPUTE)
    assert np.array_equal(exact.index, features.index)
    split = split_features(features, images)
    items = [images.items[i] for i in features.index]
    truth = np.array([split.classes.index(str(items[row].label)) for row in split.validation])
    rows = []
    for name, rounding in ROUNDINGS.items():
        values = {tap.name: rounding(np.asarray(exact.values[tap.name]), tap) for tap in backbone.taps}
        training = {tap: take_rows(vectors, split.train) for tap, vectors in values.items()}
        with single_threaded_blas():
            selected = select_head(TrainingSet.of(training, split.labels, split.groups.index))
        taps = [np.asarray(values[tap][split.validation], np.float32) for tap in selected.head.taps]
        validation = softmax(selected.head.scores(np.concatenate(taps, axis=1)) / selected.head.temperature)
        rows.append(
            {
                "backbone": backbone_id.rsplit("/", 1)[-1].removesuffix("-imagenet.onnx"),
                "dataset": data,
                "features": name,
                "error of rounding": max(
                    relative_error(values[tap.name], np.asarray(exact.values[tap.name], np.float64))
                    for tap in backbone.taps
                ),
                "left out, right": correct(selected.probabilities, split.labels),
                "log-loss": f"{losses(selected.probabilities, split.labels):.4f}",
                "validation, right": correct(validation, truth),
                "its log-loss": f"{losses(validation, truth):.4f}",
                "cut off": sum(features.cut_off.values()) if name == "int16" else "",
                "coarse": f"{max(features.coarse_channels(split.train).values()):.1%}" if name == "int16" else "",
            }
        )
    return rows


def correct(probabilities: Values, truth: Values) -> str:
    return f"{int((probabilities.argmax(axis=1) == truth).sum())} of {len(truth)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=Path, help="a rendered sample that is there already")
    sample = parser.parse_args().sample
    with Scratch() as scratch:
        if sample is None:
            sample = scratch.path / "sample"
            render("horses-or-humans", sample)
        data = shared() / "data"
        folders = {"ants-bees": data / "ants-bees", "horse-or-human": data / "horse-or-human", "sample": sample}
        table = []
        for backbone in ("headstart-s", "headstart-m", mobilenetv2()):
            for name, folder in folders.items():
                rows = measure(backbone, name, folder)
                print_table(rows)
                table += rows
    print_table(table)


if __name__ == "__main__":
    main()
