"""Small made-up photographs, and where the repository lies."""

from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent


def write_photos(folder: Path, count: int = 10, classes: tuple[str, ...] = ("disc", "stripes"), seed: int = 0) -> Path:
    """``count`` small JPEGs a class: discs, stripes or dots in random colours, places and sizes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :128] / 96
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            cx, cy, r, angle = *rng.uniform(0.35, 0.85, 2), rng.uniform(0.15, 0.35), rng.uniform(0, np.pi)
            wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(25, 60))
            shape = [(x - cx) ** 2 + (y - cy) ** 2 < r**2, wave > 0, (np.sin(40 * x) * np.sin(40 * y)) > 0.5][
                number % 3
            ]
            front, back = rng.integers(0, 256, (2, 3))
            pixels = np.where(shape[..., None], front, back) + rng.normal(0, 8, (96, 128, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{i:03}.jpg", quality=92)
    return folder
