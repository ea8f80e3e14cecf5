"""Faults planted in real images: how many ``headstart check`` finds, and how many of its findings are correct.

    python benchmarks/planted_faults.py [--runs 5] [--peers PYTHON]

``--peers`` is the interpreter of an environment with cleanlab, cleanvision and imagededup (see check_peers.py): each is
run in its own way on the same images. In each run, with its own seed: 2% flipped labels, 5% copies (re-encoded,
cropped, mirrored, resized in turn), 1% broken files, 1% images of another dataset, 1% blurred, 1% dark and 1% tiny
images. A cell gives the recall of the planted faults, and how many of the new findings of that kind are correct.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from measure import Scratch, print_table, shared
from PIL import Image, ImageFilter

from headstart import backbones, open_dataset
from headstart.check import check_dataset
from headstart.data.rendered import render
from headstart.features import FeatureCache, embed

COPIES = ("re-encoded", "cropped", "mirrored", "resized")
FAULTS = ("flipped", *COPIES, "broken", "foreign", "blurred", "dark", "tiny")
KIND = {  # of the finding that names a fault
    "flipped": "label_issue",
    **dict.fromkeys(COPIES, "near_duplicate"),
    "broken": "unreadable",
    "foreign": "outlier",
    "blurred": "blurred",
    "dark": "dark",
    "tiny": "tiny",
}
KINDS_OF_COPIES = ("exact_duplicate", "near_duplicate", "conflicting_labels", "leak")
FilesByKind = dict[str, set[str]]


def damage(image: Image.Image, fault: str, generator: np.random.Generator) -> bytes:
    """Return the JPEG file of an image with a fault."""
    quality = 90
    if fault == "re-encoded":
        quality = int(generator.integers(40, 75))
    elif fault == "cropped":
        share = generator.uniform(0.6, 0.9)
        width, height = int(share * image.width), int(share * image.height)
        left, top = generator.integers(image.width - width + 1), generator.integers(image.height - height + 1)
        image = image.crop((left, top, left + width, top + height))
    elif fault == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif fault == "resized":
        share = generator.uniform(0.4, 0.8)
        image = image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BICUBIC)
    elif fault == "blurred":
        image = image.filter(ImageFilter.GaussianBlur(min(image.size) / 40))
    elif fault == "dark":
        image = image.point(lambda value: value // 12)
    elif fault == "tiny":
        image.thumbnail((24, 24))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def plant(clean: Path, foreign: Path, folder: Path, seed: int) -> dict[str, str]:
    """Copy the dataset ``clean`` to ``folder`` and plant faults; return the fault of each file that has one."""
    generator = np.random.default_rng(seed)
    shutil.copytree(clean, folder)
    classes = sorted(path.name for path in folder.iterdir())
    files = sorted(folder.rglob("*.jpg"))
    order = list(generator.permutation(len(files)))
    faults: dict[str, str] = {}

    def take(share: float) -> list[Path]:
        return [files[order.pop()] for _ in range(max(1, round(share * len(files))))]

    for i, path in enumerate(take(0.05)):
        fault = COPIES[i % len(COPIES)]
        copy = path.with_name(f"copy-{path.name}")
        with Image.open(path) as image:
            copy.write_bytes(damage(image.convert("RGB"), fault, generator))
        faults[str(copy)] = fault
    for path in take(0.02):
        wrong_class = classes[(classes.index(path.parent.name) + 1) % len(classes)]
        faults[str(path.rename(folder / wrong_class / f"flipped-{path.name}"))] = "flipped"
    for path in take(0.01):
        path.write_bytes(path.read_bytes()[: int(generator.integers(100, 3000))])
        faults[str(path)] = "broken"
    for fault in ("blurred", "dark", "tiny"):
        for path in take(0.01):
            with Image.open(path) as image:
                path.write_bytes(damage(image.convert("RGB"), fault, generator))
            faults[str(path)] = fault
    foreign_files = sorted(foreign.rglob("*.jpg"))
    for i in generator.choice(len(foreign_files), max(1, round(0.01 * len(files))), replace=False):
        path = folder / classes[int(generator.integers(len(classes)))] / f"foreign-{foreign_files[i].name}"
        shutil.copy(foreign_files[i], path)
        faults[str(path)] = "foreign"
    return faults


def run_headstart(folder: Path, cache: FeatureCache) -> FilesByKind:
    """Return files by kind of finding; copies in two classes or splits count as copies."""
    files: FilesByKind = {}
    for finding in check_dataset(open_dataset(folder), cache=cache).findings:
        kind = "near_duplicate" if finding.kind in KINDS_OF_COPIES else finding.kind
        files.setdefault(kind, set()).update(finding.files)
    return files


def run_peers(folder: Path, cache: FeatureCache, python: str) -> dict[str, FilesByKind]:
    """Return files by kind of finding, by tool; the features of headstart-s are given to the peers."""
    dataset = open_dataset(folder)
    features = embed(dataset, backbones.load("headstart-s"), cache=cache)
    paths = [dataset.items[i].path for i in features.index]
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, features=features.values["features"].astype(np.float32), paths=paths)
        file.flush()
        command = [python, Path(__file__).with_name("check_peers.py"), folder, file.name]
        completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    findings = json.loads(completed.stdout)
    return {tool: {kind: set(files) for kind, files in kinds.items()} for tool, kinds in findings.items()}


def run_tools(folder: Path, cache: FeatureCache, peers: str | None) -> dict[str, FilesByKind]:
    """Return files by kind of finding, by tool."""
    findings = {"headstart": run_headstart(folder, cache)}
    return findings if peers is None else findings | run_peers(folder, cache, peers)


def is_correct(path: str, kind: str, faults: Mapping[str, str]) -> bool:
    """Return whether a finding names a planted fault of that kind; of a pair of copies both files are correct."""
    if KIND.get(faults.get(path, "")) == kind:
        return True
    return kind == "near_duplicate" and str(Path(path).with_name(f"copy-{Path(path).name}")) in faults


class Counts:
    """What was planted and found over all runs, by fault or by kind of finding and by tool."""

    def __init__(self) -> None:
        self.planted: Counter[str] = Counter()
        self.hits: Counter[tuple[str, str]] = Counter()  # by tool and fault
        self.findings: Counter[tuple[str, str]] = Counter()  # by tool and kind
        self.correct: Counter[tuple[str, str]] = Counter()  # by tool and kind

    def add(self, tool: str, files_by_kind: FilesByKind, known: FilesByKind, faults: Mapping[str, str]) -> None:
        """Count the findings of a tool in one run.

        ``known`` are those of the clean dataset: they are neither false alarms nor hits.
        """
        for kind in set(KIND.values()):
            files = files_by_kind.get(kind, set())
            new = files - known.get(kind, set())
            self.hits.update((tool, fault) for path, fault in faults.items() if KIND[fault] == kind and path in files)
            self.findings[tool, kind] += len(new)
            self.correct[tool, kind] += sum(is_correct(path, kind, faults) for path in new)

    def cell(self, tool: str, fault: str) -> str:
        """Return the recall of a fault, and correct and all findings of its kind."""
        kind = KIND[fault]
        if not self.findings[tool, kind] and tool != "headstart":
            return "-"
        recall = self.hits[tool, fault] / self.planted[fault]
        return f"{recall:.0%}; {self.correct[tool, kind]}/{self.findings[tool, kind]}"


def measure(
    name: str, clean: Path, foreign: Path, runs: int, peers: str | None, scratch: Scratch
) -> list[dict[str, object]]:
    """Return a row for each fault."""
    counts = Counts()
    with FeatureCache() as cache:
        before = run_tools(clean, cache, peers)
        for seed in range(runs):
            folder = scratch.path / f"{name}-{seed}"
            faults = plant(clean, foreign, folder, seed)
            counts.planted.update(faults.values())
            for tool, files_by_kind in run_tools(folder, cache, peers).items():
                known = {
                    kind: {str(folder / Path(path).relative_to(clean)) for path in files}
                    for kind, files in before[tool].items()
                    if kind in KIND.values()
                }
                counts.add(tool, files_by_kind, known, faults)
            shutil.rmtree(folder)
    return [
        {
            "dataset": name,
            "fault": fault,
            "planted": counts.planted[fault],
            **{tool: counts.cell(tool, fault) for tool in before},
        }
        for fault in FAULTS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers")
    arguments = parser.parse_args()
    data = shared() / "data"
    rows = []
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        sample = scratch.path / "sample"
        render("horses-or-humans", sample)
        ants_bees, horses = data / "ants-bees" / "train", data / "horse-or-human" / "train"
        datasets = {  # each with the one that foreign images come from
            "ants-bees": (ants_bees, horses),
            "horse-or-human": (horses, ants_bees),
            "sample": (sample / "train", ants_bees),
        }
        for name, (clean, foreign) in datasets.items():
            rows += measure(name, clean, foreign, arguments.runs, arguments.peers, scratch)
    print_table(rows)


if __name__ == "__main__":
    main()
