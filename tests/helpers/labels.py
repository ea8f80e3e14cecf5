"""Images with several labels: shapes on noise, any of which may be there."""

from pathlib import Path

import numpy as np
from PIL import Image

SHAPES = {"disc": 0.5, "square": 0.4, "stripes": 0.4}  # with the share of images that have it


def write_labelled(folder: Path, count: int, seed: int = 0, split: str = "train", noise: float = 25) -> list[str]:
    """Write images and return the rows of a table: path, labels with semicolons, split."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        image = np.clip(rng.integers(90, 160, 3) + rng.normal(0, noise, (64, 64, 3)), 0, 255).astype(np.uint8)
        has = {name: rng.random() < share for name, share in SHAPES.items()}
        y, x = rng.integers(4, 34, 2)
        if has["square"]:
            image[y : y + 20, x : x + 20] = (30, 40, 230)
        if has["disc"]:
            rows_, columns = np.mgrid[:64, :64]
            image[(rows_ - y - 12) ** 2 + (columns - 50 + x // 2) ** 2 < 10**2] = (225, 30, 30)
        if has["stripes"]:
            image[y : y + 24 : 3] = (20, 200, 40)
        name = f"{split}_{i:03}.png"
        Image.fromarray(image).save(folder / name)
        rows.append(f"{name},{';'.join(label for label in has if has[label])},{split}")
    return rows
