"""What a kind of head provides, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.statistics import Statistics

Array = NDArray[np.float64]
Labels = NDArray[np.integer]
Settings = Mapping[str, float | str]
Solution = tuple[Array, Array]  # weights [d, k] and bias [k]: ``x @ weights + bias`` are class scores


@dataclass(frozen=True)
class Targets:
    """What the images are to be classified as: labels [n] in 0..classes-1, and the group [n] of each image."""

    labels: Labels
    classes: int
    groups: Labels


@dataclass(frozen=True)
class LinearProblem:
    """What heads are solved for: n vectors in their basis, and the targets; computed once for all kinds and settings.

    ``counts`` [k] int64 and ``means`` [k, r] are of all images of each class. Held-out scores are wanted of ``rows``
    [m], ascending, which hold groups as a whole; ``points`` [m, r] are their coordinates, ``groups`` [m] their groups.
    """

    basis: Eigenbasis
    targets: Targets
    counts: NDArray[np.int64]
    means: Array
    rows: NDArray[np.int64]
    points: Array
    groups: Labels

    @classmethod
    def of(
        cls,
        basis: Eigenbasis,
        targets: Targets,
        rows: NDArray[np.integer] | None = None,
        class_sums: Array | None = None,
    ) -> LinearProblem:
        """Put it together; ``rows`` are all unless stated, ``class_sums`` [k, d] of the vectors, if they are known."""
        counts = np.bincount(targets.labels, minlength=targets.classes)
        means = basis.class_means(targets.labels, targets.classes, class_sums)
        return cls(basis, targets, counts, means, *_evaluated(basis, targets, rows))

    def at(self, rows: NDArray[np.integer]) -> LinearProblem:
        """Return the same problem with held-out scores wanted of other rows."""
        return LinearProblem(
            self.basis, self.targets, self.counts, self.means, *_evaluated(self.basis, self.targets, rows)
        )

    @property
    def labels(self) -> Labels:
        """The labels [m] of the rows of which held-out scores are wanted."""
        return self.targets.labels[self.rows]


def _evaluated(
    basis: Eigenbasis, targets: Targets, rows: NDArray[np.integer] | None
) -> tuple[NDArray[np.int64], Array, Labels]:
    index = np.arange(len(targets.labels)) if rows is None else np.asarray(rows, np.int64)
    return index, basis.project(slice(None) if rows is None else index), targets.groups[index]


@dataclass(frozen=True)
class HeadKind:
    """One kind of linear head.

    ``grid`` lists the settings to try. ``held_out(problem, settings)`` gives the scores [p, m, k] of each of p settings
    for the m rows of the problem when their group is left out; ``solve(problem, settings)`` the solution from all
    images, on the vectors of the basis. ``solve_statistics(statistics, settings, basis)`` gives the solution from the
    statistics of part of the images' coordinates, with the same regularisation; None for a kind without closed form.
    """

    name: str
    grid: tuple[Settings, ...]
    held_out: Callable[[LinearProblem, Sequence[Settings]], Array]
    solve: Callable[[LinearProblem, Settings], Solution]
    solve_statistics: Callable[[Statistics, Settings, Eigenbasis], Solution] | None
