"""Faults planted in real images: how many ``headstart check`` finds, and how many of its findings are correct.

    python benchmarks/planted_faults.py [--runs 5] [--backbone headstart-m] [--sheets FOLDER] [--peers PYTHON]

First the findings on three sets as they are, nearly all of which would be false: ``--sheets`` writes a contact sheet of
them, to judge them by eye. Those that were judged to be right are named in JUDGED_RIGHT.

``--peers`` is the interpreter of an environment with cleanlab, cleanvision and imagededup (see check_peers.py): each is
run in its own way on the same images. In each run, with its own seed: 2% flipped labels, 5% copies (re-encoded,
cropped, mirrored, resized in turn), 1% broken files, 1% images of another dataset, 1% blurred, 1% dark, 1% tiny and 1%
empty images (one colour, fog, a lens cap). A cell gives the recall of the planted faults, and how many of the new
findings of that kind are correct. Last, how many of the findings behind each word of certainty are right.
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
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from measure import Scratch, print_table, shared
from PIL import Image, ImageDraw, ImageFilter

from headstart import backbones, open_dataset
from headstart.backbones import DEFAULT_BACKBONE
from headstart.check import Finding, check_dataset
from headstart.check.finding import CERTAINTIES
from headstart.data.rendered import render
from headstart.features import FeatureCache, embed

COPIES = ("re-encoded", "cropped", "mirrored", "resized")
FAULTS = ("flipped", *COPIES, "broken", "foreign", "blurred", "dark", "tiny", "empty")
KIND = {  # of the finding that names a fault
    "flipped": "label_issue",
    **dict.fromkeys(COPIES, "near_duplicate"),
    "broken": "unreadable",
    "foreign": "outlier",
    "blurred": "blurred",
    "dark": "dark",
    "tiny": "tiny",
    "empty": "empty",
}
KINDS_OF_COPIES = ("exact_duplicate", "near_duplicate", "conflicting_labels", "leak")
FilesByKind = dict[str, set[str]]
# Findings on the sets as they are that are right, by the eye of a person: the kind, and a file or a whole set.
JUDGED_RIGHT = {
    ("grey", "ants-bees"),  # two photographs in black and white, and a placeholder
    ("odd_shape", "662541407_ff8db781e7.jpg"),  # 500 x 146 pixels
    ("outlier", "imageNotFound.gif"),  # a placeholder: "this image could not be found"
    ("label_issue", "466430434_4000737de9.jpg"),  # a dandelion without an ant
    ("near_duplicate", "horse-or-human"),  # neighbouring frames of one figure before one background
}
CELL = 130  # pixels of an image in a contact sheet


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
    elif fault == "empty":
        image = empty_frame(image, generator)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def empty_frame(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Return a frame of one colour with noise, a lens cap, or the image itself in thick fog, in turn by chance."""
    what = generator.integers(3)
    if what == 0:
        fog = Image.new("RGB", image.size, (200, 203, 208))
        return Image.blend(image.filter(ImageFilter.GaussianBlur(min(image.size) / 40)), fog, 0.95)
    level, noise = (generator.integers(60, 220, 3), 3) if what == 1 else (np.full(3, 6), 4)
    pixels = generator.normal(level, noise, (image.height, image.width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


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
    for path in take(0.01):
        with Image.open(path) as image:
            path.write_bytes(damage(image.convert("RGB"), "empty", generator))
        faults[str(path)] = "empty"
    return faults


def kind_of(finding: Finding) -> str:
    """Return the kind; copies in two classes or splits count as copies."""
    return "near_duplicate" if finding.kind in KINDS_OF_COPIES else finding.kind


def run_headstart(folder: Path, cache: FeatureCache, backbone: str) -> tuple[Finding, ...]:
    """Return the findings of ``headstart check``."""
    return check_dataset(open_dataset(folder), backbone=backbone, cache=cache).findings


def by_kind(findings: Sequence[Finding]) -> FilesByKind:
    """Return files by kind of finding."""
    files: FilesByKind = {}
    for finding in findings:
        files.setdefault(kind_of(finding), set()).update(finding.files)
    return files


def run_peers(folder: Path, cache: FeatureCache, backbone: str, python: str) -> dict[str, FilesByKind]:
    """Return files by kind of finding, by tool; the features of the backbone are given to the peers."""
    dataset = open_dataset(folder)
    features = embed(dataset, backbones.load(backbone), cache=cache)
    paths = [dataset.items[i].path for i in features.index]
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, features=np.asarray(features.values["features"], np.float32), paths=paths)
        file.flush()
        command = [python, Path(__file__).with_name("check_peers.py"), folder, file.name]
        completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    findings = json.loads(completed.stdout)
    return {tool: {kind: set(files) for kind, files in kinds.items()} for tool, kinds in findings.items()}


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
        self.words: Counter[tuple[str, str, bool]] = Counter()  # by kind, certainty, and whether it is right

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

    def add_words(self, findings: Sequence[Finding], known: FilesByKind, faults: Mapping[str, str]) -> None:
        """Count the new findings by certainty; one is right if all its files are correct or were known."""
        for finding in findings:
            kind = kind_of(finding)
            new = set(finding.files) - known.get(kind, set())
            if new and kind in KIND.values():
                self.words[kind, finding.certainty, all(is_correct(path, kind, faults) for path in new)] += 1

    def cell(self, tool: str, fault: str) -> str:
        """Return the recall of a fault, and correct and all findings of its kind."""
        kind = KIND[fault]
        if not self.findings[tool, kind] and tool != "headstart":
            return "-"
        recall = self.hits[tool, fault] / self.planted[fault]
        return f"{recall:.0%}; {self.correct[tool, kind]}/{self.findings[tool, kind]}"


def contact_sheet(findings: Sequence[Finding], file: Path) -> None:
    """Write one image with the first two files of each finding, its kind above them."""
    shown = [(finding, path) for finding in findings for path in finding.files[:2]]
    columns = 10
    sheet = Image.new("RGB", (columns * (CELL + 6), -(-len(shown) // columns) * (CELL + 20)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (finding, path) in enumerate(shown):
        left, top = i % columns * (CELL + 6), i // columns * (CELL + 20)
        draw.text((left, top), f"{finding.kind} {Path(path).stem}"[:21], fill="black")
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((CELL, CELL))
            sheet.paste(small, (left, top + 14))
    sheet.save(file)


def check_clean_sets(
    folders: Mapping[str, Path], backbone: str, sheets: Path | None, words: Counter[tuple[str, str, bool]]
) -> list[dict[str, object]]:
    """Return a row for each kind of finding on the sets as they are, and add them to ``words``."""
    rows: list[dict[str, object]] = []
    with FeatureCache() as cache:
        for name, folder in folders.items():
            findings = run_headstart(folder, cache, backbone)
            if sheets is not None and findings:
                sheets.mkdir(parents=True, exist_ok=True)
                contact_sheet(findings, sheets / f"{name}.png")
            right: Counter[str] = Counter()
            for finding in findings:
                names = {name, *(Path(path).name for path in finding.files)}
                is_right = any((finding.kind, what) in JUDGED_RIGHT for what in names)
                right[finding.kind] += is_right
                words[kind_of(finding), finding.certainty, is_right] += 1
            for kind, count in Counter(finding.kind for finding in findings).items():
                rows.append({"set": name, "kind": kind, "findings": count, "false": count - right[kind]})
    rows.append(
        {"set": "all", "kind": "all", **{key: sum(int(str(row[key])) for row in rows) for key in ("findings", "false")}}
    )
    return rows


def measure(
    name: str,
    clean: Path,
    foreign: Path,
    arguments: argparse.Namespace,
    scratch: Scratch,
    words: Counter[tuple[str, str, bool]],
) -> list[dict[str, object]]:
    """Return a row for each fault, and add the findings to ``words``."""
    counts = Counts()
    with FeatureCache() as cache:

        def run_tools(folder: Path) -> tuple[tuple[Finding, ...], dict[str, FilesByKind]]:
            findings = run_headstart(folder, cache, arguments.backbone)
            peers = run_peers(folder, cache, arguments.backbone, arguments.peers) if arguments.peers else {}
            return findings, {"headstart": by_kind(findings)} | peers

        _, before = run_tools(clean)
        for seed in range(arguments.runs):
            folder = scratch.path / f"{name}-{seed}"
            faults = plant(clean, foreign, folder, seed)
            counts.planted.update(faults.values())
            findings, found = run_tools(folder)
            known = {
                tool: {
                    kind: {str(folder / Path(path).relative_to(clean)) for path in files}
                    for kind, files in kinds.items()
                    if kind in KIND.values()
                }
                for tool, kinds in before.items()
            }
            for tool, files_by_kind in found.items():
                counts.add(tool, files_by_kind, known[tool], faults)
            counts.add_words(findings, known["headstart"], faults)
            shutil.rmtree(folder)
    words.update(counts.words)
    return [
        {
            "dataset": name,
            "fault": fault,
            "planted": counts.planted[fault],
            **{tool: counts.cell(tool, fault) for tool in before},
        }
        for fault in FAULTS
    ]


def certainty_rows(words: Counter[tuple[str, str, bool]]) -> list[dict[str, object]]:
    """Return a row for each word and kind: how many findings there are, and how many are right."""
    rows: list[dict[str, object]] = []
    for word in CERTAINTIES:
        for kind in sorted({kind for kind, other, _ in words if other == word}):
            right, wrong = words[kind, word, True], words[kind, word, False]
            rows.append({"certainty": word, "kind": kind, "findings": right + wrong, "right": right})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--peers")
    arguments = parser.parse_args()
    data = shared() / "data"
    rows = []
    words: Counter[tuple[str, str, bool]] = Counter()
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        sample = scratch.path / "sample"
        render("horses-or-humans", sample)
        folders = {"sample": sample, "horse-or-human": data / "horse-or-human", "ants-bees": data / "ants-bees"}
        print_table(check_clean_sets(folders, arguments.backbone, arguments.sheets, words))
        ants_bees, horses = folders["ants-bees"] / "train", folders["horse-or-human"] / "train"
        datasets = {  # each with the one that foreign images come from
            "ants-bees": (ants_bees, horses),
            "horse-or-human": (horses, ants_bees),
            "sample": (sample / "train", ants_bees),
        }
        for name, (clean, foreign) in datasets.items():
            rows += measure(name, clean, foreign, arguments, scratch, words)
    print_table(rows)
    print_table(certainty_rows(words))


if __name__ == "__main__":
    main()
