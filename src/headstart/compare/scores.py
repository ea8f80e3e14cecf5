"""How well heads on the features of one backbone predict the images of a group that was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.compare.variants import Variant, require_label_head
from headstart.heads.candidates import Candidate, ScoredCandidate
from headstart.heads.integers import AnyVectors
from headstart.heads.label_selection import SelectedLabels, select_labels
from headstart.heads.mlp import Log
from headstart.heads.selection import rank_candidates, rank_mlp, rank_tap_sets
from headstart.heads.training_set import TrainingSet, tap_sets
from headstart.splits.label_split import LabelSplit
from headstart.splits.split import Split
from headstart.stats.accuracy import Accuracy, leave_one_group_out_accuracy
from headstart.stats.label_metrics import Estimate, multi_label_metrics
from headstart.stats.label_thresholds import DEFAULT
from headstart.stats.platt import platt_targets

Vectors = Mapping[str, AnyVectors]
SMALLEST = 1e-12  # a probability, in a logarithm


@dataclass(frozen=True)
class Scored:
    """A head that is compared, its accuracy, or its mAP for several labels, and whether ``fit`` would cut there."""

    candidate: ScoredCandidate
    accuracy: Accuracy | Estimate
    fit_cut: bool


def score_heads(
    vectors: Vectors, split: Split | LabelSplit, variant: Variant, cuts: str, workers: int, log: Log
) -> list[Scored]:
    """Return the head that ``fit`` would choose on vectors by tap, or with ``cuts`` "all" that of each set of taps."""
    if isinstance(split, LabelSplit):
        return _score_labels(vectors, split, cuts, workers)
    training_set = TrainingSet.of(vectors, split.labels, split.groups.index)
    if variant.options.kind == "mlp":
        log(f"{variant.label}:")
        selected, _ = rank_mlp(training_set, variant.options, log)
        found = [selected]
    else:
        selected = rank_candidates(training_set, variant.options, workers=workers).average
        found = [*rank_tap_sets(training_set, workers=workers).values()] if cuts == "all" else [selected]
    return [
        Scored(
            one,
            leave_one_group_out_accuracy(one.scores.argmax(axis=1) == split.labels, split.groups.index),
            one.candidate.taps == selected.candidate.taps,
        )
        for one in found
    ]


def require_label_variants(variants: tuple[Variant, ...]) -> None:
    """Raise OptionError for heads that several labels cannot have."""
    for variant in variants:
        require_label_head(variant.options.kind, variant.options.dropout, variant.label)


def _score_labels(vectors: Vectors, split: LabelSplit, cuts: str, workers: int) -> list[Scored]:
    targets = split.targets
    training_set = TrainingSet.of(vectors, np.zeros(len(split.train), np.int64), targets.groups)
    chosen = select_labels(training_set, targets, workers=workers)
    found = [chosen]
    if cuts == "all":
        found = [select_labels(training_set, targets, taps, workers=workers) for taps in tap_sets(tuple(vectors))]
    return [_scored(one, split, chosen) for one in found]


def _scored(selected: SelectedLabels, split: LabelSplit, chosen: SelectedLabels) -> Scored:
    targets, head = split.targets, selected.head
    losses = label_losses(selected.probabilities, split)
    candidate = Candidate(head.taps, head.kind, "", head.settings, float(losses.mean()))
    probabilities = np.where(targets.known, selected.probabilities, 0.0)
    metrics = multi_label_metrics(
        probabilities, probabilities >= DEFAULT, targets.values, targets.known, split.names, targets.groups
    )
    scored = ScoredCandidate(candidate, losses, probabilities, None)
    return Scored(scored, metrics.mean_average_precision, head.taps == chosen.head.taps)


def label_losses(probabilities: NDArray[np.float64], split: LabelSplit) -> NDArray[np.float64]:
    """Return the log-loss [n] of held-out probabilities [n, k] by image; their mean is that of all cells.

    As for a head, the truth is smoothed (``platt_targets``). Cells that are not known count neither way: an image with
    fewer known cells counts so much less.
    """
    targets = split.targets
    smoothed = platt_targets(targets.values, targets.known, targets.groups)
    p = np.clip(np.where(targets.known, probabilities, 0.5), SMALLEST, 1 - SMALLEST)
    cells = -smoothed * np.log(p) - (1 - smoothed) * np.log1p(-p)
    losses: NDArray[np.float64] = np.where(targets.known, cells, 0.0).sum(axis=1) / targets.known.sum(axis=1).mean()
    return losses
