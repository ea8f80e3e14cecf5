"""Several labels that people gave: ``fit`` beside scikit-learn on random halves of a dataset.

    python benchmarks/multi_label_splits.py TABLE [--splits 10] [--target-recall 0.9]

Each split learns from one half of the images and is measured on the other one. "Head" and its rival, one-vs-rest
logistic regression with its ``C`` from five values by five folds of groups, have the same features, those of the
deepest tap; "fit" is what ``headstart fit`` does. With the target, the recall of every label on the other half is
printed, and of how many splits the promise holds: its 95% interval does not end below the target.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
from measure import print_table
from multi_label import deepest, ours, rival

import headstart as hs
from headstart.classifier import fit_multi_label


def mean(values: list[float]) -> str:
    """Return the mean in percent, with its standard error over splits."""
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1) / len(values) ** 0.5:.1f}"


def main() -> None:
    """Measure all splits, and print means with standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--target-recall", type=float, default=0.9)
    arguments = parser.parse_args()
    dataset = hs.open_dataset(arguments.table)
    print(dataset.label_summary)
    found: dict[str, list[float]] = defaultdict(list)
    recalls: dict[str, list[float]] = defaultdict(list)
    holds: dict[str, int] = defaultdict(int)
    for seed in range(arguments.splits):
        order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
        train, rest = order[: len(order) // 2], order[len(order) // 2 :]
        validation = dataset.select(rest).with_split("validation")
        options = hs.FitOptions(validation=validation, target_recall=arguments.target_recall)
        result = fit_multi_label(dataset.select(train).with_split("train"), options)
        metrics = result.evaluations["validation"].metrics
        found["fit"].append(metrics.mean_average_precision.value)
        found["fit, leaving one group out"].append(
            result.evaluations["leave_group_out"].metrics.mean_average_precision.value
        )
        for label in metrics.per_label:
            recalls[label.name].append(label.recall.value)
            holds[label.name] += label.recall.interval[1] >= arguments.target_recall
        problem = deepest(result)
        found["head, deepest tap"].append(ours(problem)[0])
        found["one-vs-rest, C = 1"].append(rival(problem, searched=False)[0])
        found["one-vs-rest, C by groups"].append(rival(problem, searched=True)[0])
    best = found["one-vs-rest, C by groups"]
    print_table(
        [
            {"": name, "mAP": mean(values), "less one-vs-rest, C by groups": mean(list(np.subtract(values, best)))}
            for name, values in found.items()
        ]
    )
    print_table(
        [
            {"label": name, "recall": mean(values), "promise holds": f"{holds[name]} of {len(values)}"}
            for name, values in recalls.items()
        ]
    )


if __name__ == "__main__":
    main()
