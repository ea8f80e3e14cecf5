"""One picture by itself: its size and shape, light, sharpness and colour."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from headstart.check.finding import Finding
from headstart.data import Dataset
from headstart.features.features import Features

DARK, BRIGHT = 45.0, 240.0  # of 255: nearly all of the picture is below, or above
COLOUR = 6.0  # of 255: the mean difference between the channels of a picture in colour
NARROW = 3.0  # times as long as wide
BLOCK = 1_000  # pictures measured at a time: as numbers they take sixteen times their room
BLUR = 4.0  # robust deviations below the others' sharpness, and at most a quarter of it


def odd_looks(dataset: Dataset, features: Features, needed: tuple[int, int]) -> Iterator[Finding]:
    """Findings. ``needed`` is the size that the backbone takes; far smaller pictures show it next to nothing."""
    blocks = range(0, len(features.tiny_images), BLOCK)
    low, high, light, colour = np.concatenate([_light(features.tiny_images[at : at + BLOCK]) for at in blocks], axis=1)
    in_colour = float((colour > COLOUR).mean())
    sharp = np.log(np.maximum(features.image_stats[:, 2].astype(np.float64), 1e-4))
    middle = float(np.median(sharp))
    spread = max(1.4826 * float(np.median(np.abs(sharp - middle))), 0.2)
    for i, place in enumerate(features.index):
        file = (dataset.items[place].path,)
        height, width = map(int, features.image_stats[i, :2])
        if min(height, width) < min(needed) / 4:
            sure = 1 - min(height, width) / min(needed) * 2
            yield Finding("tiny", file, sure, "replace it by a larger one", f"{width} x {height} pixels")
        if (aspect := max(height, width) / min(height, width)) > NARROW:
            yield Finding("odd_shape", file, 1 - NARROW / aspect / 2, "crop it", f"{width} x {height} pixels")
        if high[i] < DARK:
            yield Finding("dark", file, 1 - float(high[i]) / DARK / 2, "drop or replace it", _told(light[i]))
        if low[i] > BRIGHT:
            sure = 0.5 + 0.5 * (float(low[i]) - BRIGHT) / (255 - BRIGHT)
            yield Finding("bright", file, sure, "drop or replace it", _told(light[i]))
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


def _light(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of small pictures [n, 768] what a twentieth is darker than, and brighter than, the mean brightness, and the
    colour: [4, n]."""
    small = pixels.reshape(len(pixels), -1, 3).astype(np.float32)
    grey = small.mean(axis=2, keepdims=True)
    light = np.sort(grey[:, :, 0], axis=1)
    return np.stack([light[:, light.shape[1] // 20], light[:, -light.shape[1] // 20], light.mean(axis=1),
                     np.abs(small - grey).mean(axis=(1, 2))])  # fmt: skip


def _told(light: np.float32) -> str:
    return f"brightness {light / 255:.0%}"
