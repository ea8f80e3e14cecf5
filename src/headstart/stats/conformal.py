"""Prediction sets with a target coverage, and rejection with a target false-rejection rate.

Both thresholds are quantiles of what held-out groups of training images scored (conformal prediction: Vovk, Gammerman
& Shafer 2005; held out by cross-fitting: Barber et al. 2021). The targets hold for an image of a new group - a new
scene, a new subject - drawn as the groups at hand were, whatever the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError
from headstart.stats.accuracy import equal_groups

Array = NDArray[np.float64]
NOT_MEASURED = (
    "This model was made of statistics alone: its accuracy, temperature, prediction sets, rejection, groups and "
    "learning curve are not measured. headstart evaluate measures its accuracy on labelled images it has not seen."
)


@dataclass(frozen=True)
class ConformalThresholds:
    """Targets for new images and the thresholds that meet them.

    A class is in an image's prediction set where its probability is at least its number in ``set_thresholds`` [k]; the
    set then holds the true class of a share ``coverage`` of images. An image whose OOD score is above
    ``reject_threshold`` is rejected as none of the classes; that happens to a share ``false_alarms`` of images that do
    belong to a class. A set threshold of 0 and a reject threshold of infinity mean that there are too few groups to
    meet the target otherwise. Where nothing was measured, ``is_measured`` is false, and the thresholds are these two.
    """

    coverage: float
    set_thresholds: tuple[float, ...]
    false_alarms: float
    reject_threshold: float
    is_measured: bool = True

    @classmethod
    def not_measured(cls, coverage: float, classes: int, false_alarms: float) -> ConformalThresholds:
        """Return the thresholds of a model for which none could be measured."""
        return cls(coverage, (0.0,) * classes, false_alarms, float("inf"), is_measured=False)

    def sets(self, probabilities: Array) -> NDArray[np.bool_]:
        """Return which classes [n, k] are in the prediction set of each image; the most probable one always is."""
        members: NDArray[np.bool_] = probabilities >= np.array(self.set_thresholds)
        members[np.arange(len(members)), probabilities.argmax(axis=1)] = True
        return members

    def rejects(self, ood_scores: Array) -> NDArray[np.bool_]:
        """Return which images [n] are rejected as none of the classes."""
        rejected: NDArray[np.bool_] = ood_scores > self.reject_threshold
        return rejected

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form, which has no infinity: a reject threshold of None rejects nothing."""
        reject = self.reject_threshold
        return {
            "coverage": self.coverage,
            "set_thresholds": list(self.set_thresholds),
            "false_alarms": self.false_alarms,
            "reject_threshold": reject if np.isfinite(reject) else None,
            **({} if self.is_measured else {"measured": False}),
        }


def check_targets(coverage: float, false_alarms: float) -> None:
    """Raise OptionError for targets that cannot be met."""
    if not 0 < coverage < 1:
        raise OptionError(f"A target coverage of {coverage} cannot be met; give a share between 0 and 1, like 0.95.")
    if not 0 <= false_alarms < 1:
        raise OptionError(
            f"A false-rejection rate of {false_alarms} cannot be used; "
            "give a share from 0 (reject nothing) up to 1, like 0.05."
        )


def groups_needed(share: float) -> int:
    """Return how many groups it takes to meet a target ``share``: fewer have no quantile that high."""
    return int(np.ceil(share / (1 - share) - 1e-9))


def effective_groups(groups: NDArray[np.integer]) -> float:
    """Return how many groups of equal size tell as much as these groups [n] of images."""
    return equal_groups(np.unique(groups, return_counts=True)[1].astype(np.float64))


def group_quantile(values: Array, groups: NDArray[np.integer], share: float) -> float:
    """Return the smallest of ``values`` [n] that an image of a new group does not exceed with probability ``share``.

    The new group could have any value and the size of the others, so it weighs 1 in (groups + 1): images of one group
    count for less than as many images of different groups (Dunn, Wasserman & Ramdas 2022). Infinity where there are too
    few groups. Exact for groups of similar size; where ``effective_groups`` are fewer than the groups needed, a new
    group may be one of the few large ones, and the share is missed by some points.
    """
    count = len(np.unique(groups))
    rank = int(np.ceil(share * (count + 1) / count * len(values) - 1e-9))
    return float(np.sort(values)[max(rank, 1) - 1]) if rank <= len(values) else float("inf")


def fit_thresholds(
    probabilities: Array,
    labels: NDArray[np.integer],
    groups: NDArray[np.integer],
    ood_scores: Array,
    *,
    coverage: float,
    false_alarms: float,
) -> ConformalThresholds:
    """Fit thresholds to the probabilities [n, k] and OOD scores [n] of images [n] whose group was left out.

    The threshold on the probability of the true class gives the smallest sets there are (Sadinle, Lei & Wasserman
    2019). A class with twice the groups needed has a threshold of its own, so that it meets the target by itself (Vovk
    2012); the other classes share one. Raises OptionError.
    """
    check_targets(coverage, false_alarms)
    true_probabilities = probabilities[np.arange(len(labels)), labels]
    needed = 2 * groups_needed(coverage)
    classes = probabilities.shape[1]
    has_own = np.array([len(np.unique(groups[labels == c])) >= needed for c in range(classes)])
    pooled = ~has_own[labels]
    if len(np.unique(groups[pooled])) < needed:
        pooled = np.ones(len(labels), bool)
    thresholds = []
    for c in range(classes):
        rows = labels == c if has_own[c] else pooled
        thresholds.append(max(0.0, -group_quantile(-true_probabilities[rows], groups[rows], coverage)))
    reject = group_quantile(ood_scores, groups, 1 - false_alarms)
    return ConformalThresholds(coverage, tuple(thresholds), false_alarms, reject)
