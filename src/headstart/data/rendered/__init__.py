"""Sample data sets that Headstart renders itself: the main job runs on any machine, offline.

bodies.py   articulated horses and humans of random build, dress and pose
scene.py    ground, sky, light and clutter, the same for both
paint.py    capsules seen by a camera
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from headstart.errors import OptionError

NAMES = ("horses-or-humans",)
CLASSES = ("horses", "humans")
PICTURES_EACH = 5  # of one figure
ABOUT = """# Horses or humans, rendered

{train} + {validation} pictures of computer-generated horses and humans, made by `headstart sample horses-or-humans`
with seed {seed}. A file's name begins with its figure: `horse017-3.jpg` is the fourth picture of horse 17. No figure
is in both splits. Licence: Apache-2.0, as Headstart.
"""


class _Job(NamedTuple):
    folder: str
    kind: str
    figure: int
    picture: int
    seed: int


def render(
    name: str, folder: str | os.PathLike[str], *, seed: int = 0, train: int = 1000, validation: int = 256,
    workers: int | None = None, progress: Callable[[int, int], None] | None = None,
) -> int:  # fmt: skip
    """Render a sample set to ``folder/{train,validation}/{class}/*.jpg`` and return the number of pictures.

    Pictures are 160 to 300 pixels wide and high; half are of each class; about five show the same figure, and no
    figure is in both splits. Each depends on ``seed`` and its own number alone. Raises OptionError.
    """
    target = Path(folder)
    if name not in NAMES:
        raise OptionError(f"Unknown sample {name!r}; expected {' or '.join(NAMES)}.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OptionError(f"{target} is not an empty folder; give another name for the sample.")
    if train < 2 or validation < 0:
        raise OptionError(f"{train} training and {validation} validation pictures make no sample; give 2 or more.")
    if not 0 <= seed < 2**32:
        raise OptionError(f"Seed {seed} cannot be used; give a number from 0 to 4294967295.")
    jobs = []
    for kind in CLASSES:
        first = 0
        for split, count in (("train", train), ("validation", validation)):
            place = target / split / kind
            place.mkdir(parents=True, exist_ok=True)
            of_kind = (count + (kind == CLASSES[0])) // 2
            jobs += [
                _Job(str(place), kind, first + i // PICTURES_EACH, i % PICTURES_EACH, seed) for i in range(of_kind)
            ]
            first += -(-of_kind // PICTURES_EACH)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(_render, jobs, chunksize=8), 1):
            if progress is not None:
                progress(done, len(jobs))
    (target / "README.md").write_text(ABOUT.format(train=train, validation=validation, seed=seed), "utf-8")
    return len(jobs)


def _render(job: _Job) -> None:
    """One picture: the figure from its own numbers, pose and place from the picture's."""
    from headstart.data.rendered.picture import picture

    image = picture(job.kind, job.figure, job.picture, job.seed)
    image.save(Path(job.folder) / f"{job.kind[:-1]}{job.figure:03}-{job.picture}.jpg", "JPEG", quality=90)


def contact_sheet(folder: str | os.PathLike[str], *, columns: int = 8, rows: int = 4, side: int = 128) -> Image.Image:
    """Thumbnails [rows x columns], classes in turn, of pictures spread evenly over a rendered set's training part."""
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    files = [sorted((Path(folder) / "train" / kind).glob("*.jpg")) for kind in CLASSES]
    each = columns * rows // len(files)
    for i in range(each * len(files)):
        of_kind = files[i % len(files)]
        with Image.open(of_kind[(i // len(files)) * len(of_kind) // each]) as image:
            image.thumbnail((side, side))
            left, top = (
                (i % columns) * side + (side - image.width) // 2,
                (i // columns) * side + (side - image.height) // 2,
            )
            sheet.paste(image, (left, top))
    return sheet
