"""One picture by itself: its size and shape, light, sharpness and colour."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.check.model import Finding
from headstart.datasets import Dataset
from headstart.errors import ImageError
from headstart.features import Features
from headstart.images import FORMATS, decode
from headstart.runtime import cores

SIDE = 256  # sharpness is measured at this shorter side
DARK, BRIGHT = 45.0, 240.0  # of 255: nearly all of the picture is below, or above
COLOUR = 6.0  # of 255: the mean difference between the channels of a picture in colour
NARROW = 3.0  # times as long as wide
BLUR = 4.0  # robust deviations below the others' sharpness, and at most a quarter of it


@dataclass(frozen=True)
class Looks:
    """Of n pictures: ``size`` [n, 2] height and width as stored, and ``sharpness`` [n], the share of fine detail."""

    size: NDArray[np.int64]
    sharpness: NDArray[np.float64]


def look(dataset: Dataset, index: NDArray[np.integer], workers: int | None = None) -> Looks:
    """Measure the pictures at ``index`` [n] of a data set, all readable."""

    def one(place: int) -> tuple[int, int, float]:
        return measure(dataset.read(place))[:3]

    with ThreadPoolExecutor(workers or cores()) as pool:
        rows = list(pool.map(one, map(int, index)))
    return Looks(np.array([row[:2] for row in rows]), np.array([row[2] for row in rows]))


def measure(source: bytes | NDArray[np.uint8]) -> tuple[int, int, float, NDArray[np.uint8]]:
    """Of a readable picture its height and width as stored, its sharpness, and the pixels that were looked at."""
    if isinstance(source, np.ndarray):
        return (*source.shape[:2], sharpness(source), source)
    with Image.open(io.BytesIO(source), formats=FORMATS) as picture:
        width, height = picture.size
    image = decode(source, at_least=(SIDE, SIDE))
    return height, width, sharpness(image), image


def sharpness(image: NDArray[np.uint8]) -> float:
    """Fine detail as a share of all contrast: the deviation of the Laplacian over that of the brightness.

    Pictures [height, width, 3] are brought to a shorter side of 256, never enlarged, so that one threshold fits all.
    """
    picture = Image.fromarray(image).convert("L")
    scale = SIDE / min(picture.size)
    if scale < 1:
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BOX)
    grey = np.asarray(picture, np.float32)
    if min(grey.shape) < 3:
        raise ImageError("The picture is too small to be judged.")
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return float(laplacian.std() / (middle.std() + 1.0))


def odd_looks(dataset: Dataset, features: Features, looks: Looks, needed: tuple[int, int]) -> Iterator[Finding]:
    """Findings. ``needed`` is the size that the backbone takes; far smaller pictures show it next to nothing."""
    small = features.pixels.reshape(len(features.pixels), -1, 3).astype(np.float32)
    light = np.sort(small.mean(axis=2), axis=1)
    low, high = light[:, light.shape[1] // 20], light[:, -light.shape[1] // 20]  # all but a twentieth
    colour = np.abs(small - small.mean(axis=2, keepdims=True)).mean(axis=(1, 2))
    in_colour = float((colour > COLOUR).mean())
    sharp = np.log(np.maximum(looks.sharpness, 1e-4))
    middle = float(np.median(sharp))
    spread = max(1.4826 * float(np.median(np.abs(sharp - middle))), 0.2)
    for i, place in enumerate(features.index):
        file = (dataset.items[place].path,)
        height, width = map(int, looks.size[i])
        if min(height, width) < min(needed) / 4:
            sure = 1 - min(height, width) / min(needed) * 2
            yield Finding("tiny", file, sure, "replace it by a larger one", f"{width} x {height} pixels")
        if (aspect := max(height, width) / min(height, width)) > NARROW:
            yield Finding("odd_shape", file, 1 - NARROW / aspect / 2, "crop it", f"{width} x {height} pixels")
        if high[i] < DARK:
            yield Finding("dark", file, 1 - float(high[i]) / DARK / 2, "drop or replace it", _light(light[i]))
        if low[i] > BRIGHT:
            sure = 0.5 + 0.5 * (float(low[i]) - BRIGHT) / (255 - BRIGHT)
            yield Finding("bright", file, sure, "drop or replace it", _light(light[i]))
        below = (middle - float(sharp[i])) / spread
        if below > BLUR and middle - sharp[i] > np.log(4):
            yield Finding(
                "blurred", file, 1 - BLUR / below / 2, "replace it by a sharper one",
                f"{np.exp(middle - sharp[i]):.0f} times less detail than the middle picture",
            )  # fmt: skip
        if colour[i] < 1 and in_colour > 0.8:
            yield Finding(
                "grey", file, in_colour, "see that grey does not stand for a class",
                f"no colour, where {in_colour:.0%} have some",
            )  # fmt: skip


def _light(light: NDArray[np.float32]) -> str:
    return f"brightness {light.mean() / 255:.0%}"
