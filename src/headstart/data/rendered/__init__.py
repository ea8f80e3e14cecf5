"""A sample dataset that is rendered on this machine, so that everything can be tried without a network.

image.py    one image: figure, scene and camera
horse.py    horses of random build, colour and pose
human.py    humans of random build, dress and pose
body.py     what both have in common
scene.py    ground, sky, walls and clutter, the same for both
canvas.py   the renderer: capsules seen by a camera
"""

from __future__ import annotations

import io
import os
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread

from headstart.errors import OptionError
from headstart.files import TEMPORARY, naming, sweep_unfinished
from headstart.machine import why_not_replaceable

NAMES = ("horses-or-humans",)
CLASSES = ("horses", "humans")
IMAGES_PER_FIGURE = 5
README = """# Horses or humans, rendered

{train} + {validation} images of computer-generated horses and humans, made by `headstart sample horses-or-humans`
with seed {seed}. A file's name begins with its figure: `horse017-3.jpg` is the fourth image of horse 17. No figure
is in both splits. Licence: Apache-2.0, as Headstart.
"""


@dataclass(frozen=True)
class _Job:
    """One image to render: image ``number`` of a figure."""

    folder: Path
    kind: str
    figure: int
    number: int
    seed: int


def render(
    name: str,
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    train: int = 1000,
    validation: int = 256,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Render a sample set to ``folder/{train,validation}/{class}/*.jpg`` and return the number of images.

    Images are 160 to 300 pixels wide and high; half are of each class; about five show the same figure, and no figure
    is in both splits. Each depends only on ``seed`` and its own number. ``workers`` is the number of processes.
    ``progress(rendered, total)`` is called after each image. The folder appears as a whole.

    Raises OptionError, OSError.
    """
    target = Path(folder)
    if name not in NAMES:
        raise OptionError(f"Unknown sample {name!r}; expected {' or '.join(NAMES)}.")
    if target.is_dir() and any(target.iterdir()):
        raise OptionError(f"{target} is not an empty folder; give another name for the sample.")
    if train < 2 or validation < 0:
        raise OptionError(
            f"Cannot render {train} training and {validation} validation images; give 2 or more for training."
        )
    if not 0 <= seed < 2**32:
        raise OptionError(f"Seed {seed} cannot be used; give a number from 0 to 4294967295.")
    if reason := why_not_replaceable(target):
        raise OptionError(f"Cannot write the sample to {target}: {reason}; give another name.")
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_unfinished(target.parent)
    with naming(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=TEMPORARY) as temporary:
        unfinished = Path(temporary) / "sample"
        jobs = _jobs(unfinished, {"train": train, "validation": validation}, seed)
        for split in ("train", "validation"):
            for kind in CLASSES:
                (unfinished / split / kind).mkdir(parents=True)
        (unfinished / "README.md").write_text(README.format(train=train, validation=validation, seed=seed), "utf-8")
        with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
            for rendered, _ in enumerate(pool.map(_render_to_file, jobs, chunksize=8), 1):
                if progress is not None:
                    progress(rendered, len(jobs))
        if target.exists():
            target.rmdir()
        unfinished.replace(target)
    return len(jobs)


def _end_with_parent() -> None:
    """Let a process of the pool end when its parent does, by whatever signal, and by no signal of its own.

    Otherwise the processes of a parent that is killed would wait for ever.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def end() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=end, daemon=True).start()


def _jobs(target: Path, counts: dict[str, int], seed: int) -> list[_Job]:
    """Return the images of each split, half of each class, whose figures are numbered through the splits."""
    jobs = []
    for kind in CLASSES:
        first_figure = 0
        for split, count in counts.items():
            images = (count + 1) // 2 if kind == CLASSES[0] else count // 2
            for i in range(images):
                figure, number = divmod(i, IMAGES_PER_FIGURE)
                jobs.append(_Job(target / split / kind, kind, first_figure + figure, number, seed))
            first_figure += -(-images // IMAGES_PER_FIGURE)
    return jobs


def _render_to_file(job: _Job) -> None:
    from headstart.data.rendered.image import render_image

    image = render_image(job.kind, job.figure, job.number, job.seed)
    path = job.folder / f"{job.kind.removesuffix('s')}{job.figure:03}-{job.number}.jpg"
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    path.write_bytes(stream.getvalue())  # Pillow itself would not notice that a full disk took only a part
