"""The closed forms against brute force on the real features of ants-bees: largest difference, and the time of both.

python benchmarks/closed_forms.py
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from measure import Scratch, mobilenetv2, print_table, shared

from headstart import backbones, open_dataset
from headstart.features import embed
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import Array, Labels, LinearProblem, Solution, Targets
from headstart.heads.lda import held_out_lda, solve_lda
from headstart.heads.ridge import dropout_penalty, held_out_ridge, solve_ridge
from headstart.heads.statistics import Statistics

CLASSES = 2
MASKS = 10_000
Row = dict[str, object]


def load_features() -> tuple[Array, Labels]:
    """Return the deepest vectors [n, d] of the training images, centred, of a mean squared length of 1; and labels."""
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        dataset = open_dataset(shared() / "data" / "ants-bees").split("train")
        features = embed(dataset, backbones.load(mobilenetv2()))
    x = np.asarray(features.values["features"], np.float64)
    x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0).sum())
    return x, np.array([dataset.classes.index(str(dataset.items[i].label)) for i in features.index])


def refit_without_each_group(x: Array, targets: Targets, solve: Callable[[Statistics], Solution]) -> Array:
    """Compute the scores [n, k] of all images, each from a head that was fitted without the image's group."""
    scores = np.empty((len(x), CLASSES))
    for group in np.unique(targets.groups):
        left_out = targets.groups == group
        weights, bias = solve(Statistics.of(x[~left_out], targets.labels[~left_out], CLASSES))
        scores[left_out] = x[left_out] @ weights + bias
    return scores


def compare(
    name: str, closed_form: Callable[[], Array], brute_force: Callable[[], Array], *, up_to_row_mean: bool = False
) -> Row:
    """Return the row of a comparison; scores of LDA are determined only up to the mean of their row."""
    start = time.perf_counter()
    computed = closed_form()
    computed_at = time.perf_counter()
    expected = brute_force()
    end = time.perf_counter()
    if up_to_row_mean:
        computed = computed - computed.mean(axis=1, keepdims=True)
        expected = expected - expected.mean(axis=1, keepdims=True)
    return {
        "what": name,
        "largest difference": float(np.abs(computed - expected).max()),
        "of values up to": float(np.abs(expected).max()),
        "closed form (s)": computed_at - start,
        "brute force (s)": end - computed_at,
    }


def compare_held_out(name: str, x: Array, basis: Eigenbasis, targets: Targets, penalty: float) -> list[Row]:
    """Compare the closed forms of leaving out each group with refits."""
    return [
        compare(
            f"ridge, {name}",
            lambda: held_out_ridge(LinearProblem.of(basis, targets), [penalty])[0],
            lambda: refit_without_each_group(x, targets, partial(solve_ridge, penalty=penalty)),
        ),
        compare(
            f"LDA, {name}",
            lambda: held_out_lda(LinearProblem.of(basis, targets), [penalty])[0],
            lambda: refit_without_each_group(x, targets, partial(solve_lda, shrinkage=penalty)),
            up_to_row_mean=True,
        ),
    ]


def compare_statistics(x: Array, labels: Labels, penalty: float, generator: np.random.Generator) -> list[Row]:
    """Compare merged and subtracted statistics with those computed at once."""
    statistics = Statistics.of(x, labels, CLASSES)

    def merge_shuffled_parts() -> Array:
        parts = [
            Statistics.of(x[rows], labels[rows], CLASSES) for rows in np.array_split(generator.permutation(len(x)), 7)
        ]
        total = parts[3]
        for i in (5, 0, 6, 1, 4, 2):
            total = total + parts[i]
        return solve_ridge(total, penalty)[0]

    removed = np.arange(0, len(x), 5)
    remaining = np.setdiff1d(np.arange(len(x)), removed)
    return [
        compare("ridge from 7 shuffled parts", merge_shuffled_parts, lambda: solve_ridge(statistics, penalty)[0]),
        compare(
            f"ridge less {len(removed)} images",
            lambda: solve_ridge(statistics - Statistics.of(x[removed], labels[removed], CLASSES), penalty)[0],
            lambda: solve_ridge(Statistics.of(x[remaining], labels[remaining], CLASSES), penalty)[0],
        ),
    ]


def compare_dropout(x: Array, labels: Labels, generator: np.random.Generator, width: int = 60) -> Row:
    """Compare dropout in closed form with the average over sampled masks."""
    features = x[:, :width] * 10
    features = features - features.mean(axis=0)
    statistics = Statistics.of(features, labels, CLASSES)
    targets = np.eye(CLASSES)[labels] - np.eye(CLASSES)[labels].mean(axis=0)

    def sample_masks() -> Array:
        gram, cross = np.zeros((width, width)), np.zeros((width, CLASSES))
        for _ in range(MASKS):
            masked = features * (generator.random(features.shape) >= 0.5) / 0.5
            gram += masked.T @ masked
            cross += masked.T @ targets
        return np.linalg.solve(gram, cross)

    return compare(
        f"dropout 0.5 against {MASKS:,} masks ({width} features)",
        lambda: solve_ridge(statistics, dropout_penalty(statistics, 0.5))[0],
        sample_masks,
    )


def main() -> None:
    x, labels = load_features()
    generator = np.random.default_rng(0)
    penalty = 0.1 * len(x)
    basis = Eigenbasis.of(x)
    single_images, groups = np.arange(len(x)), generator.integers(0, len(x) // 3, len(x))
    print_table(
        [
            *compare_held_out("leave-one-out", x, basis, Targets(labels, CLASSES, single_images), penalty),
            *compare_held_out("leave-one-group-out", x, basis, Targets(labels, CLASSES, groups), penalty),
            *compare_statistics(x, labels, penalty, generator),
            compare_dropout(x, labels, generator),
        ]
    )


if __name__ == "__main__":
    main()
