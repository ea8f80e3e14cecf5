"""Images blurred by several strengths at several sizes: how many ``headstart check`` calls blurred.

    python benchmarks/blur.py [--images 40]

The constants were chosen on every second training image of each set, in a random order; these are images of the other
half. Strengths are standard deviations of a Gaussian, as a share of the shorter side.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from measure import Scratch, print_table, shared
from PIL import Image, ImageFilter

from headstart.check.quality import BLURRED
from headstart.data.rendered import render
from headstart.images.thumbnail import edge_stats, shrink

SIZES = (0, 150, 1000)  # pixels of the shorter side; 0: as it is
STRENGTHS = (0, 100, 80, 60, 40, 25, 15)  # parts of the shorter side; 0: not blurred
ORDER_SEED = 7  # of the order in which the constants were chosen


def is_blurred(image: Image.Image, size: int, strength: int) -> bool:
    """Return whether an image, resized and blurred and written as JPEG, is called blurred."""
    if size:
        scale = size / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    if strength:
        image = image.filter(ImageFilter.GaussianBlur(min(image.size) / strength))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    with Image.open(stream) as written:
        return edge_stats(shrink(written.convert("RGB")))[1] < BLURRED


def measure(name: str, folder: Path, images: int) -> list[dict[str, object]]:
    """Return a row for each size: how many of the images are called blurred, by strength."""
    files = sorted(folder.rglob("*.jpg"))
    order = np.random.default_rng(ORDER_SEED).permutation(len(files))
    held_out = [files[i] for i in order if i % 2][:images]
    rows = []
    for size in SIZES:
        counts = dict.fromkeys(STRENGTHS, 0)
        for path in held_out:
            with Image.open(path) as image:
                rgb = image.convert("RGB")
            for strength in STRENGTHS:
                counts[strength] += is_blurred(rgb, size, strength)
        names = {strength: f"1/{strength}" if strength else "sharp" for strength in STRENGTHS}
        rows.append(
            {"set": name, "shorter side": size or "as it is", "images": len(held_out)}
            | {names[strength]: count for strength, count in counts.items()}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=40)
    images = parser.parse_args().images
    data = shared() / "data"
    with Scratch() as scratch:
        sample = scratch.path / "sample"
        render("horses-or-humans", sample)
        folders = {"ants-bees": data / "ants-bees", "horse-or-human": data / "horse-or-human", "sample": sample}
        rows = [row for name, folder in folders.items() for row in measure(name, folder / "train", images)]
    print_table(rows)


if __name__ == "__main__":
    main()
