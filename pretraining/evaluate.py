"""How good the features are: ridge on frozen features, its penalty chosen by exact leave-one-out.

python evaluate.py BACKBONE.onnx DATA ...     DATA has train/ and validation/ (or val/) with class folders
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from images import SUFFIXES, ImageSource, centre_crop, class_folder, normalise
from numpy.typing import NDArray
from PIL import Image
from student import Student

PENALTIES = np.logspace(-5, 2, 29)  # times the mean squared length of a centred feature vector
TEST_EVERY = 4  # of the probe's images, every fourth is tested on


def ridge_accuracy(
    x: NDArray, y: NDArray[np.int64], x_new: NDArray, y_new: NDArray[np.int64], groups: NDArray | None = None
) -> float:
    """Return the accuracy on (x_new, y_new) of ridge fitted to (x, y), with the penalty of the least held-out error.

    The error is squared; a single row is held out, or with ``groups`` a group of them. The constant is taken out of the
    smoother and added back as 1/n.
    """
    mean = x.mean(axis=0, dtype=np.float64)
    centred, centred_new = x - mean, x_new - mean
    targets = np.eye(int(y.max()) + 1)[y]
    eigenvalues, eigenvectors = np.linalg.eigh(centred @ centred.T)
    eigenvalues = np.maximum(eigenvalues, 0)
    penalties = PENALTIES * eigenvalues.sum() / len(x)
    errors = []
    for penalty in penalties:
        smoother = (eigenvectors * (eigenvalues / (eigenvalues + penalty))) @ eigenvectors.T + 1 / len(x)
        errors.append(float((_held_out_residuals(smoother, targets, groups) ** 2).mean()))
    best = penalties[int(np.argmin(errors))]
    centred_targets = targets - targets.mean(axis=0)
    dual = (eigenvectors / (eigenvalues + best)) @ (eigenvectors.T @ centred_targets)
    scores = (centred_new @ centred.T) @ dual + targets.mean(axis=0)
    return float((scores.argmax(axis=1) == y_new).mean())


def _held_out_residuals(smoother: NDArray, targets: NDArray, groups: NDArray | None) -> NDArray:
    """Return the residuals [n, k] of all rows when each, or the group of each, is left out."""
    residuals = targets - smoother @ targets
    if groups is None:
        return residuals / (1 - smoother.diagonal())[:, None]
    held_out = np.empty_like(residuals)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        held_out[rows] = np.linalg.solve(np.eye(len(rows)) - smoother[np.ix_(rows, rows)], residuals[rows])
    return held_out


@dataclass(frozen=True)
class ProbeImage:
    """An image of the probe: its name, its file, and the index of its class."""

    name: str
    data: bytes
    label: int


def choose_probe(source: ImageSource, classes: int, images_per_class: int) -> list[ProbeImage]:
    """Choose the first images of some class folders; none where there are no folders of enough images."""
    by_class: dict[str, list[int]] = {}
    for i, name in enumerate(source.names):
        by_class.setdefault(class_folder(name), []).append(i)
    large = [rows for _, rows in sorted(by_class.items()) if len(rows) >= 4 * images_per_class]
    chosen = large[:: max(1, len(large) // classes)][:classes]
    return [
        ProbeImage(source.names[i], source.read(i), label)
        for label, rows in enumerate(chosen)
        for i in rows[:images_per_class]
    ]


@torch.no_grad()
def probe_accuracy(student: Student, probe: Sequence[ProbeImage], size: int, device: str) -> float:
    """Return the accuracy of ridge on every fourth image, fitted to the others; NaN for an empty probe."""
    if not probe:
        return float("nan")
    student = student.to(device, memory_format=torch.channels_last)
    features = []
    for i in range(0, len(probe), 100):
        pixels = np.stack([centre_crop(image.data, size) for image in probe[i : i + 100]])
        batch = torch.from_numpy(normalise(pixels)).to(device, memory_format=torch.channels_last)
        features.append(student(batch)[-1].float().mean(dim=(2, 3)).cpu().numpy())
    x, y = np.concatenate(features), np.array([image.label for image in probe])
    is_test = np.arange(len(y)) % TEST_EVERY == TEST_EVERY - 1
    return ridge_accuracy(x[~is_test], y[~is_test], x[is_test], y[is_test])


def embed(onnx_file: Path, paths: Sequence[Path], resize: str, crop: float) -> dict[str, NDArray[np.float32]]:
    """Compute every tap of an exported backbone, by ONNX Runtime in fp32."""
    import onnxruntime as ort

    session = ort.InferenceSession(onnx_file)
    size = session.get_inputs()[0].shape[1]
    batches = []
    for i in range(0, len(paths), 32):
        crops = [centre_crop(path.read_bytes(), size, resize, crop) for path in paths[i : i + 32]]
        batches.append(session.run(None, {"pixels": np.stack(crops)}))
    names = [output.name for output in session.get_outputs()]
    return {name: np.concatenate(values) for name, values in zip(names, zip(*batches, strict=True), strict=True)}


def is_readable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.format != "GIF"
    except OSError:
        return False


@dataclass(frozen=True)
class Split:
    """The files of a split [n], their features [n, d] and labels [n]."""

    files: list[Path]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def load_split(onnx_file: Path, folder: Path, resize: str, crop: float) -> Split:
    """Compute the features of the readable images in a folder of class folders."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and is_readable(path)]
    features = embed(onnx_file, files, resize, crop)["features"]
    return Split(files, features, np.array([classes.index(path.parent.name) for path in files]))


def evaluate(onnx_file: Path, data: Path, resize: str, crop: float) -> dict[str, float]:
    """Return the validation accuracy of the last tap: penalty by leave-one-out, and by leave-scene-out (file names)."""
    train = load_split(onnx_file, data / "train", resize, crop)
    validation_folder = next(data / name for name in ("validation", "val") if (data / name).is_dir())
    validation = load_split(onnx_file, validation_folder, resize, crop)

    def accuracy(groups: NDArray | None = None) -> float:
        return ridge_accuracy(train.features, train.labels, validation.features, validation.labels, groups)

    result = {"leave_one_out": accuracy(), "count": len(validation.labels)}
    scenes = np.unique([path.stem.split("-")[0] for path in train.files], return_inverse=True)[1]
    if len(np.unique(scenes)) < len(train.labels) / 4:
        result["leave_scene_out"] = accuracy(scenes)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("backbone", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--resize", choices=("shortest", "squash"), default="shortest")
    parser.add_argument("--crop", type=float, default=0.875)
    arguments = parser.parse_args()
    for data in arguments.data:
        result = evaluate(arguments.backbone, data, arguments.resize, arguments.crop)
        print(json.dumps({"data": data.name, **result}))


if __name__ == "__main__":
    main()
