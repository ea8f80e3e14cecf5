"""What it costs to prepare images on a phone in another way than in training: changed answers on real images.

    python benchmarks/other_resizes.py [--backbone headstart-m]

A model of ants and bees answers the validation images, prepared as ``preprocess.py`` does it, and in ways that are at
hand on a phone: bilinear without antialiasing, of the right region, of the whole central square, and squashed.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable

import numpy as np
from measure import print_table, shared
from PIL import Image

from headstart import FitOptions, fit_dataset, open_dataset, preprocess
from headstart.features.runtime import Compute, load_graph
from headstart.images.standalone import to_rgb

BILINEAR = Image.Resampling.BILINEAR


def central(image: Image.Image, share: float) -> tuple[float, float, float, float]:
    """Return the central square of this share of the shorter side."""
    side = min(image.size) * share
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return (left, top, left + side, top + side)


def sampled(image: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Resize a region as graphics processors do: bilinear between four pixels, however much smaller it becomes."""
    return np.asarray(image.transform(size, Image.Transform.EXTENT, box, BILINEAR))


def halved(image: Image.Image, share: float, size: tuple[int, int]) -> np.ndarray:
    """Halve the image while that leaves enough, as ``inSampleSize`` of Android does; then resize the region."""
    while min(image.size) * share >= 2 * max(size):
        image = image.reduce(2)
    return sampled(image, central(image, share), size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="headstart-m")
    arguments = parser.parse_args()
    dataset = open_dataset(shared() / "data" / "ants-bees")
    model = fit_dataset(dataset, FitOptions(arguments.backbone)).model
    graph, prepared = load_graph(model.graph, Compute("onnxruntime", workers=1)), model.preprocess
    size, crop = (prepared.width, prepared.height), prepared.crop
    ways: dict[str, Callable[[Image.Image], np.ndarray]] = {
        "bilinear, the right region": lambda image: sampled(image, central(image, crop), size),
        "halved, then bilinear, the right region": lambda image: halved(image, crop, size),
        "bilinear, the whole central square": lambda image: sampled(image, central(image, 1.0), size),
        "bilinear, squashed": lambda image: sampled(image, (0, 0, *image.size), size),
    }
    images = dataset.split("validation")
    contents = [images.read(i) for i in range(len(images))]
    truth = np.array([model.classes.index(item.label) for item in images.items])

    def answer(pixels: list[np.ndarray]) -> np.ndarray:
        parts = [graph.run(np.stack(pixels[i : i + 16])) for i in range(0, len(pixels), 16)]
        return np.concatenate([part["probabilities"] for part in parts])

    expected = answer([preprocess(io.BytesIO(data), **prepared.to_dict()) for data in contents])
    rows = [{"prepared": "as preprocess.py does it", "changed": 0, "difference": "0", "right": _right(expected, truth)}]
    for name, way in ways.items():
        found = answer([way(to_rgb(io.BytesIO(data))) for data in contents])
        changed = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
        difference = np.abs(found - expected).max()
        rows.append(
            {"prepared": name, "changed": changed, "difference": f"{difference:.2f}", "right": _right(found, truth)}
        )
    print(f"{len(images)} images of ants and bees, {arguments.backbone}")
    print_table(rows)


def _right(probabilities: np.ndarray, truth: np.ndarray) -> int:
    return int((probabilities.argmax(axis=1) == truth).sum())


if __name__ == "__main__":
    main()
