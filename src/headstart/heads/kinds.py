"""What a kind of head provides."""

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
class HeadKind:
    """One kind of linear head.

    ``grid`` lists the settings to try. ``held_out(basis, targets, settings)`` gives the scores [p, n, k] of each of p
    settings for every image when its group is left out; ``solve(basis, targets, settings)`` the solution from all
    images, on the vectors of the basis. ``solve_statistics(statistics, settings, basis)`` gives the solution from the
    statistics of part of the images' coordinates, with the same regularisation; None for a kind without closed form.
    """

    name: str
    grid: tuple[Settings, ...]
    held_out: Callable[[Eigenbasis, Targets, Sequence[Settings]], Array]
    solve: Callable[[Eigenbasis, Targets, Settings], Solution]
    solve_statistics: Callable[[Statistics, Settings, Eigenbasis], Solution] | None
