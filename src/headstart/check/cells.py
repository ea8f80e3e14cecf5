"""Label issues where images have several labels: cells, each an image and a label, that are probably wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.check.finding import MISSING, WRONG, Finding
from headstart.data import Dataset
from headstart.data.label_sets import label_matrix
from headstart.features import Features
from headstart.heads.label_ridge import LabelTargets
from headstart.heads.label_selection import select_labels
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas

# Of suspects that are likely: chosen on seed 100 of benchmarks/label_issues_multi.py, which shows other seeds.
MIN_SHARE = 0.9  # of the images with a label that are found, and of those it is said of that have it
MIN_RATIO = 0.05  # of sure to doubtful contradictions, in the unit of that of agreements
MAX_NAMED = 3  # labels in a note


@dataclass(frozen=True)
class SuspectCells:
    """Which cells of n images and k labels are suspect, and of those which are likely to be wrong: both [n, k].

    ``found`` [k] is the share of the images with a label that are found, ``precise`` [k] that of the images it is said
    of that have it: a label is recognised where both are ``MIN_SHARE``, and has likely suspects only there.
    """

    is_suspect: NDArray[np.bool_]
    is_likely: NDArray[np.bool_]
    found: NDArray[np.float64]
    precise: NDArray[np.float64]


def find_cell_issues(
    dataset: Dataset, features: Features, groups: NDArray[np.int64], workers: int = 1
) -> tuple[list[Finding], dict[str, tuple[float, float]]]:
    """Find cells that are probably wrong, by a head on the deepest tap, evaluated by leave-one-group-out.

    Labels that all images have, or none, and those that are not known of too many images have no suspects; nor has a
    dataset of one group. Also returns, by label, the share of the images with it that are found and that of the images
    predicted to have it that do, 0 to 1.
    """
    items = [dataset.items[i] for i in features.index]
    rows = np.array([i for i, item in enumerate(items) if item.labels is not None], np.int64)
    values, known = label_matrix([items[i] for i in rows], dataset.label_names)
    targets = LabelTargets(values, known, groups[rows])
    has_both = (values & known).any(axis=0) & (~values & known).any(axis=0)
    chosen = np.flatnonzero(has_both & ~targets.is_too_unknown)
    if not len(chosen) or len(np.unique(targets.groups)) < 2:  # nothing to learn from, or to hold out
        return [], {}
    targets = LabelTargets(values[:, chosen], known[:, chosen], targets.groups)
    tap = features.deepest_tap
    training_set = TrainingSet.of({tap: features.vectors(rows)[tap]}, np.zeros(len(rows), np.int64), targets.groups)
    with single_threaded_blas():
        probabilities = select_labels(training_set, targets, workers=workers).probabilities
    names = [dataset.label_names[c] for c in chosen]
    suspects = suspect_cells(targets.values, targets.known, probabilities)
    findings = _findings([items[i].path for i in rows], names, targets, probabilities, suspects)
    shares = zip(suspects.found.tolist(), suspects.precise.tolist(), strict=True)
    return [*findings], dict(zip(names, shares, strict=True))


def not_recognised(findings: Iterable[Finding], recognised: Mapping[str, tuple[float, float]]) -> list[str]:
    """Say for which labels of the findings, the worst first, these are possible at most: the model knows them badly.

    ``recognised`` are the shares that ``find_cell_issues`` returns.
    """
    labels = {finding.suggested_label for finding in findings}
    weak = sorted((name for name in labels if min(recognised[name]) < MIN_SHARE), key=lambda n: min(recognised[n]))
    if not weak:
        return []
    parts = [
        f"{name} ({_percent(recognised[name][0])} of its images are found, {_percent(recognised[name][1])} of those "
        "predicted to have it do)"
        if recognised[name][0]
        else f"{name} (none of its images is found)"
        for name in weak[:MAX_NAMED]
    ]
    more = f" and {len(weak) - MAX_NAMED} more" if len(weak) > MAX_NAMED else ""
    which = "one label" if len(weak) == 1 else f"{len(weak)} labels"
    return [
        f"Findings for {which} are only possible, never likely, since images that the model cannot tell apart look "
        f"like wrong labels. Not well recognised: {', '.join(parts)}{more}."
    ]


def _percent(share: float) -> str:
    """Return a share that is never said to be more than it is."""
    return f"{math.floor(100 * share)}%"


def cell_issues(
    paths: Sequence[str], names: Sequence[str], targets: LabelTargets, probabilities: NDArray[np.float64]
) -> Iterator[Finding]:
    """Yield the suspect cells by probabilities [n, k] of heads that were not trained on the image's group."""
    yield from _findings(
        paths, names, targets, probabilities, suspect_cells(targets.values, targets.known, probabilities)
    )


def _findings(
    paths: Sequence[str],
    names: Sequence[str],
    targets: LabelTargets,
    probabilities: NDArray[np.float64],
    suspects: SuspectCells,
) -> Iterator[Finding]:
    for i, c in np.argwhere(suspects.is_suspect):
        name, probability, holds = names[c], float(probabilities[i, c]), bool(targets.values[i, c])
        state, action = (WRONG, f"remove {name}?") if holds else (MISSING, f"add {name}?")
        certainty, verb = ("likely", "is probably") if suspects.is_likely[i, c] else ("possible", "may be")
        why = f"{name} {verb} {state} here: predicted with probability {probability:.0%}"
        confidence = abs(2 * probability - 1)
        yield Finding("label_issue", (paths[i],), certainty, confidence, f"review: {action}", why, name, state)


def suspect_cells(
    values: NDArray[np.bool_], known: NDArray[np.bool_], probabilities: NDArray[np.float64]
) -> SuspectCells:
    """Find wrong cells by confident learning of each label by itself, as of two classes: it holds, or it does not.

    ``values`` [n, k] say which labels hold, where ``known`` [n, k]. As in ``labels.confident_learning`` a cell is
    suspect if the other class is the more probable one, and at least as probable as on average of its own images.

    It is likely to be wrong where the label is well recognised: a share of MIN_SHARE of the images with it are found,
    and of those it is said of have it. And the sure contradictions must not be a mere tail of doubtful ones: images
    that are hard are doubtful in most cases, wrong cells as sure as right ones. The ratio of sure to doubtful
    contradictions is to be MIN_RATIO of the same ratio of the cells that agree.
    """
    is_suspect, is_likely = np.zeros_like(values), np.zeros_like(values)
    said = np.where(known, probabilities, 0.0) >= 0.5
    right = (said & values & known).sum(axis=0)
    found, precise = (right / np.maximum((other & known).sum(axis=0), 1) for other in (values, said))
    is_recognised = np.minimum(found, precise) >= MIN_SHARE
    for of_class in (True, False):
        has = known & (values == of_class)  # the images of the class, and of the other one
        other = known & (values != of_class)
        chance = np.where(known, probabilities if of_class else 1 - probabilities, 0.0)
        mean = chance.sum(axis=0, where=has) / np.maximum(has.sum(axis=0), 1)
        is_sure, is_said = chance >= np.maximum(mean, 0.5), chance > 0.5
        suspects = other & is_sure & is_said
        ratios = (
            ((of & is_sure).sum(axis=0) + 0.5) / ((of & is_said & ~is_sure).sum(axis=0) + 0.5) for of in (other, has)
        )
        contradicting, agreeing = ratios
        is_suspect |= suspects
        is_likely |= suspects & is_recognised & (contradicting >= MIN_RATIO * agreeing)
    return SuspectCells(is_suspect, is_likely, found, precise)
