"""The choice of the head in two versions of Headstart, on random subsets of datasets.

    python benchmarks/heads.py photos/ other/ --per-class 20,50 --subsets 5 --old OTHER_CHECKOUT/src

Of every dataset (one folder for each class) random subsets of so many images a class are fitted by both versions, and
the models are tested on the same other images, at most ``--test`` of them. It prints, for each case, the mean of the
paired differences, new less old, in accuracy and log-loss, with standard errors over subsets; how often the accuracy
that was claimed without the test images agrees with theirs, within the error of both; and the processor seconds that
the choice of the head took. Features are computed once, with the cache of the new version.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).resolve().parents[1] / "src"


def run_worker(arguments: argparse.Namespace) -> None:
    """Fit every subset with the version on the path, and print one line of JSON for each."""
    import time

    from headstart import Compute, FitOptions, fit_dataset, open_dataset
    from headstart.classifier import fit as fit_module

    seconds = []
    select = fit_module.select_head

    def timed_select(*args, **options):
        start = time.process_time()
        selected = select(*args, **options)
        seconds.append(time.process_time() - start)
        return selected

    fit_module.select_head = timed_select
    for uri in arguments.data:
        dataset = open_dataset(uri)
        for per_class in map(int, arguments.per_class.split(",")):
            for seed in range(arguments.subsets):
                train, test = draw(dataset, per_class, arguments.test, seed)
                if not len(test):
                    continue
                options = FitOptions(
                    backbone=arguments.backbone,
                    validation=dataset.select(test),
                    compute=Compute(arguments.runtime, "fp32", 1),
                )
                result = fit_dataset(dataset.select(train).with_split("train"), options)
                validation = result.evaluations["validation"].predictions
                rows = np.arange(len(validation.truth))
                losses = -np.log(np.clip(validation.probabilities[rows, validation.truth], 1e-12, 1))
                claim = result.accuracy["leave_group_out"]
                truth = result.accuracy["validation"]
                values = {
                    "case": f"{Path(uri).name} {per_class}",
                    "seed": seed,
                    "accuracy": truth.value,
                    "truth": list(truth.interval),
                    "loss": float(losses.mean()),
                    "claim": [claim.interval[0], claim.value, claim.interval[1]],
                    "seconds": seconds.pop(),
                    "images": len(train),
                    "tested": len(test),
                }
                print(json.dumps(values), flush=True)


def draw(dataset, per_class: int, limit: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of images to learn from, so many of each class, and of others to test on."""
    rng = np.random.default_rng(seed)
    by_class = defaultdict(list)
    for i, item in enumerate(dataset.items):
        by_class[item.label].append(i)
    shuffled = [[int(i) for i in rng.permutation(rows)] for rows in by_class.values()]
    train = [i for rows in shuffled for i in rows[:per_class]]
    test = rng.permutation([i for rows in shuffled for i in rows[per_class:]])[:limit]
    return train, [int(i) for i in test]


def agrees(values: dict) -> bool:
    """Return whether the claim and the truth differ by no more than the errors of both, added in quadrature."""
    low, claim, high = values["claim"]
    truth, (truth_low, truth_high) = values["accuracy"], values["truth"]
    if truth > claim:
        return truth - claim <= np.hypot(high - claim, truth - truth_low)
    return claim - truth <= np.hypot(claim - low, truth_high - truth)


def main() -> None:
    """Run both versions and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--old", default=None, help="the src folder of the version to compare with")
    parser.add_argument("--backbone", default="headstart-m")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--per-class", default="20,50")
    parser.add_argument("--subsets", type=int, default=5)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_worker(arguments)
        return
    runs = {}
    for name, source in (("new", SOURCE), ("old", arguments.old)):
        if source is None:
            continue
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, *sys.argv[1:], "--worker"]
        output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        for line in output.splitlines():
            values = json.loads(line)
            runs[name, values["case"], values["seed"]] = values
    report(runs, arguments)


def report(runs: dict, arguments: argparse.Namespace) -> None:
    """Print a row for each case, and the mean of all."""
    cases = sorted({case for _, case, _ in runs})
    has_old = arguments.old is not None
    print(f"{arguments.backbone}, {arguments.subsets} subsets each, at most {arguments.test} images to test on\n")
    print("| case | accuracy, log-loss: new | old | difference, points | log-loss | claims: new, old | s: new, old |")
    print("|---|---|---|---|---|---|---|")
    differences, holds = [], defaultdict(list)
    for case in cases:
        new = [runs["new", case, seed] for seed in range(arguments.subsets) if ("new", case, seed) in runs]
        old = [runs["old", case, values["seed"]] for values in new] if has_old else []
        for name, version in (("new", new), ("old", old)):
            holds[name] += [agrees(values) for values in version]
        cells = [case, mean_of(new), mean_of(old)]
        if has_old:
            keys = ("accuracy", "loss")
            change = np.array([[n[key] - o[key] for key in keys] for n, o in zip(new, old, strict=True)])
            differences.append(change)
            mean, error = change.mean(0), change.std(0, ddof=1) / len(change) ** 0.5
            cells += [f"{100 * mean[0]:+.2f} ± {100 * error[0]:.2f}", f"{mean[1]:+.4f} ± {error[1]:.4f}"]
        else:
            cells += ["", ""]
        cells.append(", ".join(f"{sum(map(agrees, v))}/{len(v)}" for v in (new, old) if v))
        cells.append(", ".join(f"{np.median([x['seconds'] for x in v]):.2f}" for v in (new, old) if v))
        print(f"| {' | '.join(cells)} |")
    if has_old:
        every = np.concatenate(differences)
        mean, error = every.mean(0), every.std(0, ddof=1) / len(every) ** 0.5
        print(
            f"\nMean of {len(every)} subsets: {100 * mean[0]:+.2f} ± {100 * error[0]:.2f} points, log-loss "
            f"{mean[1]:+.4f} ± {error[1]:.4f}"
        )
    for name, values in holds.items():
        if values:
            print(f"Claims of {name} that hold: {sum(values)} of {len(values)}")


def mean_of(version: list[dict]) -> str:
    """Return the mean accuracy and log-loss of several subsets as text."""
    if not version:
        return ""
    return f"{np.mean([v['accuracy'] for v in version]):.4f}, {np.mean([v['loss'] for v in version]):.4f}"


if __name__ == "__main__":
    main()
