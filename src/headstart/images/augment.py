"""Other views of a picture: turned, shifted, sheared, zoomed, mirrored. Settled by the picture and the view's number.

A view is made from the pixels that the backbone would take, so that it costs one small resampling.
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
    """How far views may be from the picture, drawn evenly from both sides of none.

    ``rotation`` and ``shear`` in degrees, ``shift`` as a share of the height and width, ``zoom`` as a share of the
    scale, drawn for each direction; every other view is mirrored with ``flip``. What comes in from outside repeats
    the edge. The order of the steps and the meaning of each number are those of Keras's ``ImageDataGenerator``.
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
    """View number 1, 2, ... of every picture under an augmentation; number 0 is the picture itself."""

    augmentation: Augmentation
    number: int

    @property
    def key(self) -> str:
        """What features are kept under: changes when the resulting pixels could."""
        return f"{VERSION} {self.number} {json.dumps(asdict(self.augmentation), sort_keys=True)}"

    def __call__(self, pixels: Pixels, content: bytes) -> Pixels:
        """The view of ``pixels`` [height, width, 3] of the picture with hash ``content``, the same shape."""
        seed = int.from_bytes(hashlib.sha256(content + self.key.encode()).digest()[:8], "big")
        how = self.augmentation
        seen = warp(pixels, random_affine(how, pixels.shape[0], pixels.shape[1], np.random.default_rng(seed)))
        return np.ascontiguousarray(seen[:, ::-1]) if how.flip and self.number % 2 else seen


def views(name: str, count: int) -> list[View]:
    """The views 1 to ``count`` - 1 of a named augmentation. Raises OptionError."""
    if name not in AUGMENTATIONS:
        raise OptionError(f"Unknown augmentation {name!r}; choose one of {', '.join(AUGMENTATIONS)}.")
    if type(count) is not int or not 1 <= count <= 1000:
        raise OptionError(f"{count!r} views of a picture cannot be made; give a number from 1 to 1000.")
    if name == "flip" and count > 2:
        raise OptionError(f"A picture has two views under flip, itself and its mirror image, not {count}.")
    return [View(AUGMENTATIONS[name], number) for number in range(1, count)]


def random_affine(how: Augmentation, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random matrix [3, 3] from (row, column, 1) of the view to (row, column, 1) of the picture, about its centre."""
    turn, shear = np.deg2rad(rng.uniform(-1, 1, 2) * (how.rotation, how.shear))
    down, across = rng.uniform(-1, 1, 2) * how.shift * (height, width)
    zoom_down, zoom_across = 1 + rng.uniform(-1, 1, 2) * how.zoom
    rotated = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    shifted = np.array([[1, 0, down], [0, 1, across], [0, 0, 1]])
    sheared = np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    zoomed = np.diag([zoom_down, zoom_across, 1])
    centre = np.array([[1, 0, (height - 1) / 2], [0, 1, (width - 1) / 2], [0, 0, 1]])
    result: NDArray[np.float64] = centre @ rotated @ shifted @ sheared @ zoomed @ np.linalg.inv(centre)
    return result


def warp(pixels: Pixels, to_picture: NDArray[np.float64]) -> Pixels:
    """The picture [height, width, 3] seen through ``to_picture``, bilinear, its edge repeated outside."""
    if np.array_equal(to_picture, np.eye(3)):
        return pixels
    height, width = pixels.shape[:2]
    corners = to_picture @ [[0, 0, height - 1, height - 1], [0, width - 1, 0, width - 1], [1, 1, 1, 1]]
    far = max(-corners[:2].min(), (corners[0] - height + 1).max(), (corners[1] - width + 1).max(), 0)
    margin = int(far) + 2
    wide = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    (a, b, c), (d, e, f), _ = to_picture
    # Pillow asks for columns before rows and counts from the corners of pixels, not their centres.
    across = (e, d, f - 0.5 * (d + e) + 0.5 + margin)
    down = (b, a, c - 0.5 * (a + b) + 0.5 + margin)
    image = Image.fromarray(wide).transform(
        (width, height), Image.Transform.AFFINE, (*across, *down), Image.Resampling.BILINEAR
    )
    return np.asarray(image)
