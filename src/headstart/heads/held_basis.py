"""Held-out scores while labels change and images come and go, without a new eigenbasis.

The basis of the images that were there first is held, with its scaling and penalty. Another label changes class counts
and means alone. An image that is added, or taken away, changes the scatter matrix by the outer product of its
coordinates, and its centre by one more; the inverse follows from the Woodbury identity. Its symmetric core is
diagonalised, so that products under the changed inverse are again sums over coordinates with one weight each:

    <x, y> = sum_i x_i y_i / (eigenvalue_i + penalty) - sum_j s_j (x W_j) (y W_j)

The closed forms of leave-one-group-out then hold as they are, on coordinates with those columns ``x W`` behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.integers import AnyVectors
from headstart.heads.kinds import Array, LinearProblem, Targets
from headstart.heads.lda import closed_form_lda
from headstart.heads.ridge import closed_form_ridge
from headstart.heads.vectors import Vectors, one_hot

CLOSED_FORMS = {"ridge": closed_form_ridge, "lda": closed_form_lda}
NEW_DIRECTION = 1e-10  # times the largest eigenvalue: the squared length below which a vector brings no new direction


@dataclass(frozen=True)
class HeldBasis:
    """Coordinates ``points`` [n, r] of images in a basis; the first ``first`` of them are those that it was made of.

    Those are centred and have the scatter ``eigenvalues`` [r]. Directions that later images brought have eigenvalue 0.
    ``eigenvectors`` [d, r] turn a vector, times ``scales`` [d] less ``mean`` [d], into coordinates.
    """

    points: Array
    first: int
    eigenvalues: Array
    eigenvectors: Array
    scales: Array
    mean: Array

    @classmethod
    def of(cls, basis: Eigenbasis) -> HeldBasis:
        """Hold the basis of n vectors, with all its directions."""
        vectors = basis.eigenvectors
        if vectors is None:
            vectors = basis.weights(np.eye(len(basis.eigenvalues)))
        points = basis.project(slice(None))
        return cls(points, len(points), basis.eigenvalues, vectors, basis.vectors.scales, basis.mean)

    def __len__(self) -> int:
        return len(self.points)

    def with_images(self, vectors: NDArray[np.floating]) -> HeldBasis:
        """Return it with further images [m, d], whose vectors are not scaled yet, behind the others."""
        centred = np.asarray(vectors, np.float64) * self.scales - self.mean
        points = centred @ self.eigenvectors
        rest = centred - points @ self.eigenvectors.T
        _, lengths, directions = np.linalg.svd(rest, full_matrices=False)
        directions = directions[lengths**2 > NEW_DIRECTION * self.eigenvalues.max(initial=0)]
        points = np.hstack([points, rest @ directions.T])
        before = np.hstack([self.points, np.zeros((len(self), len(directions)))]) if len(directions) else self.points
        return replace(
            self,
            points=np.vstack([before, points]),
            eigenvalues=np.r_[self.eigenvalues, np.zeros(len(directions))],
            eigenvectors=np.hstack([self.eigenvectors, directions.T]),
        )

    def held_out(
        self, kind: str, penalty: float, targets: Targets, present: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> Array:
        """Return the scores [m, k] of a "ridge" or "lda" head for images whose group was left out.

        ``present`` [p] are the images that are there, ascending; ``targets`` are those of these p. Scores are wanted of
        ``rows`` [m] among the p, which hold groups as a whole. ``penalty`` > 0 (of lda: shrinkage) is in units of
        summed squared coordinates.
        """
        points, inverses = self.changed(penalty, present)
        basis = Eigenbasis(Vectors.of(points), np.zeros(points.shape[1]), inverses, None, points, 0.0)
        counts = np.bincount(targets.labels, minlength=targets.classes)
        means = (one_hot(targets.labels, targets.classes).T @ points) / np.maximum(counts, 1)[:, None]
        is_all = len(rows) == len(points)
        problem = LinearProblem(
            basis, targets, counts, means, rows, points if is_all else points[rows], targets.groups[rows]
        )
        scores: Array = CLOSED_FORMS[kind](problem, inverses[None], all_sizes=True)[0]
        return scores

    def changed(self, penalty: float, present: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return centred coordinates [p, r + c] of the images that are there, and their weights [r + c] in products.

        c is the number of images that came or went since the basis was made, and one more for the centre.
        """
        weights = 1 / (self.eigenvalues + penalty)
        is_present = np.zeros(len(self), bool)
        is_present[present] = True
        added = present[present >= self.first]
        removed = np.flatnonzero(~is_present[: self.first])
        if not len(added) and not len(removed):
            return self.points[: self.first], weights
        change = self.points[np.r_[added, removed]].T
        signs = np.r_[np.ones(len(added)), -np.ones(len(removed))]
        mean = change @ signs / len(present)
        change = np.column_stack([change, mean * np.sqrt(len(present))])
        signs = np.r_[signs, -1.0]
        weighted = weights[:, None] * change
        core = np.linalg.inv(np.diag(signs) + change.T @ weighted)
        core_values, rotation = np.linalg.eigh((core + core.T) / 2)
        points = np.empty((len(present), len(weights) + len(signs)))
        np.subtract(self.points[present], mean, out=points[:, : len(weights)])
        points[:, len(weights) :] = points[:, : len(weights)] @ (weighted @ rotation)
        return points, np.r_[weights, -core_values]


def bases_with_images(
    bases: Mapping[tuple[tuple[str, ...], str], HeldBasis], values: Mapping[str, AnyVectors]
) -> dict[tuple[tuple[str, ...], str], HeldBasis]:
    """Return bases, by taps and scaling, with further images; ``values`` are their vectors by tap, [m, channels]."""
    grown = {}
    for (taps, scaling), basis in bases.items():
        vectors = np.concatenate([np.asarray(values[tap], np.float64) for tap in taps], axis=1)
        grown[taps, scaling] = basis.with_images(vectors)
    return grown
