"""How good the features are: ridge on frozen features, its penalty chosen by exact leave-one-out.

python evaluate.py BACKBONE.onnx DATA ...     DATA has train/ and validation/ (or val/) with class folders
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pictures import SUFFIXES, Source, centre_crop, normalised
from PIL import Image
from student import Student

Array = NDArray[np.float64]
PENALTIES = np.logspace(-5, 2, 29)  # of the mean squared length of a centred feature vector


def ridge_accuracy(
    x: NDArray, y: NDArray[np.int64], x_new: NDArray, y_new: NDArray[np.int64], groups: NDArray | None = None
) -> float:
    """Accuracy on (x_new, y_new) of ridge fitted on (x, y), the penalty of the best held-out squared error.

    Held out: one row, or one group. The constant is taken out of the smoother and added back as 1/n.
    """
    mean = x.mean(axis=0, dtype=np.float64)
    a, b = x - mean, x_new - mean
    targets = np.eye(int(y.max()) + 1)[y]
    centred = targets - targets.mean(axis=0)
    spread, basis = np.linalg.eigh(a @ a.T)
    spread = np.maximum(spread, 0)
    best = (np.inf, 0.0)
    for penalty in PENALTIES * spread.sum() / len(a):
        smoother = (basis * (spread / (spread + penalty))) @ basis.T + 1 / len(a)
        residual = targets - smoother @ targets
        if groups is None:
            held = residual / (1 - smoother.diagonal())[:, None]
        else:
            held = np.empty_like(residual)
            for group in np.unique(groups):
                rows = np.flatnonzero(groups == group)
                held[rows] = np.linalg.solve(np.eye(len(rows)) - smoother[np.ix_(rows, rows)], residual[rows])
        best = min(best, (float((held**2).mean()), penalty))
    dual = (basis / (spread + best[1])) @ (basis.T @ centred)
    scores = (b @ a.T) @ dual + targets.mean(axis=0)
    return float((scores.argmax(axis=1) == y_new).mean())


def probe_set(source: Source, classes: int, each: int) -> list[tuple[str, bytes, int]]:
    """The first pictures of some class folders (name, bytes, class); none if the names tell no classes."""
    by_class: dict[str, list[int]] = {}
    for i, name in enumerate(source.names):
        folder = Path(name).parent
        by_class.setdefault(str(folder.parent if folder.name == "images" else folder), []).append(i)
    big = [rows for _, rows in sorted(by_class.items()) if len(rows) >= 4 * each]
    chosen = big[:: max(1, len(big) // classes)][:classes]
    return [(source.names[i], source.read(i), c) for c, rows in enumerate(chosen) for i in rows[:each]]


@torch.no_grad()
def probe(student: Student, pictures: list[tuple[str, bytes, int]], size: int, device: str) -> float:
    """Accuracy on every fourth picture of ridge fitted on the others."""
    if not pictures:
        return float("nan")
    student = student.to(device, memory_format=torch.channels_last)
    features = []
    for i in range(0, len(pictures), 100):
        pixels = np.stack([centre_crop(data, size) for _, data, _ in pictures[i : i + 100]])
        x = torch.from_numpy(normalised(pixels)).to(device, memory_format=torch.channels_last)
        features.append(student(x)[-1].float().mean(dim=(2, 3)).cpu().numpy())
    x, y = np.concatenate(features), np.array([label for _, _, label in pictures])
    new = np.arange(len(y)) % 4 == 3
    return ridge_accuracy(x[~new], y[~new], x[new], y[new])


def embed(onnx_file: Path, pictures: Sequence[Path], resize: str, crop: float) -> dict[str, NDArray[np.float32]]:
    """Every tap of an exported backbone on pictures, by OpenVINO or ONNX Runtime in fp32."""
    import onnxruntime as ort

    session = ort.InferenceSession(onnx_file)
    size = session.get_inputs()[0].shape[1]
    found: list[list[NDArray[np.float32]]] = []
    for i in range(0, len(pictures), 32):
        crops = [centre_crop(p.read_bytes(), size, resize, crop) for p in pictures[i : i + 32]]
        found.append(session.run(None, {"pixels": np.stack(crops)}))
    names = [output.name for output in session.get_outputs()]
    return {n: np.concatenate(v) for n, v in zip(names, zip(*found, strict=True), strict=True)}


def readable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.format != "GIF"
    except OSError:
        return False


def evaluate(onnx_file: Path, data: Path, resize: str, crop: float) -> dict[str, float]:
    """Validation accuracy of the last tap: penalty by leave-one-out, and by leave-scene-out (file names)."""
    splits = []
    for names in (("train",), ("validation", "val")):
        folder = next(data / name for name in names if (data / name).is_dir())
        labels = sorted(p.name for p in folder.iterdir() if p.is_dir())
        files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and readable(p)]
        features = embed(onnx_file, files, resize, crop)["features"]
        splits.append((features, np.array([labels.index(p.parent.name) for p in files]), files))
    (x, y, files), (x_new, y_new, _) = splits
    scenes = np.unique([p.stem.split("-")[0] for p in files], return_inverse=True)[1]
    result = {"leave_one_out": ridge_accuracy(x, y, x_new, y_new), "count": len(y_new)}
    if len(np.unique(scenes)) < len(y) / 4:
        result["leave_scene_out"] = ridge_accuracy(x, y, x_new, y_new, scenes)
    return result


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("backbone", type=Path)
    p.add_argument("data", type=Path, nargs="+")
    p.add_argument("--resize", choices=("shortest", "squash"), default="shortest")
    p.add_argument("--crop", type=float, default=0.875)
    opt = p.parse_args()
    for place in opt.data:
        print(json.dumps({"data": place.name, **evaluate(opt.backbone, place, opt.resize, opt.crop)}))
