"""Target against measured: coverage, false rejections, calibration, OOD detection, the learning curve.

    python benchmarks/uncertainty.py [--splits 200] [--parts 25] [--only sets,calibration,ood,curve]
                                     [--backbone headstart-m]

Features are computed once (and kept in the cache); everything after is closed form. ``sets`` and ``calibration``: from
a random half of the groups head, temperature and thresholds are fitted, as a fit to those images would do it, and
evaluated on the other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from measure import mobilenetv2, print_table, shared

from headstart import backbones, open_dataset
from headstart.data import concatenate
from headstart.features import FeatureCache, embed
from headstart.heads.head import Head, softmax
from headstart.heads.learning_curve import learning_curve
from headstart.heads.selection import SelectedHead, rank_candidates, select_head
from headstart.heads.training_set import TrainingSet
from headstart.splits.split import split_features
from headstart.stats.conformal import fit_thresholds, group_quantile

PARTS = ("sets", "calibration", "ood", "curve")
DATASETS = ("ants-bees", "horse-or-human")
COVERAGE, FALSE_ALARMS = 0.95, 0.05  # targets
BINS = 15  # of the calibration error
SHARES = (0.25, 0.35, 0.5, 0.7)  # of the groups, for the learning curve
Row = dict[str, object]


@dataclass(frozen=True)
class Case:
    """A dataset's features by one backbone, and the head that ``fit`` selects for it.

    ``values`` and ``labels``, ``groups``, ``scenes`` [n] are of the training images, ``validation_values`` and
    ``validation_labels`` of the validation images. ``scenes`` are what is split into halves.
    """

    backbone: str
    data: str
    values: dict[str, np.ndarray]
    labels: np.ndarray
    groups: np.ndarray
    scenes: np.ndarray
    validation_values: dict[str, np.ndarray]
    validation_labels: np.ndarray
    selected: SelectedHead

    @property
    def name(self) -> Row:
        """The first columns of its rows."""
        return {"backbone": self.backbone, "dataset": self.data}

    @property
    def head(self) -> Head:
        """The selected head."""
        return self.selected.head

    def matrix(self, values: dict[str, np.ndarray], head: Head | None = None) -> np.ndarray:
        """Return the taps of a head, the selected one unless stated, side by side, float32."""
        return np.concatenate([np.asarray(values[tap], np.float32) for tap in (head or self.head).taps], axis=1)


def cases(name: str) -> Iterator[Case]:
    """Yield every dataset by every backbone whose id contains ``name``."""
    for backbone_id in ("headstart-m", "headstart-s", mobilenetv2()):
        if name in backbone_id:
            for data in DATASETS:
                yield load_case(backbone_id, data)


def load_case(backbone_id: str, data: str) -> Case:
    """Compute the features of a dataset and select a head."""
    dataset = open_dataset(shared() / "data" / data)
    images = concatenate(dataset.split("train"), dataset.split("validation"))
    with FeatureCache() as cache:
        features = embed(images, backbones.load(backbone_id), cache=cache)
    split = split_features(features, images)
    values = features.vectors(split.train)
    labels, groups = split.labels, split.groups.index
    items = [images.items[i] for i in features.index]
    scenes = groups
    if data == "horse-or-human":  # scenes as the makers of the data named them: horse01-0.jpg
        names = [items[row].path.rsplit("/", 1)[-1].split("-")[0] for row in split.train]
        scenes = np.unique(names, return_inverse=True)[1]
    return Case(
        backbone_id.rsplit("/", 1)[-1].removesuffix(".onnx"),
        data,
        values,
        labels,
        groups,
        scenes,
        features.vectors(split.validation),
        np.array([split.classes.index(str(items[row].label)) for row in split.validation]),
        select_head(TrainingSet.of(values, labels, groups)),
    )


def halves(case: Case, splits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows to fit to and rows to evaluate on; scenes stay whole, and both classes are fitted to."""
    generator = np.random.default_rng(0)
    scenes = np.unique(case.scenes)
    for _ in range(splits):
        is_fitted = np.isin(case.scenes, generator.permutation(scenes)[: len(scenes) // 2])
        if len(np.unique(case.labels[is_fitted])) == 2:
            yield np.flatnonzero(is_fitted), np.flatnonzero(~is_fitted)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, adaptive: bool) -> float:
    """Return the mean distance between confidence and accuracy over 15 bins.

    The bins have the same width (Guo et al. 2017), or with ``adaptive`` the same number of images.
    """
    confidence, is_correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    if adaptive:
        bins = np.argsort(np.argsort(confidence, kind="stable")) * BINS // len(confidence)
    else:
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    expected = np.bincount(bins, weights=confidence, minlength=BINS)
    correct = np.bincount(bins, weights=is_correct, minlength=BINS)
    return float(np.abs(expected - correct).sum() / len(labels))


def calibration(scores: np.ndarray, temperature: float, labels: np.ndarray) -> np.ndarray:
    """Return the calibration error, the adaptive one, and the log-loss [3] at a temperature."""
    probabilities = softmax(scores.astype(np.float64) / temperature)
    true_probabilities = np.maximum(probabilities[np.arange(len(labels)), labels], 1e-15)
    return np.array(
        [
            calibration_error(probabilities, labels, adaptive=False),
            calibration_error(probabilities, labels, adaptive=True),
            -np.log(true_probabilities).mean(),
        ]
    )


@dataclass(frozen=True)
class HalfResult:
    """What was measured on the half that the head was not fitted to; each is a mean over its images.

    ``above_threshold`` and ``in_set`` are shares of images whose class is above its threshold, and in the prediction
    set (which always has the most probable class). ``uncalibrated`` and ``calibrated`` [3] are those of
    ``calibration``.
    """

    above_threshold: float
    in_set: float
    set_size: float
    rejected: float
    accuracy: float
    uncalibrated: np.ndarray
    calibrated: np.ndarray


def evaluate_half(case: Case, fitted: np.ndarray, held_out: np.ndarray) -> HalfResult:
    """Fit head, temperature and thresholds to the rows ``fitted``, and evaluate them on ``held_out``."""
    labels = case.labels[held_out]
    selected, fitted_labels, fitted_groups = select_on_part(case, fitted)
    thresholds = fit_thresholds(
        selected.probabilities,
        fitted_labels,
        fitted_groups,
        selected.ood_scores,
        coverage=COVERAGE,
        false_alarms=FALSE_ALARMS,
    )
    head = selected.head
    x = case.matrix({tap: vectors[held_out] for tap, vectors in case.values.items()}, head)
    scores, probabilities = head.scores(x), head.probabilities(x)
    rows = np.arange(len(held_out))
    sets = thresholds.sets(probabilities)
    is_above = probabilities >= np.array(thresholds.set_thresholds)
    return HalfResult(
        is_above[rows, labels].mean(),
        sets[rows, labels].mean(),
        sets.sum(axis=1).mean(),
        thresholds.rejects(selected.ood.scores(x)).mean(),
        (probabilities.argmax(axis=1) == labels).mean(),
        calibration(scores, 1, labels),
        calibration(scores, head.temperature, labels),
    )


def coverage_row(case: Case, results: list[HalfResult]) -> Row:
    """Return the row of coverage and false rejections."""

    def mean_and_spread(name: str) -> str:
        values = [getattr(result, name) for result in results]
        return f"{np.mean(values):.1%} ± {np.std(values):.1%}"

    return {
        **case.name,
        "splits of": "scenes by name" if case.data == "horse-or-human" else "groups found",
        "splits": len(results),
        "accuracy": f"{np.mean([result.accuracy for result in results]):.1%}",
        "above the threshold": mean_and_spread("above_threshold"),
        "in the set": mean_and_spread("in_set"),
        "target coverage": f"{COVERAGE:.0%}",
        "classes in a set": f"{np.mean([result.set_size for result in results]):.2f}",
        "rejected": mean_and_spread("rejected"),
        "target at most": f"{FALSE_ALARMS:.0%}",
    }


def calibration_rows(case: Case, results: list[HalfResult]) -> list[Row]:
    """Return the rows of calibration, before and after temperature scaling: on validation images, and on the halves."""
    head, labels = case.head, case.validation_labels
    scores = head.scores(case.matrix(case.validation_values))
    measured = {
        "validation": (calibration(scores, 1, labels), calibration(scores, head.temperature, labels)),
        f"{len(results)} splits": (
            np.mean([result.uncalibrated for result in results], axis=0),
            np.mean([result.calibrated for result in results], axis=0),
        ),
    }
    rows = []
    for images, (before, after) in measured.items():
        names = ("ECE", "adaptive ECE", "log-loss")
        change = {name: f"{a:.3f} to {b:.3f}" for name, a, b in zip(names, before, after, strict=True)}
        rows.append({**case.name, "head": head.kind, "measured on": images, **change})
    return rows


def ood_rows(case: Case, other: Case) -> list[Row]:
    """Return how well three scores tell the images of ``other`` from validation images; more is less familiar."""
    selected, head = case.selected, case.head
    known = case.matrix(case.validation_values)
    unknown = np.concatenate([case.matrix(other.values), case.matrix(other.validation_values)])

    def energy(scores: np.ndarray) -> np.ndarray:
        scaled = scores.astype(np.float64) / head.temperature
        top = scaled.max(axis=1)
        return -top - np.log(np.exp(scaled - top[:, None]).sum(axis=1))

    left_out_scores = rank_candidates(TrainingSet.of(case.values, case.labels, case.groups)).average.scores
    methods: dict[str, tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]] = {
        "OOD score": (selected.ood_scores, selected.ood.scores),
        "maximum softmax": (
            -selected.probabilities.max(axis=1),
            lambda x: -head.probabilities(x).max(axis=1),
        ),
        "energy": (energy(left_out_scores), lambda x: energy(head.scores(x))),
    }
    rows = []
    for name, (left_out, score) in methods.items():
        threshold = group_quantile(left_out, case.groups, 1 - FALSE_ALARMS)
        of_known, of_unknown = score(known), score(unknown)
        is_above = of_unknown[:, None] > of_known[None]
        is_equal = of_unknown[:, None] == of_known[None]
        rows.append(
            {
                **case.name,
                "unknown images": other.data,
                "score": name,
                "false rejections (validation)": _share(of_known > threshold),
                "OOD recall": _share(of_unknown > threshold),
                "AUROC": f"{np.mean(is_above) + 0.5 * np.mean(is_equal):.4f}",
            }
        )
    return rows


def _share(selected: np.ndarray) -> str:
    return f"{selected.sum()}/{len(selected)} = {selected.mean():.1%}"


def select_on_part(case: Case, rows: np.ndarray) -> tuple[SelectedHead, np.ndarray, np.ndarray]:
    """Select a head on some of the images; return it with their labels and groups."""
    labels, groups = case.labels[rows], np.unique(case.groups[rows], return_inverse=True)[1]
    values = {tap: vectors[rows] for tap, vectors in case.values.items()}
    return select_head(TrainingSet.of(values, labels, groups)), labels, groups


def curve_rows(case: Case, parts: int) -> list[Row]:
    """Return how well the learning curve of a part of the groups foretells the accuracy of all."""
    final_accuracy = float((case.selected.probabilities.argmax(axis=1) == case.labels).mean())
    generator, groups = np.random.default_rng(1), np.unique(case.groups)
    rows = []
    for share in SHARES:
        measured = []
        for _ in range(parts):
            part = np.isin(case.groups, generator.permutation(groups)[: int(share * len(groups))])
            if len(np.unique(case.labels[part])) < 2:
                continue
            selected, labels, part_groups = select_on_part(case, np.flatnonzero(part))
            curve = learning_curve(selected, labels, part_groups, more=len(case.labels) - len(labels))
            if curve is None:
                continue
            low, high = curve.expected.interval
            accuracy_now = float((selected.probabilities.argmax(axis=1) == labels).mean())
            measured.append(
                [
                    low <= final_accuracy <= high,
                    high - low,
                    curve.expected.accuracy - final_accuracy,
                    accuracy_now - final_accuracy,
                ]
            )
        if measured:
            values = np.array(measured, float)
            holds, width, error, _ = values.mean(axis=0)
            _, _, rms_error, rms_without = np.sqrt((values**2).mean(axis=0))
            rows.append(
                {
                    **case.name,
                    "fitted to": f"{share:.0%} of groups",
                    "parts": len(measured),
                    "final accuracy": f"{final_accuracy:.1%}",
                    "in the interval": f"{holds:.0%}",
                    "width of the interval": f"{width:.1%}",
                    "mean error of the expectation": f"{error:+.1%}",
                    "RMS error": f"{rms_error:.1%}",
                    "RMS error of the accuracy so far": f"{rms_without:.1%}",
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--parts", type=int, default=25)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--backbone", default="", help="only backbones whose id contains this")
    arguments = parser.parse_args()
    all_cases, only = list(cases(arguments.backbone)), arguments.only.split(",")
    if "ood" in only:
        pairs = [(a, b) for a in all_cases for b in all_cases if a.backbone == b.backbone and a.data != b.data]
        print_table([row for case, other in pairs for row in ood_rows(case, other)])
    if {"sets", "calibration"} & set(only):
        results = [[evaluate_half(case, *half) for half in halves(case, arguments.splits)] for case in all_cases]
        print_table([coverage_row(case, measured) for case, measured in zip(all_cases, results, strict=True)])
        print_table(
            [row for case, measured in zip(all_cases, results, strict=True) for row in calibration_rows(case, measured)]
        )
    if "curve" in only:
        print_table([row for case in all_cases for row in curve_rows(case, arguments.parts)])


if __name__ == "__main__":
    main()
