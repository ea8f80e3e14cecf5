"""Faults planted in real pictures: how many ``headstart check`` finds, and how many of its findings are right.

    python benchmarks/planted_faults.py [--runs 5]

In each run, with its own seed: 2% flipped labels, 5% copies (re-encoded, cropped, mirrored, resized in turn), 1% broken
files, 1% pictures of the other data set, a blurred, a dark and a tiny one in a hundred each.
"""

from __future__ import annotations

import io
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
from measure import Scratch, arguments, shared, table
from PIL import Image, ImageFilter

from headstart.cache import Cache
from headstart.check import check
from headstart.datasets import open_dataset

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


if __name__ == "__main__":
    runs = arguments(__doc__).runs
    data = shared() / "data"
    sets = {"ants-bees": (data / "ants-bees" / "train", data / "horse-or-human" / "train"),
            "horse-or-human": (data / "horse-or-human" / "train", data / "ants-bees" / "train")}  # fmt: skip
    rows = []
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        for name, (clean, foreign) in sets.items():
            with Cache() as cache:
                before = {(f.kind, path) for f in check(open_dataset(clean), cache=cache).findings for path in f.files}
                hits, planted_count, found_count, right = Counter(), Counter(), Counter(), Counter()
                for seed in range(runs):
                    folder = scratch.path / f"{name}-{seed}"
                    planted = plant(clean, foreign, folder, seed)
                    found = {(f.kind, p) for f in check(open_dataset(folder), cache=cache).findings for p in f.files}
                    # What the clean set shows already is no false alarm, and no find.
                    old = {(kind, str(folder / Path(path).relative_to(clean))) for kind, path in before}
                    for path, fault in planted.items():
                        planted_count[fault] += 1
                        hits[fault] += (KIND[fault], path) in found or (
                            fault in COPIES and ("conflicting_labels", path) in found
                        )
                    for kind in set(KIND.values()):
                        told = {path for k, path in found if k == kind} - {path for k, path in old if k == kind}
                        found_count[kind] += len(told)
                        right[kind] += sum(
                            KIND.get(planted.get(path, ""), "") == kind
                            or str(Path(path).with_name(f"copy-{Path(path).name}")) in planted
                            for path in told
                        )
                    shutil.rmtree(folder)
            for fault in FAULTS:
                kind = KIND[fault]
                rows.append({
                    "data": name, "fault": fault, "planted": planted_count[fault],
                    "found": f"{hits[fault] / planted_count[fault]:.0%}", "finding": kind,
                    "findings that are right": f"{right[kind]}/{found_count[kind]}",
                })  # fmt: skip
    table(rows)
