"""Answers where another program decodes and resizes: how far they are apart, and which limit refuses what changes them.

    python benchmarks/other_pixels.py MODEL DATA [MODEL DATA ...] [--images 100]

For each model: answers of its ``web`` export in Chromium and of an ``onnx`` export of any size, beside those of the
model with Pillow's resize, on up to so many validation images of DATA, all decoded in full, and on the image files that
an export is proven on. Then the same with each mistake of ``export.skews`` in the preparation, on up to 60 images:
does the rule refuse it, and did the limit of 0.1 for every head, and of how many images does it change the answer?
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from measure import print_table

from headstart.data import ReadOptions, open_dataset
from headstart.export import ExportOptions
from headstart.export.about import About
from headstart.export.answers import OTHER_PIXELS, TOLERANCES, Answers, compare, other_pixels
from headstart.export.export import find_format
from headstart.export.graphs import graph_to_export, reference
from headstart.export.proof_set import make_proof_set
from headstart.export.skews import FILE_SKEWS, PIXEL_SKEWS, prepared
from headstart.images.preprocess import Preprocess
from headstart.model.folder import read_model
from headstart.model.model import Model

SKEWED_IMAGES = 60
Answer = Callable[[list[bytes]], Answers]


def exports(model: Model, graph: bytes) -> Iterator[tuple[str, Answer]]:
    """Yield what answers files by another program, until the next is asked for."""
    for to, any_size in (("web", False), ("onnx", True)):
        about = About.of(model, to, "fp32", any_size=any_size, scales=False)
        with tempfile.TemporaryDirectory() as folder:
            find_format(to).write(graph, about, model, ExportOptions(any_size=any_size), Path(folder))
            target = find_format(to).load(Path(folder), about)
            yield f"{to}{', any size' if any_size else ''}", target.on_files
            target.close()


def skews() -> dict[str, Callable[[bytes, Preprocess], np.ndarray]]:
    """Return all wrong preparations by name."""
    pixel_skews = {
        name: lambda data, p, change=change: change(prepared(data, p)[None])[0] for name, change in PIXEL_SKEWS.items()
    }
    return {**FILE_SKEWS, **pixel_skews}


def measure(name: str, model: Model, own: list[bytes], counts: dict[tuple[str, str], list[int]]) -> list[dict]:
    """Return the rows of a model; ``counts`` gains what is refused, by the kind of preparation and what it changes."""
    about = About.of(model, "web", "fp32", any_size=False, scales=False)
    graph = graph_to_export(model, "fp32")
    run = reference(graph, about)
    proof = make_proof_set(run, about)
    files = list(proof.files.values())
    limit = other_pixels(TOLERANCES["fp32"], proof.answers, proof.level_off, about).score
    expected = run(np.stack([prepared(data, about.preprocess) for data in own]))

    def beside(answers: Answer, images: int) -> tuple:
        found = [
            compare(of, [""] * len(right.ood_scores), right, answers(data), about)
            for of, right, data in (
                ("own", expected.rows(range(images)), own[:images]),
                ("files", proof.answers, files),
            )
        ]
        before = found[1].score > OTHER_PIXELS.score or (found[1].changed > 0 and not about.is_multi_label)
        return *found, found[1].score > limit, before

    rows = []
    for path, answers in exports(model, graph):
        mine, of_files, refused, refused_before = beside(answers, len(own))
        row = {"model": name, "path": path, "images": mine.images, "changed": mine.changed}
        row |= {"probability": f"{mine.probability:.2g}", "score": f"{mine.score:.2g}"}
        row |= {"score, files": f"{of_files.score:.2g}", "changed, files": of_files.changed, "limit": f"{limit:.2g}"}
        rows.append({**row, "refused, before": f"{refused}, {refused_before}"})
        add(counts["right", ""], refused, refused_before)
    for skew, prepare in skews().items():

        def answers(data: list[bytes], prepare=prepare) -> Answers:
            return run(np.stack([prepare(one, about.preprocess) for one in data]))

        mine, of_files, refused, refused_before = beside(answers, min(SKEWED_IMAGES, len(own)))
        share = mine.changed / mine.images
        changes = "2% or more" if share >= 0.02 else "fewer" if share else "none"
        if of_files.score:  # a mistake that this preparation can make
            add(counts["files" if skew in FILE_SKEWS else "pixels", changes], refused, refused_before)
    return rows


def add(count: list[int], *refused: bool) -> None:
    for i, one in enumerate((True, *refused)):
        count[i] += one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL DATA")
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    rows, counts = [], defaultdict(lambda: [0, 0, 0])
    for folder, data in zip(arguments.models[::2], arguments.models[1::2], strict=True):
        model = read_model(Path(folder))
        dataset = open_dataset(data, ReadOptions(multi_label=True) if model.is_multi_label else None)
        images = dataset.split("validation") if "validation" in dataset.splits else dataset
        chosen = np.linspace(0, len(images) - 1, min(arguments.images, len(images))).astype(int)
        rows += measure(Path(folder).name, model, [images.read(int(i)) for i in chosen], counts)
    print_table(rows)
    print_table(
        [
            {"preparation": of, "own answers changed": changes, "count": n, "refused": now, "refused before": before}
            for (of, changes), (n, now, before) in sorted(counts.items())
        ]
    )


if __name__ == "__main__":
    main()
