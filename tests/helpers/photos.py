"""Small synthetic photographs, and the root of the repository."""

from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent


def write_photos(folder: Path, count: int = 10, classes: tuple[str, ...] = ("disc", "stripes"), seed: int = 0) -> Path:
    """Write ``count`` small JPEGs for each class: discs, stripes or dots in random colours, places and sizes."""
    rng = np.random.default_rng(seed)
    for class_index, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = Image.fromarray(_draw(class_index % 3, rng))
            image.save(folder / name / f"{i:03}.jpg", quality=92)
    return folder


def paths_and_labels(folder: Path) -> tuple[list[str], list[str]]:
    """Return the paths of all JPEGs in class folders, sorted, and the label of each."""
    paths = sorted(folder.rglob("*.jpg"))
    return [str(path) for path in paths], [path.parent.name for path in paths]


def _draw(kind: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a disc (0), stripes (1) or dots (2), [96, 128, 3] uint8."""
    y, x = np.mgrid[:96, :128] / 96
    centre_x, centre_y = rng.uniform(0.35, 0.85, 2)
    radius = rng.uniform(0.15, 0.35)
    angle = rng.uniform(0, np.pi)
    disc = (x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2
    stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(25, 60)) > 0
    dots = (np.sin(40 * x) * np.sin(40 * y)) > 0.5
    is_shape = (disc, stripes, dots)[kind]
    front, back = rng.integers(0, 256, (2, 3))
    pixels = np.where(is_shape[..., None], front, back) + rng.normal(0, 8, (96, 128, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)
