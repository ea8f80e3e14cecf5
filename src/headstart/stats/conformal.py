"""ConformalThresholds about new pictures: a set of classes that holds the true one, and a refusal that is seldom wrong.

Both are quantiles of what groups left out of training scored (conformal prediction: Vovk, Gammerman & Shafer 2005;
left out by cross-fitting: Barber et al. 2021). They hold for a picture of a new group - a new scene, a new subject -
drawn as the groups at hand were, however the head came about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ConformalThresholds:
    """What is promised of new pictures, and the thresholds that keep it.

    A class is in a picture's set where its probability is at least its number in ``set_thresholds`` [k]; the set
    then holds the true class of a share ``coverage`` of pictures. A picture whose distance is above
    ``reject_threshold`` is none of the classes; that is so of a share ``false_alarms`` of pictures that are one.
    A threshold of 0, and a distance of infinity, stand for groups too few to promise anything.
    """

    coverage: float
    set_thresholds: tuple[float, ...]
    false_alarms: float
    reject_threshold: float

    def sets(self, probabilities: Array) -> NDArray[np.bool_]:
        """Which classes [n, k] are in the set of each picture; the most probable one always is."""
        members: NDArray[np.bool_] = probabilities >= np.array(self.set_thresholds)
        members[np.arange(len(members)), probabilities.argmax(axis=1)] = True
        return members

    def none_of_these(self, distances: Array) -> NDArray[np.bool_]:
        """Which pictures [n] are too far from all that was learned."""
        refused: NDArray[np.bool_] = distances > self.reject_threshold
        return refused


def check_targets(coverage: float, false_alarms: float) -> None:
    """Raises OptionError for shares that nobody can promise."""
    if not 0 < coverage < 1:
        raise OptionError(f"A coverage of {coverage} cannot be promised; give a share between 0 and 1, like 0.95.")
    if not 0 <= false_alarms < 1:
        raise OptionError(
            f"A share of {false_alarms} false alarms cannot be used; give one from 0 (refuse none) up to 1, like 0.05."
        )


def groups_needed(share: float) -> int:
    """How many groups it takes to promise a ``share``: fewer have no quantile that high."""
    return int(np.ceil(share / (1 - share) - 1e-9))


def group_quantile(values: Array, groups: NDArray[np.integer], share: float) -> float:
    """The smallest of ``values`` [n] that a picture of a new group stays at or below with probability ``share``.

    The new group could be of any value and of the size of the others, so it weighs 1 in (groups + 1), which is where
    pictures of one group count for less than as many of different ones (Dunn, Wasserman & Ramdas 2022).
    Infinity where there are too few groups.
    """
    number = len(np.unique(groups))
    place = int(np.ceil(share * (number + 1) / number * len(values) - 1e-9))
    return float(np.sort(values)[max(place, 1) - 1]) if place <= len(values) else float("inf")


def fit_thresholds(
    probabilities: Array,
    labels: NDArray[np.integer],
    groups: NDArray[np.integer],
    distances: Array,
    *,
    coverage: float,
    false_alarms: float,
) -> ConformalThresholds:
    """Thresholds from the probabilities [n, k] and distances [n] of pictures [n] whose group was left out.

    A class is in the set where its probability is high enough for a picture that is of it (Sadinle, Lei &
    Wasserman 2019, the smallest sets there are). A class of twice the groups needed has a threshold of its own, so
    that the promise holds for it by itself (Vovk 2012); the others share one. Raises OptionError.
    """
    check_targets(coverage, false_alarms)
    own = probabilities[np.arange(len(labels)), labels]
    needed = 2 * groups_needed(coverage)
    classes = probabilities.shape[1]
    enough = np.array([len(np.unique(groups[labels == c])) >= needed for c in range(classes)])
    pooled = ~enough[labels]
    if len(np.unique(groups[pooled])) < needed:
        pooled = np.ones(len(labels), bool)
    thresholds = [
        max(0.0, -group_quantile(-own[these], groups[these], coverage))
        for c in range(classes)
        for these in [labels == c if enough[c] else pooled]
    ]
    reject = group_quantile(distances, groups, 1 - false_alarms)
    return ConformalThresholds(coverage, tuple(thresholds), false_alarms, reject)
