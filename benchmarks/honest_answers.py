"""Promises against what came: coverage, false alarms, calibration, foreign pictures, the learning curve.

    python benchmarks/honest_answers.py [--splits 200] [--parts 25] [--only sets,calibration,foreign,curve]
                                        [--backbone headstart-s]

Features are read once (and kept in the cache), everything after is closed form. `sets` and `calibration`: from one
random half of the groups head, temperature and thresholds are learned (with the kind and penalty that all pictures
chose), and the other half answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from measure import shared, table

from headstart import backbones
from headstart.data import concatenate, open_dataset
from headstart.features.cache import FeatureCache
from headstart.features.features import embed
from headstart.heads import Choice, Statistics, held_out, select, softmax, solve
from headstart.heads.held_out import Basis
from headstart.heads.learning_curve import learning_curve
from headstart.heads.ood import familiar, held_out_distances
from headstart.splits.split import Partition
from headstart.stats import fit_temperature, fit_thresholds, group_quantile, label_smoothing

DATA = ("ants-bees", "horse-or-human")
COVERAGE, FALSE_ALARMS = 0.95, 0.05


@dataclass
class Case:
    """A data set's features by one backbone, and the head that ``fit`` chooses for it."""

    backbone: str
    data: str
    values: dict
    labels: np.ndarray
    groups: np.ndarray
    scenes: np.ndarray
    validation: dict
    truth: np.ndarray
    choice: Choice

    @property
    def name(self) -> dict:
        return {"backbone": self.backbone, "data": self.data}

    def learned(self, rows: np.ndarray) -> tuple[Choice, np.ndarray, np.ndarray]:
        """The same cut and kind of head chosen anew on part of the pictures, their labels and groups."""
        labels, groups = self.labels[rows], np.unique(self.groups[rows], return_inverse=True)[1]
        head = self.choice.head
        values = {tap: self.values[tap][rows] for tap in head.taps}
        dropout = head.settings.get("dropout")
        return select(values, labels, groups, cut=head.taps, kind=head.kind, dropout=dropout), labels, groups


def side_by_side(values: dict, taps: tuple[str, ...], rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    return np.concatenate([values[tap][rows].astype(np.float32) for tap in taps], axis=1)


def cases(wanted: str) -> Iterator[Case]:
    for backbone in ("headstart-s", f"onnx:{shared() / 'weights' / 'mobilenetv2-imagenet.onnx'}"):
        if wanted not in backbone:
            continue
        loaded = backbones.load(backbone)
        for data in DATA:
            dataset = open_dataset(shared() / "data" / data)
            train, validation = dataset.split("train"), dataset.split("validation")
            everything = concatenate(train, validation)
            with FeatureCache() as cache:
                features = embed(everything, loaded, cache=cache)
            split = Partition.of(features, everything, len(train), "auto", None, 0)
            values, held = features.vectors(split.train), features.vectors(split.validation)
            paths = [everything.items[features.index[i]].path for i in split.train]
            # The scene as the makers of horse-or-human named it (horse01-0.jpg); the others have none but the groups.
            named = [path.rsplit("/", 1)[-1].split("-")[0] for path in paths]
            scenes = np.unique(named, return_inverse=True)[1] if data == DATA[1] else split.groups.index
            truth = [split.classes.index(str(everything.items[features.index[i]].label)) for i in split.validation]
            choice = select(values, split.labels, split.groups.index)
            yield Case(
                backbone.rsplit("/", 1)[-1].removesuffix(".onnx"), data, values, split.labels, split.groups.index,
                scenes, held, np.array(truth), choice,
            )  # fmt: skip


def halves(case: Case, splits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and rows to answer; scenes are whole."""
    rng = np.random.default_rng(0)
    scenes = np.unique(case.scenes)
    for _ in range(splits):
        learned = np.isin(case.scenes, rng.permutation(scenes)[: len(scenes) // 2])
        if len(np.unique(case.labels[learned])) == 2:
            yield np.flatnonzero(learned), np.flatnonzero(~learned)


def ece(p: np.ndarray, truth: np.ndarray, adaptive: bool) -> float:
    """Mean distance between confidence and share of right answers, over 15 bins of width (Guo et al. 2017) or count."""
    sure, right = p.max(axis=1), p.argmax(axis=1) == truth
    if adaptive:
        bins = np.argsort(np.argsort(sure, kind="stable")) * 15 // len(sure)
    else:
        bins = np.minimum((sure * 15).astype(int), 14)
    counts = np.bincount(bins, minlength=15)
    gaps = np.bincount(bins, weights=sure, minlength=15) - np.bincount(bins, weights=right, minlength=15)
    return float(np.abs(gaps).sum() / counts.sum())


def quality(scores: np.ndarray, temperature: float, truth: np.ndarray) -> np.ndarray:
    p = softmax(scores.astype(np.float64) / temperature)
    own = np.maximum(p[np.arange(len(truth)), truth], 1e-15)
    return np.array([ece(p, truth, False), ece(p, truth, True), -np.log(own).mean()])


@dataclass
class Learned:
    """A head of the kind, cut and penalty that ``fit`` chose for all pictures, learned from some of them."""

    basis: Basis
    turn: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    temperature: float
    left_out: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, labels: np.ndarray, groups: np.ndarray, choice: Choice) -> Learned:
        basis, settings, kind = Basis.of(x), choice.head.settings, choice.head.kind
        unit = float(basis.spread.sum()) / len(x)
        points, classes = basis.at(slice(None)), choice.head.weights.shape[1]
        part = Statistics.of(points, labels, classes)
        if kind == "lda":
            penalty = float(settings["shrinkage"]) * unit
            scores = held_out.lda(basis, labels, classes, groups, [penalty])[0]
            weights, bias = solve.lda(part, penalty)
        elif kind == "ridge":
            rate = float(settings.get("dropout", 0))
            penalty = rate / (1 - rate) if rate else float(settings["penalty"]) * unit
            scores = held_out.ridge(basis, labels, classes, groups, [penalty])[0]
            weights, bias = solve.ridge(part, penalty)
        else:
            scores = held_out.centroid(basis, labels, classes, groups)
            weights, bias = solve.centroid(part)
        temperature = fit_temperature(scores, labels, label_smoothing(len(np.unique(groups))))
        return cls(basis, basis.weights(np.eye(len(basis.spread))), weights, bias, temperature, scores)

    def scores(self, x: np.ndarray) -> np.ndarray:
        return (x - self.basis.mean) @ self.turn @ self.weights + self.bias


def prepared(case: Case, learned: np.ndarray) -> np.ndarray:
    """All vectors, scaled as the head chosen wants them: for dropout by the second moments of those learned from."""
    x = side_by_side(case.values, case.choice.head.taps).astype(np.float64)
    if "dropout" not in case.choice.head.settings:
        return x / np.sqrt(x[learned].var(axis=0).sum())
    moments = (x[learned] ** 2).sum(axis=0)
    return np.where(moments > 0, x / np.sqrt(np.where(moments > 0, moments, 1)), 0)


def sets_and_calibration(case: Case, splits: int) -> tuple[list[dict], list[dict]]:
    found, measured = [], []
    for learned, rest in halves(case, splits):
        labels, groups, truth = case.labels[learned], case.groups[learned], case.labels[rest]
        x = prepared(case, learned)
        head = Learned.of(x[learned], labels, groups, case.choice)
        plain = head.basis
        if "dropout" in case.choice.head.settings:  # the distance is taken on the vectors as they are
            x = side_by_side(case.values, case.choice.head.taps).astype(np.float64)
            scores, plain = head.scores(prepared(case, learned)[rest]), Basis.of(x[learned])
        else:
            scores = head.scores(x[rest])
        promises = fit_thresholds(
            softmax(head.left_out / head.temperature), labels, groups, held_out_distances(plain, groups),
            coverage=COVERAGE, false_alarms=FALSE_ALARMS,
        )  # fmt: skip
        p, own = softmax(scores / head.temperature), (np.arange(len(rest)), truth)
        sets, above = promises.sets(p), p >= np.array(promises.set_thresholds)
        refused = promises.none_of_these(familiar(plain).distances(x[rest]))
        right = (p.argmax(axis=1) == truth).mean()
        found.append([above[own].mean(), sets[own].mean(), sets.sum(axis=1).mean(), refused.mean(), right])
        measured.append([*quality(scores, 1, truth), *quality(scores, head.temperature, truth)])
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
    by = "scenes by name" if case.data == DATA[1] else "groups found"
    rows = [
        {
            **case.name, "splits of": by, "splits": len(found), "accuracy": f"{mean[4]:.1%}",
            "above the threshold": f"{mean[0]:.1%} ± {spread[0]:.1%}", "in the set": f"{mean[1]:.1%} ± {spread[1]:.1%}",
            "promised": f"{COVERAGE:.0%}", "classes a set": f"{mean[2]:.2f}",
            "refused": f"{mean[3]:.1%} ± {spread[3]:.1%}", "promised at most": f"{FALSE_ALARMS:.0%}",
        }
    ]  # fmt: skip
    head, held = case.choice.head, side_by_side(case.validation, case.choice.head.taps)
    scores = head.scores(held)
    whole = [*quality(scores, 1, case.truth), *quality(scores, head.temperature, case.truth)]
    names = ("ECE", "adaptive ECE", "log-loss")
    tempered = []
    for on, values in (("validation", whole), (f"{len(found)} splits", np.mean(measured, axis=0))):
        pairs = {n: f"{values[i]:.3f} to {values[i + 3]:.3f}" for i, n in enumerate(names)}
        tempered.append({**case.name, "head": head.kind, "on": on, **pairs})
    return rows, tempered


def foreign(case: Case, other: Case) -> list[dict]:
    choice, head = case.choice, case.choice.head
    held = side_by_side(case.validation, head.taps)
    strange = np.concatenate([side_by_side(other.values, head.taps), side_by_side(other.validation, head.taps)])

    def energy(scores: np.ndarray) -> np.ndarray:
        scaled = scores.astype(np.float64) / head.temperature
        top = scaled.max(axis=1)
        return -top - np.log(np.exp(scaled - top[:, None]).sum(axis=1))

    methods = {
        "distance": (choice.distances, choice.familiar.distances),
        "maximum softmax": (-choice.probabilities.max(axis=1), lambda x: -head.probabilities(x).max(axis=1)),
        "energy": (energy(choice.chosen.scores), lambda x: energy(head.scores(x))),
    }
    rows = []
    for name, (left_out, score) in methods.items():
        threshold = group_quantile(left_out, case.groups, 1 - FALSE_ALARMS)
        ours, theirs = score(held), score(strange)
        above = np.mean(theirs[:, None] > ours[None]) + 0.5 * np.mean(theirs[:, None] == ours[None])
        rows.append(
            {**case.name, "foreign": other.data, "score": name,
             "refused of validation": f"{(ours > threshold).sum()}/{len(ours)} = {np.mean(ours > threshold):.1%}",
             "caught of foreign": f"{(theirs > threshold).sum()}/{len(theirs)} = {np.mean(theirs > threshold):.1%}",
             "AUROC": f"{above:.4f}"}
        )  # fmt: skip
    return rows


def curve(case: Case, parts: int) -> list[dict]:
    came = float((case.choice.probabilities.argmax(axis=1) == case.labels).mean())
    rng, numbers, rows = np.random.default_rng(1), np.unique(case.groups), []
    for share in (0.25, 0.35, 0.5, 0.7):
        found = []
        for _ in range(parts):
            rows_ = np.flatnonzero(np.isin(case.groups, rng.permutation(numbers)[: int(share * len(numbers))]))
            if len(np.unique(case.labels[rows_])) < 2:
                continue
            choice, labels, groups = case.learned(rows_)
            told = learning_curve(choice, labels, groups, more=len(case.labels) - len(rows_))
            if told is not None:
                low, high = told.expected.interval
                now = float((choice.probabilities.argmax(axis=1) == labels).mean())
                found.append([low <= came <= high, high - low, told.expected.accuracy - came, now - came])
        if found:
            values = np.array(found, float)
            rms = np.sqrt((values**2).mean(axis=0))
            rows.append(
                {**case.name, "learned from": f"{share:.0%} of groups", "parts": len(found), "came": f"{came:.1%}",
                 "interval holds it": f"{values[:, 0].mean():.0%}", "its width": f"{values[:, 1].mean():.1%}",
                 "expectation off by (mean)": f"{values[:, 2].mean():+.1%}", "(rms)": f"{rms[2]:.1%}",
                 "accuracy without more off by (rms)": f"{rms[3]:.1%}"}
            )  # fmt: skip
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--parts", type=int, default=25)
    parser.add_argument("--only", default="sets,calibration,foreign,curve")
    parser.add_argument("--backbone", default="", help="only backbones whose name holds this")
    given = parser.parse_args()
    all_cases, wanted = list(cases(given.backbone)), given.only.split(",")
    if "foreign" in wanted:
        pairs = [(a, b) for a in all_cases for b in all_cases if a.backbone == b.backbone and a.data != b.data]
        table([row for a, b in pairs for row in foreign(a, b)])
    if {"sets", "calibration"} & set(wanted):
        both = [sets_and_calibration(case, given.splits) for case in all_cases]
        table([row for rows, _ in both for row in rows])
        table([row for _, rows in both for row in rows])
    if "curve" in wanted:
        table([row for case in all_cases for row in curve(case, given.parts)])
