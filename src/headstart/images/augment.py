"""Augmented copies (views) of an image: rotated, shifted, sheared, zoomed and mirrored.

A view is made from the pixels that the backbone takes as input, so it costs one small resampling. The image's content
and the number of the view determine it, so the same view can be made again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import OptionError

Pixels = NDArray[np.uint8]
VERSION = 1


@dataclass(frozen=True)
class Augmentation:
    """Ranges of random transformations. Each value is drawn uniformly from minus to plus the range.

    ``rotation`` and ``shear`` are in degrees, ``shift`` is a fraction of the height and width, and ``zoom`` a fraction
    of the scale, drawn for each axis; with ``flip`` every other view is mirrored. Pixels from outside the image repeat
    its edge. The order of the transformations and the meaning of each value are those of Keras's
    ``ImageDataGenerator``.
    """

    rotation: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    flip: bool = False


AUGMENTATIONS = {
    "flip": Augmentation(flip=True),
    "light": Augmentation(rotation=10, shift=0.05, zoom=0.1, flip=True),
    "lesson": Augmentation(rotation=40, shift=0.2, shear=0.2, zoom=0.2, flip=True),
}


@dataclass(frozen=True)
class View:
    """The augmented copy with number 1, 2, ... of every image; number 0 is the image itself."""

    augmentation: Augmentation
    number: int

    @property
    def key(self) -> str:
        """Part of the key of cached features. It changes whenever the resulting pixels could change."""
        return f"{VERSION} {self.number} {json.dumps(asdict(self.augmentation), sort_keys=True)}"

    def __call__(self, pixels: Pixels, content_hash: bytes) -> Pixels:
        """Return the view of ``pixels`` [height, width, 3], in the same shape. ``content_hash`` is of the file."""
        seed = int.from_bytes(hashlib.sha256(content_hash + self.key.encode()).digest()[:8], "big")
        rng = np.random.default_rng(seed)
        warped = warp(pixels, random_affine(self.augmentation, pixels.shape[0], pixels.shape[1], rng))
        mirrored = self.augmentation.flip and self.number % 2
        return np.ascontiguousarray(warped[:, ::-1]) if mirrored else warped


def views(name: str, count: int) -> list[View]:
    """Return the views 1 to ``count`` - 1 of a named augmentation. Raises OptionError."""
    if name not in AUGMENTATIONS:
        raise OptionError(f"Unknown augmentation {name!r}; choose one of {', '.join(AUGMENTATIONS)}.")
    if type(count) is not int or not 1 <= count <= 1000:
        raise OptionError(f"{count!r} is not a valid number of views; give a whole number from 1 to 1000.")
    if name == "flip" and count > 2:
        raise OptionError(f"An image has two views under flip, itself and its mirror image, not {count}.")
    return [View(AUGMENTATIONS[name], number) for number in range(1, count)]


def random_affine(augmentation: Augmentation, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a matrix [3, 3] that maps (row, column, 1) of the view to (row, column, 1) of the image.

    The image is transformed about its centre.
    """
    return affine(augmentation, height, width, rng.uniform(-1, 1, 6))


def affine(augmentation: Augmentation, height: int, width: int, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrices [..., 3, 3] of ``random_affine`` for numbers [..., 6] from -1 to 1.

    They are the shares of the ranges of rotation, shear, shift down and across, and zoom down and across.
    """
    draws = np.asarray(draws, np.float64)
    angle, shear = np.deg2rad(draws[..., 0] * augmentation.rotation), np.deg2rad(draws[..., 1] * augmentation.shear)
    down, across = draws[..., 2] * augmentation.shift * height, draws[..., 3] * augmentation.shift * width
    zoom_down, zoom_across = 1 + draws[..., 4] * augmentation.zoom, 1 + draws[..., 5] * augmentation.zoom
    rotation = _matrices(np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0)
    shift = _matrices(1, 0, down, 0, 1, across)
    shearing = _matrices(1, -np.sin(shear), 0, 0, np.cos(shear), 0)
    scaling = _matrices(zoom_down, 0, 0, 0, zoom_across, 0)
    centre = _matrices(1, 0, (height - 1) / 2, 0, 1, (width - 1) / 2)
    matrix: NDArray[np.float64] = centre @ rotation @ shift @ shearing @ scaling @ np.linalg.inv(centre)
    return matrix


def _matrices(*values: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return matrices [..., 3, 3] of the six values of their first two rows; the last row is 0, 0, 1."""
    rows = np.stack(np.broadcast_arrays(*values, 0.0, 0.0, 1.0), -1)
    return rows.reshape(*rows.shape[:-1], 3, 3)


def warp(pixels: Pixels, matrix: NDArray[np.float64]) -> Pixels:
    """Resample an image [height, width, 3] bilinearly at the places to which ``matrix`` maps each pixel.

    Outside the image its edge is repeated.
    """
    if np.array_equal(matrix, np.eye(3)):
        return pixels
    height, width = pixels.shape[:2]
    corners = matrix @ [[0, 0, height - 1, height - 1], [0, width - 1, 0, width - 1], [1, 1, 1, 1]]
    overhang = max(-corners[:2].min(), (corners[0] - height + 1).max(), (corners[1] - width + 1).max(), 0)
    margin = int(overhang) + 2
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    (a, b, c), (d, e, f), _ = matrix
    # Pillow expects columns before rows and measures from the corners of pixels, not their centres.
    columns = (e, d, f - 0.5 * (d + e) + 0.5 + margin)
    rows = (b, a, c - 0.5 * (a + b) + 0.5 + margin)
    image = Image.fromarray(padded).transform(
        (width, height), Image.Transform.AFFINE, (*columns, *rows), Image.Resampling.BILINEAR
    )
    return np.asarray(image)
