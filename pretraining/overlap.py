"""Keep images of evaluation out of training: find training images that look like one, and leave out their folders.

    python overlap.py --images PATH ... --evaluation-data DATA ...      prints the folders to leave out, with the pairs

Two images look alike when their 16 x 16 versions, as they are or mirrored, correlate at least 0.95. An image that was
cropped before it was published would not be found that way; therefore the whole folder (the class) of a match is left
out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from images import ImageSource, class_folder, decode
from numpy.typing import NDArray
from PIL import Image

MIN_CORRELATION = 0.95
MIN_CONTRAST = 30  # norm of the centred pixels; below it an image is a plain area
BLOCK_SIZE = 4096  # images compared at a time


@dataclass(frozen=True)
class Match:
    """A training image that looks like an evaluation image, and their correlation."""

    name: str
    evaluation_name: str
    correlation: float


def tiny_images(source: ImageSource, rows: range) -> NDArray[np.float32]:
    """Return images at 16 x 16, centred and of length 1: [n, 16, 16, 3]; zero where one is plain or unreadable."""

    def tiny_image(index: int) -> NDArray[np.float32]:
        try:
            image = decode(source.read(index), 32).resize((16, 16), Image.Resampling.BOX)
        except (OSError, ValueError):
            return np.zeros((16, 16, 3), np.float32)
        pixels = np.asarray(image, np.float32)
        pixels = pixels - pixels.mean()
        length = np.linalg.norm(pixels)
        return pixels / length if length > MIN_CONTRAST else np.zeros_like(pixels)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(tiny_image, rows)))


def find_matches(source: ImageSource, evaluation: Sequence[ImageSource]) -> Iterator[Match]:
    """Yield every pair of an image of ``source`` and an evaluation image that look alike."""
    references = [(other, _flat(tiny_images(other, range(len(other))))) for other in evaluation]
    for start in range(0, len(source), BLOCK_SIZE):
        images = tiny_images(source, range(start, min(start + BLOCK_SIZE, len(source))))
        plain, mirrored = _flat(images), _flat(images[:, :, ::-1])
        for other, pixels in references:
            correlation = np.maximum(plain @ pixels.T, mirrored @ pixels.T)
            for i, j in zip(*np.nonzero(correlation >= MIN_CORRELATION), strict=True):
                yield Match(source.names[start + i], other.names[j], float(correlation[i, j]))


def remove_overlap(source: ImageSource, evaluation: Sequence[ImageSource]) -> None:
    """Remove the class folders of all images that look like an evaluation image."""
    folders = {class_folder(match.name) for match in find_matches(source, evaluation)}
    source.remove({name for name in source.names if class_folder(name) in folders})


def _flat(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return images.reshape(len(images), -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", type=Path, required=True)
    parser.add_argument("--evaluation-data", nargs="+", type=Path, required=True)
    arguments = parser.parse_args()
    evaluation = [ImageSource(path) for path in arguments.evaluation_data]
    for path in arguments.images:
        for match in find_matches(ImageSource(path), evaluation):
            folder = class_folder(match.name)
            print(f"{folder}\t{match.name}\t{match.evaluation_name}\t{match.correlation:.3f}", flush=True)


if __name__ == "__main__":
    main()
