"""Make what the steps of features are measured on, and the steps of the built-in backbones.

    python steps.py [--images]

Needs Headstart alone. Measures the steps of the built-in backbones and writes them into ``backbone.json``. With
``--images`` the images are rendered first: 16 horses and 16 humans, 128 x 128, in 256 colours. Other images would give
other steps, and so another identity of every backbone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

import headstart.backbones
from headstart.backbones.backbone import InputOptions
from headstart.backbones.providers.builtin import load_builtin
from headstart.backbones.steps import IMAGE_SIZE, IMAGES, measure_steps, steps_sha256, tap_to_dict
from headstart.data.rendered import CLASSES
from headstart.data.rendered.image import render_image

NAMES = ("headstart-s", "headstart-m")
FIGURES = 16  # of each class, one image each
COLUMNS = 8
FOLDER = Path(headstart.backbones.__file__).parent


def square(image: Image.Image) -> Image.Image:
    """Return the middle of an image, IMAGE_SIZE x IMAGE_SIZE."""
    side = min(image.size)
    x, y = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((x, y, x + side, y + side)).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)


def write_images() -> None:
    images = [square(render_image(kind, figure, 0, seed=0)) for figure in range(FIGURES) for kind in CLASSES]
    rows = [np.hstack(images[start : start + COLUMNS]) for start in range(0, len(images), COLUMNS)]
    sheet = Image.fromarray(np.vstack(rows)).quantize(256, dither=Image.Dither.NONE)
    sheet.save(FOLDER / IMAGES, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", action="store_true", help="render the images again")
    if parser.parse_args().images:
        write_images()
    for name in NAMES:
        backbone = measure_steps(load_builtin(name, "", InputOptions(), ()))
        file = FOLDER / name / "backbone.json"
        description = json.loads(file.read_text())
        description["taps"] = [tap_to_dict(tap) for tap in backbone.taps]
        file.write_text(json.dumps(description, indent=2) + "\n")
        print(name, steps_sha256(backbone.taps))


if __name__ == "__main__":
    main()
