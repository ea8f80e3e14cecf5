"""What class weights and costs change where classes are uneven, on validation images of even classes.

Of the training images of one class a few are drawn, several times; every model is fitted to the same images three
times: as it is, with balanced class weights, and with a cost of ``COST`` for missing the rare class. The mean cost is
that of the decisions at this cost, whatever the model decided by.

    python benchmarks/costs.py
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from measure import print_table, shared

import headstart as hs
from headstart.classifier import fit_dataset

COST = 20  # of missing the rare class, where the other error costs 1


@dataclass(frozen=True)
class Case:
    """A dataset, how many training images are kept of its classes, and which class is the rare one."""

    data: str
    keep: Mapping[str, int]
    rare: str


CASES = (
    Case("horse-or-human", {"horses": 500, "humans": 25}, "humans"),
    Case("ants-bees", {"bees": 100, "ants": 10}, "ants"),
)


def uneven(case: Case, folder: Path, seed: int) -> hs.Dataset:
    """Return the dataset with as many training images of each class as are kept, drawn with ``seed``."""
    generator, dataset = np.random.default_rng(seed), hs.open_dataset(folder)
    kept = [i for i, item in enumerate(dataset.items) if item.split == "validation"]
    for name, count in case.keep.items():
        rows = [i for i, item in enumerate(dataset.items) if item.split == "train" and item.label == name]
        kept += generator.choice(rows, min(count, len(rows)), replace=False).tolist()
    return dataset.select(sorted(kept))


def measure(case: Case, dataset: hs.Dataset, options: hs.FitOptions) -> list[float]:
    """Return accuracy, balanced accuracy, recall of the rare class and of the other, and mean cost; then left out."""
    result = fit_dataset(dataset, options)
    values: list[float] = []
    for name in ("validation", "leave_group_out"):
        evaluation = result.evaluations[name]
        recall = {metrics.name: metrics.recall or 0.0 for metrics in evaluation.metrics.per_class}
        other = next(name for name in recall if name != case.rare)
        support = {metrics.name: metrics.support for metrics in evaluation.metrics.per_class}
        cost = COST * (1 - recall[case.rare]) * support[case.rare] + (1 - recall[other]) * support[other]
        values += [
            evaluation.accuracy.value,
            evaluation.metrics.balanced_accuracy,
            recall[case.rare],
            recall[other],
            cost / sum(support.values()),
        ]
    return values


def rows(case: Case, backbone: str, draws: int) -> list[dict[str, object]]:
    """Return a row for each way to fit: means over the draws, and the range of the balanced accuracy."""
    other = next(name for name in case.keep if name != case.rare)
    costs = {case.rare: {case.rare: 0, other: COST}, other: {case.rare: 1, other: 0}}
    plain = hs.FitOptions(backbone)
    ways = {
        "as it is": plain,
        "--class-weight balanced": replace(plain, class_weight="balanced"),
        "--costs": replace(plain, costs=costs),
        "both": replace(plain, class_weight="balanced", costs=costs),
    }
    measured: dict[str, list[list[float]]] = {way: [] for way in ways}
    for seed in range(draws):
        dataset = uneven(case, shared() / "data" / case.data, seed)
        for way, options in ways.items():
            measured[way].append(measure(case, dataset, options))
    table = []
    for way, values in measured.items():
        array = np.array(values)
        mean = array.mean(axis=0)
        table.append(
            {
                "data": case.data,
                "training images": " and ".join(f"{count} {name}" for name, count in case.keep.items()),
                "backbone": backbone,
                "fit": way,
                "accuracy": f"{mean[0]:.1%}",
                "balanced accuracy": f"{mean[1]:.1%} ({array[:, 1].min():.1%} to {array[:, 1].max():.1%})",
                f"recall of {case.rare}": f"{mean[2]:.1%}",
                f"recall of {other}": f"{mean[3]:.1%}",
                f"cost at {COST} to 1": f"{mean[4]:.3f}",
                "left out: accuracy, balanced": f"{mean[5]:.1%}, {mean[6]:.1%}",
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--backbones", default="headstart-m,headstart-s")
    arguments = parser.parse_args()
    for backbone in arguments.backbones.split(","):
        for case in CASES:
            print_table(rows(case, backbone, arguments.draws))


if __name__ == "__main__":
    main()
