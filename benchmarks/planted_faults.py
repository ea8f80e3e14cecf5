"""Faults planted in real pictures: how many ``headstart check`` finds, and how many of its findings are right.

    python benchmarks/planted_faults.py [--runs 5] [--peers PYTHON]

``--peers`` is the interpreter of an environment with cleanlab, cleanvision and imagededup (see check_peers.py): each is
run its own way on the same pictures. In each run, with its own seed: 2% flipped labels, 5% copies (re-encoded, cropped,
mirrored, resized in turn), 1% broken files, 1% pictures of another data set, 1% blurred, 1% dark and 1% tiny ones.
A cell says how much of what was planted is found, and how many of the new findings of that kind are right.
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
from pathlib import Path

import numpy as np
from measure import Scratch, shared, table
from PIL import Image, ImageFilter

from headstart import backbones
from headstart.check import check_dataset
from headstart.data import open_dataset
from headstart.data.rendered import render
from headstart.features.cache import FeatureCache
from headstart.features.features import embed

COPIES = ("re-encoded", "cropped", "mirrored", "resized")
FAULTS = ("flipped", *COPIES, "broken", "foreign", "blurred", "dark", "tiny")
KIND = {"flipped": "label_suspect", **dict.fromkeys(COPIES, "near_duplicate"), "broken": "unreadable",
        "foreign": "outlier", "blurred": "blurred", "dark": "dark", "tiny": "tiny"}  # fmt: skip


def changed(fault: str, image: Image.Image, rng: np.random.Generator) -> bytes:
    quality = 90
    if fault == "re-encoded":
        quality = int(rng.integers(40, 75))
    elif fault == "cropped":
        share = rng.uniform(0.6, 0.9)
        width, height = int(share * image.width), int(share * image.height)
        left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
        image = image.crop((left, top, left + width, top + height))
    elif fault == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif fault == "resized":
        share = rng.uniform(0.4, 0.8)
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
    """A set in ``folder`` made of ``clean`` with faults; the fault of each file that has one."""
    rng = np.random.default_rng(seed)
    shutil.copytree(clean, folder)
    classes = sorted(p.name for p in folder.iterdir())
    files = sorted(p for p in folder.rglob("*.jpg"))
    order = list(rng.permutation(len(files)))
    planted: dict[str, str] = {}

    def take(share: float) -> list[Path]:
        return [files[order.pop()] for _ in range(max(1, round(share * len(files))))]

    for number, path in enumerate(take(0.05)):
        fault = COPIES[number % len(COPIES)]
        with Image.open(path) as image:
            copy = path.with_name(f"copy-{path.name}")
            copy.write_bytes(changed(fault, image.convert("RGB"), rng))
        planted[str(copy)] = fault
    for path in take(0.02):
        other = classes[(classes.index(path.parent.name) + 1) % len(classes)]
        planted[str(path.rename(folder / other / f"flipped-{path.name}"))] = "flipped"
    for path in take(0.01):
        path.write_bytes(path.read_bytes()[: int(rng.integers(100, 3000))])
        planted[str(path)] = "broken"
    for fault in ("blurred", "dark", "tiny"):
        for path in take(0.01):
            with Image.open(path) as image:
                path.write_bytes(changed(fault, image.convert("RGB"), rng))
            planted[str(path)] = fault
    strange = sorted(foreign.rglob("*.jpg"))
    for number in rng.choice(len(strange), max(1, round(0.01 * len(files))), replace=False):
        path = folder / classes[int(rng.integers(len(classes)))] / f"foreign-{strange[number].name}"
        shutil.copy(strange[number], path)
        planted[str(path)] = "foreign"
    return planted


def headstart(folder: Path, cache: FeatureCache) -> dict[str, set[str]]:
    """Files by kind of finding; copies in two classes or splits count as copies."""
    found: dict[str, set[str]] = {}
    for finding in check_dataset(open_dataset(folder), cache=cache).findings:
        copies = finding.kind in ("exact_duplicate", "near_duplicate", "conflicting_labels", "leak")
        found.setdefault("near_duplicate" if copies else finding.kind, set()).update(finding.files)
    return found


def tools(folder: Path, cache: FeatureCache, peers: str | None) -> dict[str, dict[str, set[str]]]:
    """What each tool finds in a folder."""
    found = {"headstart": headstart(folder, cache)}
    if peers:
        dataset = open_dataset(folder)
        features = embed(dataset, backbones.load("headstart-s"), cache=cache)
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            paths = [dataset.items[i].path for i in features.index]
            np.savez(file, features=features.values["features"].astype(np.float32), paths=paths)
            file.flush()
            script = Path(__file__).with_name("check_peers.py")
            done = subprocess.run([peers, script, folder, file.name], stdout=subprocess.PIPE, text=True, check=True)
        for tool, kinds in json.loads(done.stdout).items():
            found[tool] = {kind: set(files) for kind, files in kinds.items()}
    return found


def right(path: str, kind: str, planted: dict[str, str]) -> bool:
    """Whether a finding names a planted fault of that kind: of a pair of copies both are right."""
    return KIND.get(planted.get(path, "")) == kind or (
        kind == "near_duplicate" and str(Path(path).with_name(f"copy-{Path(path).name}")) in planted
    )


def rows_of(name: str, clean: Path, foreign: Path, runs: int, peers: str | None, scratch: Scratch) -> list[dict]:
    """A row a fault: how much of it each tool finds, and how much of what it says of that kind is right."""
    hits, told, correct, number = Counter(), Counter(), Counter(), Counter()
    with FeatureCache() as cache:
        before = tools(clean, cache, peers)
        for seed in range(runs):
            folder = scratch.path / f"{name}-{seed}"
            planted = plant(clean, foreign, folder, seed)
            number.update(planted.values())
            for tool, kinds in tools(folder, cache, peers).items():
                for kind in set(KIND.values()):
                    # What the clean set shows already is no false alarm, and no find.
                    old = {str(folder / Path(path).relative_to(clean)) for path in before[tool].get(kind, ())}
                    new = kinds.get(kind, set())
                    hits.update((tool, fault) for path, fault in planted.items() if KIND[fault] == kind and path in new)
                    told[tool, kind] += len(new - old)
                    correct[tool, kind] += sum(right(path, kind, planted) for path in new - old)
            shutil.rmtree(folder)
    rows = []
    for fault in FAULTS:
        kind = KIND[fault]
        row = {"data": name, "fault": fault, "planted": number[fault]}
        for tool in before:
            if told[tool, kind] or tool == "headstart":
                row[tool] = f"{hits[tool, fault] / number[fault]:.0%}; {correct[tool, kind]}/{told[tool, kind]}"
            else:
                row[tool] = "-"
        rows.append(row)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers")
    options = parser.parse_args()
    data = shared() / "data"
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        rendered = scratch.path / "sample"
        render("horses-or-humans", rendered)
        real, horses = data / "ants-bees" / "train", data / "horse-or-human" / "train"
        sets = {"ants-bees": (real, horses), "horse-or-human": (horses, real), "sample": (rendered / "train", real)}
        rows = []
        for name, (clean, foreign) in sets.items():
            rows += rows_of(name, clean, foreign, options.runs, options.peers, scratch)
    table(rows)
