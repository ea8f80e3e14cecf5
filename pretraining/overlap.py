"""Keep the pictures of evaluation out of training: find those that look like one, and leave out their folders.

    python apart.py --pictures PLACE ... --apart DATA ...      prints the folders to leave out, with their pairs

Two pictures look alike when their 16 x 16 versions, as they are or mirrored, correlate at least 0.95. A picture that
was cropped before it was published would not be found so; therefore the whole folder (the class) of a find goes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pictures import Source, decode
from PIL import Image

ALIKE = 0.95
BLOCK = 4096


def units(source: Source, rows: range) -> NDArray[np.float32]:
    """The pictures at 16 x 16, centred and of length 1: [n, 16, 16, 3]; all zero if one is even or unreadable."""

    def small(index: int) -> NDArray[np.float32]:
        try:
            tiny = decode(source.read(index), 32).resize((16, 16), Image.Resampling.BOX)
        except (OSError, ValueError):
            return np.zeros((16, 16, 3), np.float32)
        values = np.asarray(tiny, np.float32) - np.asarray(tiny, np.float32).mean()
        length = np.linalg.norm(values)
        return values / length if length > 30 else np.zeros_like(values)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(small, rows)))


def look_alikes(source: Source, apart: Sequence[Source]) -> Iterator[tuple[str, str, float]]:
    """(picture of ``source``, picture of one of ``apart``, correlation) of every pair that looks alike."""
    theirs = [(other, units(other, range(len(other.items))).reshape(len(other.items), -1)) for other in apart]
    for start in range(0, len(source.items), BLOCK):
        ours = units(source, range(start, min(start + BLOCK, len(source.items))))
        flat, mirrored = ours.reshape(len(ours), -1), ours[:, :, ::-1].reshape(len(ours), -1)
        for other, their in theirs:
            alike = np.maximum(flat @ their.T, mirrored @ their.T)
            for i, j in zip(*np.nonzero(alike >= ALIKE), strict=True):
                yield source.names[start + i], other.names[j], float(alike[i, j])


def folder(name: str) -> str:
    """The folder (the class) of a picture; what publishers put between, ``images/``, is passed over."""
    parent = Path(name).parent
    return str(parent.parent if parent.name == "images" else parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", nargs="+", type=Path, required=True)
    parser.add_argument("--apart", nargs="+", type=Path, required=True)
    options = parser.parse_args()
    apart = [Source(place) for place in options.apart]
    for place in options.pictures:
        for ours, theirs, alike in look_alikes(Source(place), apart):
            print(f"{folder(ours)}\t{ours}\t{theirs}\t{alike:.3f}", flush=True)


if __name__ == "__main__":
    main()
