"""The closed forms against brute force on the real features of ants-bees: largest difference, and the time of both.

python benchmarks/closed_forms.py
"""

from __future__ import annotations

import os
import time

import numpy as np
from measure import Scratch, shared, table

from headstart import backbones
from headstart.data import open_dataset
from headstart.features.features import embed
from headstart.heads import Statistics, held_out, solve
from headstart.heads.held_out import Basis


def timed(work):
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def refits(x, labels, groups, fit):
    scores = np.empty((len(x), 2))
    for group in np.unique(groups):
        out = groups == group
        weights, bias = fit(Statistics.of(x[~out], labels[~out], 2))
        scores[out] = x[out] @ weights + bias
    return scores


def against(name, closed, brute, *, up_to_a_constant=False):
    (a, quick), (b, slow) = timed(closed), timed(brute)
    if up_to_a_constant:
        a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return {"what": name, "largest difference": float(np.abs(a - b).max()), "of values up to": float(np.abs(b).max()),
            "closed form (s)": quick, "brute force (s)": slow}  # fmt: skip


if __name__ == "__main__":
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        backbone = backbones.load(f"onnx:{shared() / 'weights' / 'mobilenetv2-imagenet.onnx'}")
        dataset = open_dataset(shared() / "data" / "ants-bees").split("train")
        features = embed(dataset, backbone, taps=["features"])
    x = features.values["features"].astype(np.float64)
    x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0).sum())
    labels = np.array([dataset.classes.index(dataset.items[i].label) for i in features.index])
    rng = np.random.default_rng(0)
    alone, groups = np.arange(len(x)), rng.integers(0, len(x) // 3, len(x))
    penalty = 0.1 * len(x)
    basis = Basis.of(x)
    rows = []
    for name, index in (("leave-one-out", alone), ("leave-group-out", groups)):
        rows.append(against(
            f"ridge, {name}", lambda index=index: held_out.ridge(basis, labels, 2, index, [penalty])[0],
            lambda index=index: refits(x, labels, index, lambda s: solve.ridge(s, penalty)),
        ))  # fmt: skip
        rows.append(against(
            f"LDA, {name}", lambda index=index: held_out.lda(basis, labels, 2, index, [penalty])[0],
            lambda index=index: refits(x, labels, index, lambda s: solve.lda(s, penalty)), up_to_a_constant=True,
        ))  # fmt: skip
    whole = Statistics.of(x, labels, 2)

    def merged():
        parts = [Statistics.of(x[p], labels[p], 2) for p in np.array_split(rng.permutation(len(x)), 7)]
        total = parts[3]
        for i in (5, 0, 6, 1, 4, 2):
            total = total + parts[i]
        return solve.ridge(total, penalty)[0]

    rows.append(against("ridge from 7 shuffled parts", merged, lambda: solve.ridge(whole, penalty)[0]))
    gone, stay = np.arange(0, len(x), 5), np.setdiff1d(np.arange(len(x)), np.arange(0, len(x), 5))
    rows.append(against(
        "ridge less 49 pictures", lambda: solve.ridge(whole - Statistics.of(x[gone], labels[gone], 2), penalty)[0],
        lambda: solve.ridge(Statistics.of(x[stay], labels[stay], 2), penalty)[0],
    ))  # fmt: skip

    small = x[:, :60] * 10
    centred = small - small.mean(axis=0)
    statistics = Statistics.of(centred, labels, 2)
    targets = np.eye(2)[labels] - np.eye(2)[labels].mean(axis=0)

    def masks():
        gram, cross = np.zeros((60, 60)), np.zeros((60, 2))
        for _ in range(10_000):
            masked = centred * (rng.random(centred.shape) >= 0.5) / 0.5
            gram += masked.T @ masked
            cross += masked.T @ targets
        return np.linalg.solve(gram, cross)

    rows.append(against(
        "dropout 0.5 against 10,000 masks (60 features)",
        lambda: solve.ridge(statistics, solve.dropout_penalty(statistics, 0.5))[0], masks,
    ))  # fmt: skip
    table(rows)
