"""Quality issues of single images: their size and shape, content, brightness, sharpness and colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.check.finding import Finding
from headstart.data import Dataset
from headstart.features.features import Features

MIN_SIZE = 0.25  # shorter side, as a share of that of the input size
MAX_ASPECT_RATIO = 3.0
DARK = 45.0  # of 255: 95% of the pixels are darker
BRIGHT = 240.0  # of 255: 95% of the pixels are brighter
COLOURFUL = 6.0  # of 255: mean deviation of the channels from their mean, of an image in colour
COLOURLESS = 1.0
MIN_COLOUR_SHARE = 0.8  # of all images; where more are grey, a grey image is no issue
BLURRED = 0.4  # sharpness of the strongest edges (``images.thumbnail.edge_stats``)
EMPTY = 12.0  # of 255: contrast of the strongest edges
PLAIN = 0.7  # of 255: spread of the 16 x 16 pixels of an empty dark or bright image, in which noise averages out
BLOCK = 1_000  # images whose pixels are converted at a time: as float32 they take several times their memory


def find_quality_issues(dataset: Dataset, features: Features, input_size: tuple[int, int]) -> Iterator[Finding]:
    """Find tiny, oddly shaped, empty, dark, bright, blurred and grey images.

    ``input_size`` is the height and width that preprocessing needs (``Preprocess.min_size``).
    """
    paths = [dataset.items[i].path for i in features.index]
    low, high, mean, colour, spread = _pixel_stats(features.tiny_images)
    yield from _size_issues(paths, features.image_stats, input_size)
    yield from _brightness_issues(paths, low, high, mean)
    contrast = features.image_stats[:, 2]
    is_plain = np.where((high < DARK) | (low > BRIGHT), spread < PLAIN, contrast < EMPTY)
    yield from _empty_images(paths, contrast, is_plain)
    yield from _blurred_images(paths, features.image_stats[:, 3])
    yield from _grey_images(paths, colour)


def _pixel_stats(tiny_images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return 5th percentile, 95th percentile, mean, colourfulness and spread of the brightness of images [n, 768].

    All [5, n], 0 to 255. Colourfulness is the mean deviation of the channels from the brightness; spread is a standard
    deviation.
    """
    stats = np.empty((5, len(tiny_images)), np.float32)
    for start in range(0, len(tiny_images), BLOCK):
        block = slice(start, start + BLOCK)
        pixels = tiny_images[block].reshape(-1, 256, 3).astype(np.float32)
        brightness = pixels.mean(axis=2, keepdims=True)
        ordered = np.sort(brightness[:, :, 0], axis=1)
        tail = ordered.shape[1] // 20
        stats[0, block] = ordered[:, tail]
        stats[1, block] = ordered[:, -1 - tail]
        stats[2, block] = ordered.mean(axis=1)
        stats[3, block] = np.abs(pixels - brightness).mean(axis=(1, 2))
        stats[4, block] = ordered.std(axis=1)
    return stats


def _size_issues(
    paths: Sequence[str], image_stats: NDArray[np.float32], input_size: tuple[int, int]
) -> Iterator[Finding]:
    for path, stats in zip(paths, image_stats, strict=True):
        height, width = int(stats[0]), int(stats[1])
        shorter, longer = sorted((height, width))
        size = f"{width} x {height} pixels"
        if shorter < min(input_size) * MIN_SIZE:
            confidence = 1 - shorter / min(input_size) * 2
            yield Finding("tiny", (path,), "certain", confidence, "replace it with a larger image", size)
        aspect_ratio = longer / shorter
        if aspect_ratio > MAX_ASPECT_RATIO:
            yield Finding("odd_shape", (path,), "certain", 1 - MAX_ASPECT_RATIO / aspect_ratio / 2, "crop it", size)


def _brightness_issues(
    paths: Sequence[str], low: NDArray[np.float32], high: NDArray[np.float32], mean: NDArray[np.float32]
) -> Iterator[Finding]:
    for i in np.flatnonzero(high < DARK).tolist():
        confidence = 1 - float(high[i]) / DARK / 2
        yield Finding(
            "dark", (paths[i],), "certain", confidence, "replace or remove it", f"mean brightness {mean[i] / 255:.0%}"
        )
    for i in np.flatnonzero(low > BRIGHT).tolist():
        confidence = 0.5 + 0.5 * (float(low[i]) - BRIGHT) / (255 - BRIGHT)
        yield Finding(
            "bright", (paths[i],), "certain", confidence, "replace or remove it", f"mean brightness {mean[i] / 255:.0%}"
        )


def _empty_images(
    paths: Sequence[str], contrast: NDArray[np.float32], is_plain: NDArray[np.bool_]
) -> Iterator[Finding]:
    for i in np.flatnonzero(is_plain).tolist():
        confidence = 1 - float(min(contrast[i], EMPTY)) / EMPTY / 2
        why = f"no edges: their contrast is {contrast[i] / 255:.0%}"
        yield Finding("empty", (paths[i],), "certain", confidence, "replace or remove it", why)


def _blurred_images(paths: Sequence[str], sharpness: NDArray[np.float32]) -> Iterator[Finding]:
    for i in np.flatnonzero(sharpness < BLURRED).tolist():
        confidence = min(1.0, 0.5 + (BLURRED - float(sharpness[i])) / BLURRED)
        why = f"even its strongest edges are soft: sharpness {sharpness[i]:.2f}, sharp from {BLURRED}"
        yield Finding("blurred", (paths[i],), "likely", confidence, "replace it with a sharper image", why)


def _grey_images(paths: Sequence[str], colour: NDArray[np.float32]) -> Iterator[Finding]:
    colour_share = float((colour > COLOURFUL).mean())
    if colour_share <= MIN_COLOUR_SHARE:
        return
    action = "check that grey images are not confined to one class"
    why = f"no colour, while {colour_share:.0%} of the images have colour"
    for i in np.flatnonzero(colour < COLOURLESS).tolist():
        yield Finding("grey", (paths[i],), "certain", colour_share, action, why)
