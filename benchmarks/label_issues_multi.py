"""Wrong cells planted among several labels an image: how many ``headstart check`` finds, beside cleanlab.

    python benchmarks/label_issues_multi.py [--seeds 4 5 6] [--peers PYTHON]

On the collages and the synthetic features of ``multi_label.py``, whose labels are known, each label is taken from 5% or
10% of its images and given to as many others. ``--peers`` is the interpreter of an environment with cleanlab (see
label_issues_peers.py), which gets the same held-out probabilities, and those of its own way: one-vs-rest logistic
regression in five folds. Precision is the share of the suspect cells that were planted, recall the share of the planted
ones that are suspect. The constants of ``check.cells`` were chosen on seed 100, which is not to be shown.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from measure import print_table
from multi_label import synthetic, write_collages
from numpy.typing import NDArray

import headstart as hs
from headstart.check.cells import suspect_cells
from headstart.data.label_sets import label_matrix
from headstart.features import Compute, embed
from headstart.features.input_scaling import open_backbone
from headstart.heads.label_ridge import LabelTargets
from headstart.heads.label_selection import select_labels
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas

SHARES = (0.0, 0.05, 0.1)
Cells = NDArray[np.bool_]
Counts = dict[tuple[str, float, str], list[NDArray[np.int64]]]


def collages(seed: int) -> tuple[NDArray[np.float64], Cells, NDArray[np.int64]]:
    """Return the vectors of the deepest tap, labels and groups of 400 collages."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_collages(folder, "train", 100, 4, np.random.default_rng(seed))
        (folder / "labels.csv").write_text("\n".join(["path,labels,split,group", *rows]), "utf-8")
        dataset = hs.open_dataset(folder / "labels.csv")
        backbone = open_backbone("headstart-m", None, (), dataset).backbone
        features = embed(dataset, backbone, Compute())
        items = [dataset.items[i] for i in features.index]
        groups = np.unique([item.group or "" for item in items], return_inverse=True)[1]
        return (
            features.matrix((features.deepest_tap,), np.arange(len(items))),
            label_matrix(items, dataset.label_names)[0],
            groups,
        )


def synthetic_set(seed: int) -> tuple[NDArray[np.float64], Cells, NDArray[np.int64]]:
    """Return the vectors, labels and groups of 1,800 images of 20 labels."""
    problem = synthetic(1800, np.random.default_rng(seed))
    return problem.train, problem.labels, problem.groups


def plant(labels: Cells, share: float, generator: np.random.Generator) -> Cells:
    """Take each label from a share of its images, and give it to as many others."""
    planted = labels.copy()
    for has, column in zip(labels.T, planted.T, strict=True):
        count = round(share * min(has.sum(), (~has).sum()))
        column[generator.choice(np.flatnonzero(has), count, replace=False)] = False
        column[generator.choice(np.flatnonzero(~has), count, replace=False)] = True
    return planted


def held_out(vectors: NDArray[np.float64], labels: Cells, groups: NDArray[np.int64]) -> NDArray[np.float64]:
    training_set = TrainingSet.of({"x": vectors}, np.zeros(len(vectors), np.int64), groups)
    with single_threaded_blas():
        return select_labels(training_set, LabelTargets(labels, np.ones_like(labels), groups)).probabilities


def peers(python: str, vectors: NDArray[np.float64], labels: Cells, given: NDArray[np.float64]) -> dict[str, Cells]:
    """Return the suspect cells of cleanlab by the name of its way, and "images" from its filter of whole images."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "set.npz"
        np.savez(file, vectors=vectors, labels=labels, given=given)
        script = Path(__file__).with_name("label_issues_peers.py")
        subprocess.run([python, script, file, Path(folder) / "found.npz"], check=True)
        with np.load(Path(folder) / "found.npz") as found:
            return {name: found[name] for name in found.files}


def count(found: Cells, planted: Cells) -> NDArray[np.int64]:
    """Return how many are found, how many of those were planted, and how many were planted."""
    return np.array([found.sum(), (found & planted).sum(), planted.sum()])


def measure(seed: int, python: str | None, cells: Counts, images: Counts) -> None:
    """Plant each share into both sets and count what is found, cells by themselves and images with one."""
    for name, make in (("collages", collages), ("synthetic", synthetic_set)):
        vectors, truth, groups = make(seed)
        for share in SHARES:
            labels = plant(truth, share, np.random.default_rng(seed))
            planted, probabilities = labels != truth, held_out(vectors, labels, groups)
            suspects = suspect_cells(labels, np.ones_like(labels), probabilities)
            found = {
                "headstart": suspects.is_suspect,
                "headstart, likely": suspects.is_likely,
                "headstart, possible": suspects.is_suspect & ~suspects.is_likely,
            }
            of_cleanlab = peers(python, vectors, labels, probabilities) if python and share else {}
            found |= {way: mask for way, mask in of_cleanlab.items() if mask.ndim == 2}
            for way, mask in found.items():
                cells[name, share, way].append(count(mask, planted))
            for kind, side in (("missing", ~labels), ("wrong", labels)):
                cells[name, share, f"headstart, {kind}"].append(count(suspects.is_suspect & side, planted & side))
            whole = {way: mask.any(axis=1) for way, mask in found.items() if "," not in way}
            whole |= {way.removesuffix("; images"): mask for way, mask in of_cleanlab.items() if mask.ndim == 1}
            for way, mask in whole.items():
                images[name, share, way].append(count(mask, planted.any(axis=1)))


def rows(counts: Counts) -> list[dict[str, object]]:
    """Return a row for each set, share and way, over all seeds."""
    table = []
    for (name, share, way), parts in counts.items():
        found, right, planted = sum(parts)
        precision = f"{right / found:.0%}" if found else "-"
        recall = f"{right / planted:.0%}" if planted else "-"
        table.append(
            {
                "data": name,
                "moved": f"{share:.0%}",
                "way": way,
                "precision": f"{precision} ({right} of {found})",
                "recall": f"{recall} (of {planted})",
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[4, 5, 6])
    parser.add_argument("--peers")
    arguments = parser.parse_args()
    cells: Counts = defaultdict(list)
    images: Counts = defaultdict(list)
    for seed in arguments.seeds:
        measure(seed, arguments.peers, cells, images)
    print("Cells")
    print_table(rows(cells))
    print("\nImages with a wrong cell")
    print_table(rows(images))


if __name__ == "__main__":
    main()
