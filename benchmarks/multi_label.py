"""Several labels an image: mAP, promises kept and seconds, beside scikit-learn's one-vs-rest logistic regression.

Two datasets of known truth. *Collages*: four pieces of images of the reference data side by side; an image has the
labels of its pieces (ants, bees, horses; humans have no label), and collages of the same source images are one group.
*Synthetic*: features of 20 labels that add up, with groups. The rival gets the same features and, with
cross-validation by groups, its ``C`` from five values. Seconds are those of the head alone, taken in turns.

    python benchmarks/multi_label.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measure import print_table, shared
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import headstart as hs
from headstart.classifier import MultiLabelFitResult, fit_multi_label
from headstart.heads.label_ridge import LabelTargets
from headstart.heads.label_selection import select_labels
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas

SIDE = 160  # pixels of a piece
POOL = 6  # source images of a group of collages
CLASSES = ("ants", "bees", "horses", "humans")
GRID = {"onevsrestclassifier__estimator__C": [0.0001, 0.001, 0.01, 0.1, 1.0]}


@dataclass(frozen=True)
class Problem:
    """Vectors, labels and groups to learn from, and vectors and labels to measure on."""

    train: NDArray[np.float64]
    labels: NDArray[np.bool_]
    groups: NDArray[np.int64]
    test: NDArray[np.float64]
    test_labels: NDArray[np.bool_]


def sources(split: str) -> dict[str, list[Path]]:
    """Return the images of each class of the reference data."""
    data = shared() / "data"
    ants_bees, horses_humans = ("train", "train") if split == "train" else ("val", "validation")
    folders = {name: data / "ants-bees" / ants_bees / name for name in ("ants", "bees")}
    folders |= {name: data / "horse-or-human" / horses_humans / name for name in ("horses", "humans")}
    return {
        name: sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png")) for name, folder in folders.items()
    }


def piece(path: Path) -> Image.Image:
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


def write_collages(folder: Path, split: str, pools: int, each: int, generator: np.random.Generator) -> list[str]:
    """Write ``each`` collages of every pool of source images, which no other pool has; return rows of a table."""
    left = {name: list(generator.permutation(np.array(paths, object))) for name, paths in sources(split).items()}
    rows = []
    for pool in range(pools):
        names = [CLASSES[i] for i in generator.choice(4, POOL, p=[0.17, 0.18, 0.3, 0.35])]
        chosen = [(name, piece(left[name].pop())) for name in names if left[name]]
        for i in range(each if len(chosen) >= 4 else 0):
            picks = [chosen[j] for j in generator.choice(len(chosen), 4, replace=False)]
            collage = Image.new("RGB", (2 * SIDE, 2 * SIDE))
            for place, (_, part) in enumerate(picks):
                collage.paste(part, (place % 2 * SIDE, place // 2 * SIDE))
            path = f"{split}_{pool:03}_{i}.jpg"
            collage.save(folder / path, quality=92)
            labels = ";".join(sorted({name for name, _ in picks} - {"humans"}))
            rows.append(f"{path},{labels},{'train' if split == 'train' else 'validation'},{split} {pool}")
    return rows


def synthetic(n: int, generator: np.random.Generator, k: int = 20, d: int = 300) -> Problem:
    """Labels of shares from 3% to 40% add a direction each; groups of three images share a further one."""
    effects = generator.normal(size=(k, d)) * 0.35

    def draw(count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
        groups = np.repeat(np.arange(count // 3 + 1), 3)[:count]
        labels = generator.random((groups.max() + 1, k)) < np.geomspace(0.03, 0.4, k)
        own = generator.normal(size=(groups.max() + 1, d))
        x = labels[groups] @ effects + own[groups] + generator.normal(size=(count, d))
        return x, labels[groups], groups

    return Problem(*draw(n), *draw(3000)[:2])


def rival(problem: Problem, *, searched: bool) -> tuple[float, float]:
    """Return mAP and seconds of one-vs-rest logistic regression, with C = 1 or the best of five by groups."""
    start = time.perf_counter()
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(max_iter=2000)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if searched:
            model = GridSearchCV(model, GRID, cv=GroupKFold(5), scoring="average_precision")
            model.fit(problem.train, problem.labels, groups=problem.groups)
        else:
            model.fit(problem.train, problem.labels)
    seconds = time.perf_counter() - start
    scores = model.predict_proba(problem.test)
    return float(average_precision_score(problem.test_labels, scores)), seconds


def ours(problem: Problem) -> tuple[float, float]:
    """Return mAP and seconds of the head on one tap."""
    start = time.perf_counter()
    training_set = TrainingSet.of({"x": problem.train}, np.zeros(len(problem.train), np.int64), problem.groups)
    targets = LabelTargets(problem.labels, np.ones_like(problem.labels), problem.groups)
    with single_threaded_blas():
        head = select_labels(training_set, targets).head
    seconds = time.perf_counter() - start
    return float(average_precision_score(problem.test_labels, head.probabilities(problem.test))), seconds


def compare(name: str, problem: Problem, runs: int) -> None:
    """Print mAP and the least seconds of ``runs`` of each, in turns."""
    cases = {
        "ridge, one tap": lambda: ours(problem),
        "one-vs-rest, C = 1": lambda: rival(problem, searched=False),
        "one-vs-rest, C by groups": lambda: rival(problem, searched=True),
    }
    found: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(runs):
        for case, run in cases.items():
            found[case].append(run())
    print_table(
        [
            {"data": name, "head": case, "mAP": f"{values[0][0]:.1%}", "seconds": f"{min(s for _, s in values):.2f}"}
            for case, values in found.items()
        ]
    )


def deepest(result: MultiLabelFitResult) -> Problem:
    """Return the vectors of the deepest tap, labels and groups of a fit, and those of its validation images."""
    split, features = result.split, result.images.features
    tap = (features.deepest_tap,)
    return Problem(
        features.matrix(tap, split.train).astype(np.float64),
        split.targets.values,
        split.targets.groups,
        features.matrix(tap, split.validation).astype(np.float64),
        split.validation_values,
    )


def collages(folder: Path, runs: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = write_collages(folder, "train", 100, 4, generator) + write_collages(folder, "validation", 40, 6, generator)
    (folder / "labels.csv").write_text("\n".join(["path,labels,split,group", *rows]), "utf-8")
    dataset = hs.open_dataset(folder / "labels.csv")
    print(f"\nCollages: {dataset.label_summary}")
    options = [hs.FitOptions(), hs.FitOptions(target_recall=0.9), hs.FitOptions(target_precision=0.9)]
    table = []
    for option in options:
        result = fit_multi_label(dataset, option)
        for name, evaluation in result.evaluations.items():
            metrics = evaluation.metrics
            table.append(
                {
                    "target": " ".join(map(str, option.label_target)) if option.label_target[0] else "none",
                    "measured on": name,
                    "mAP": str(metrics.mean_average_precision),
                    "micro F1": str(metrics.micro_f1),
                    "all right": str(metrics.exact_match),
                    "recall": ", ".join(f"{label.name} {label.recall.value:.0%}" for label in metrics.per_label),
                    "precision": ", ".join(f"{label.name} {label.precision.value:.0%}" for label in metrics.per_label),
                    "seconds of the head": f"{result.model.run['seconds']['head']:.2f}",
                }
            )
    print_table(table)
    compare("collages", deepest(result), runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="the least of more runs varies less")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        collages(Path(folder), arguments.runs, arguments.seed)
    for n in (500, 1800):
        compare(f"synthetic, {n} images", synthetic(n, np.random.default_rng(arguments.seed)), arguments.runs)


if __name__ == "__main__":
    main()
