"""How far a picture is from all that was learned: the share of it that the training pictures do not explain.

A picture's vector differs from the mean of the training pictures by some length. Ridge explains a part of that by
the directions in which the training pictures themselves vary; the distance is the share, 0 to 1, that is left. With
the penalty it is a Mahalanobis distance (Lee et al. 2018) over the plain one, so that a picture's contrast does not
count; a direction that holds less than PENALTY of all variation counts as mostly unexplained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.held_out import Basis, group_batches, refits
from headstart.heads.solve import raised

Array = NDArray[np.float64]
PENALTY = 0.003  # of the training pictures' whole spread
LEAST = 0.05  # directions of which less than this share is explained are left out: they are many and change nothing
TINY = 1e-9  # of a mean squared length of about 1: a picture that is the mean itself has distance 1


@dataclass(frozen=True)
class Familiar:
    """What the training pictures vary in.

    For vectors x [n, d] let ``y = (x - centre) * scales``; the distance is ``1 - |y @ factor|^2 / |y|^2``.
    ``centre`` and ``scales`` [d] are float32, ``factor`` [d, q] float16.
    """

    centre: NDArray[np.float32]
    scales: NDArray[np.float32]
    factor: NDArray[np.float16]

    def distances(self, x: NDArray[np.floating]) -> Array:
        """Distances [n], 0 to 1, of vectors [n, d] of the head's taps side by side."""
        y = (np.asarray(x, np.float32) - self.centre) * self.scales
        explained = (y @ self.factor.astype(np.float32)).astype(np.float64)
        whole = (y.astype(np.float64) ** 2).sum(axis=1)
        left: Array = np.maximum(0, 1 - (explained**2).sum(axis=1) / (whole + TINY))
        return left


def familiar(basis: Basis) -> Familiar:
    """From the basis of the training vectors."""
    explained = basis.spread / (basis.spread + PENALTY * basis.spread.sum())
    count = max(1, int((explained >= LEAST).sum()))  # ONNX has no matrix without columns
    # Directions are in the order of their spread: those of which enough is explained are the last.
    basis, explained, scales = basis.widest(count), explained[-count:], basis.vectors.scales
    inner = np.eye(len(explained), count) * np.sqrt(np.where(explained >= LEAST, explained, 0))[:, None]
    return Familiar(
        (basis.mean / scales).astype(np.float32), scales.astype(np.float32), basis.weights(inner).astype(np.float16)
    )


def held_out_distances(basis: Basis, groups: NDArray[np.integer]) -> Array:
    """The distance [n] of every picture when its group is left out, but for large groups without refitting.

    With the smoother H of all pictures, an intercept among its directions, that of the others gives the group the
    products ``H_GG (I - H_GG)^-1``; 1/(those left) of that is the intercept's.
    """
    count = len(basis)
    penalty = PENALTY * float(basis.spread.sum())
    found = np.ones(count)
    if penalty == 0:
        return found
    for rows in group_batches(groups, basis):
        size = rows.shape[1]
        if size == count:
            continue
        points = basis.at(rows)
        hat = (points / (basis.spread + penalty)) @ points.transpose(0, 2, 1) + 1 / count
        without = np.linalg.solve(np.eye(size) - hat, hat)
        unexplained = penalty * (np.diagonal(without, axis1=1, axis2=2) - 1 / (count - size))
        away = points + points.sum(axis=1, keepdims=True) / (count - size)
        found[rows] = unexplained / ((away**2).sum(axis=2) + TINY)
    for blocks, others in refits(groups, basis, np.zeros(count, np.int64), 1):
        inverse = np.linalg.inv(raised(others.scatter, penalty))
        for some in blocks:
            away = basis.at(some) - others.mean
            found[some] = penalty * ((away @ inverse) * away).sum(axis=1) / ((away**2).sum(axis=1) + TINY)
    return found
