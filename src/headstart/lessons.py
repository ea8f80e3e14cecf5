"""What the lesson notebooks in ``examples/`` share: where their images and networks come from.

Real images are downloaded, and published weights too. Where that cannot be, a lesson goes on with what is built in, and
says so where nobody can overlook it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from headstart import backbones
from headstart.backbones import Backbone, InputOptions
from headstart.data import Dataset, open_dataset
from headstart.data.download import Progress, download
from headstart.data.rendered import render
from headstart.errors import BackboneError, DownloadError, MissingExtraError, shell_word

LOCAL = "HEADSTART_LESSONS"  # environment variable: a folder of datasets and weights that are there already
TIMEOUT = 15  # seconds of silence after which a server counts as not reachable
SAMPLE_TRAIN, SAMPLE_VALIDATION = 400, 128  # images
SAMPLE_NAME = "the built-in sample"


@dataclass(frozen=True)
class LessonImages:
    """The images of a lesson: the dataset, and what it is, for people. ``is_real`` is False for the rendered sample."""

    dataset: Dataset
    source: str
    is_real: bool

    def split(self, name: str, every: int = 1) -> Dataset:
        """Return a split, or every so many-th image of it in the order of their names, to save time."""
        part = self.dataset.split(name)
        order = sorted(range(len(part)), key=lambda i: part.items[i].path)
        return part.select(order[::every])


@dataclass(frozen=True)
class LessonNetwork:
    """The network of a lesson: its id, the cut, how it takes its images; ``is_published`` is False for the built-in."""

    id: str
    cut: str
    options: InputOptions | None
    backbone: Backbone
    is_published: bool


def images(name: str, folder: str | os.PathLike[str]) -> LessonImages:
    """Return the images of a public dataset, which ``headstart download`` names: from ``folder``, or downloaded there.

    Without a connection they are those of the built-in sample, rendered. Every notebook has a folder of its own.
    Datasets under their names in the folder that HEADSTART_LESSONS names are taken from there. Raises OptionError for
    an unknown name, DataError.
    """
    local, target = _local(name), Path(folder) / name
    if local is not None or (target / "SOURCE.md").is_file():  # it is written when all is there
        return _opened(local or target, name, is_real=True)
    print(f"Downloading {name} to {target} (headstart download {name} {shell_word(target)})", flush=True)
    try:
        download(name, target, timeout=TIMEOUT, progress=_print_tenths())
    except DownloadError as error:
        _say_loudly(
            f"{name} could not be downloaded: {error}",
            "This lesson goes on with the built-in sample of rendered horses and humans.",
            "Its figures are NOT those of the course. Run this cell again with a connection.",
        )
        sample = Path(folder) / "sample"
        if not sample.is_dir():
            render("horses-or-humans", sample, train=SAMPLE_TRAIN, validation=SAMPLE_VALIDATION)
        return _opened(sample, SAMPLE_NAME, is_real=False)
    return _opened(target, name, is_real=True)


def network(id: str, cut: str, size: int, *, otherwise: tuple[str, str]) -> LessonNetwork:
    """Return a network of ``keras:`` at ``size`` pixels with its published weights, which Keras downloads and caches.

    Where they cannot be had, or Keras is not installed, it is the built-in backbone and the cut of ``otherwise``: that
    is pretrained, too. A network never gets random weights here. Weights are taken from NAME.weights.h5 in the folder
    that HEADSTART_LESSONS names, if it is there. Raises BackboneError, OptionError.
    """
    name = id.partition(":")[2]
    file = _local(f"{name}.weights.h5")
    options = InputOptions(size=(size, size), weights=None if file is None else str(file))
    print(f"Network: {name} at {size} x {size} pixels; the first time it is fetched and prepared, which takes minutes")
    try:
        backbone = backbones.load(id, options=options, taps=(cut,))
    except (BackboneError, MissingExtraError) as error:
        if file is not None:
            raise
        _say_loudly(
            f"{name} cannot be used: {error}",
            f"This lesson goes on with the built-in backbone {otherwise[0]}, cut at {otherwise[1]}.",
            "It is pretrained, too, but it is NOT the network of the course, and neither are its figures.",
        )
        return LessonNetwork(*otherwise, None, backbones.load(otherwise[0], taps=(otherwise[1],)), is_published=False)
    print(f"Weights: {backbone.source}")
    for note in backbone.notes:
        print(f"Note: {note}")
    return LessonNetwork(id, cut, options, backbone, is_published=True)


def _local(name: str) -> Path | None:
    """Return what the folder that HEADSTART_LESSONS names has under a name, None where there is nothing."""
    folder = os.environ.get(LOCAL)
    path = Path(folder, name).resolve() if folder else None
    return path if path is not None and path.exists() else None


def _opened(folder: Path, source: str, *, is_real: bool) -> LessonImages:
    dataset = open_dataset(folder)
    counts = ", ".join(f"{len(dataset.split(split)):,} for {split}" for split in dataset.splits)
    print(f"Images: {source} ({counts})")
    return LessonImages(dataset, source, is_real)


def _print_tenths() -> Progress:
    """Return a progress callback that prints a line whenever another tenth of an archive has arrived."""
    printed: set[tuple[int, int]] = set()

    def report(received: int, total: int | None) -> None:
        tenth = 10 * received // total if total else received // 10_000_000
        if (total or 0, tenth) not in printed:
            printed.add((total or 0, tenth))
            of = f" of {total / 1e6:.0f}" if total else ""
            print(f"  {received / 1e6:.0f}{of} MB", flush=True)

    return report


def _say_loudly(*lines: str) -> None:
    print("", "!" * 80, *(f"!! {line}" for line in lines), "!" * 80, "", sep="\n", flush=True)
