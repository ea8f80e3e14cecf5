"""Ridge regression on several labels an image: a penalty for each, and cells that are not known left out exactly.

All labels share one eigenbasis. A label of which m cells are not known is to be fitted to the other images. That is
leave-out once more: with the smoother H of all images, the fit without the images U follows from the one with them,

    r(-U) = r + H_U (I - H_UU)^-1 r_U,    H(-U) = H + H_U (I - H_UU)^-1 H_U',

whatever is put into the cells that are not known. The formula of leave-one-group-out then holds with these. It takes an
m x m matrix for each such label; the basis stays that of all images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import Array, Labels, Solution
from headstart.heads.leave_one_group_out import (
    CHUNK_SIZE,
    LARGE_GROUP,
    batched_matmul,
    chunks,
    gram_by_group,
    identity_minus,
    rows_by_group_size,
)
from headstart.heads.statistics import add_to_diagonal

MAX_UNKNOWN_SHARE = 0.5  # of the cells of a label: beyond it the images of the basis are mostly not those of the fit
MAX_UNKNOWN = 4096  # cells of a label: the matrix of a label has as many rows and columns


def most_unknown(images: int) -> float:
    """Return of how many of so many images a label may be unknown."""
    return min(MAX_UNKNOWN_SHARE * images, MAX_UNKNOWN)


@dataclass(frozen=True)
class LabelTargets:
    """Which of k labels hold of n images: ``values`` [n, k], where ``known`` [n, k]; and the groups [n]."""

    values: NDArray[np.bool_]
    known: NDArray[np.bool_]
    groups: Labels

    @property
    def is_too_unknown(self) -> NDArray[np.bool_]:
        """Of which labels [k] too many cells are not known."""
        too_many: NDArray[np.bool_] = (~self.known).sum(axis=0) > most_unknown(len(self.known))
        return too_many

    def check(self, names: Sequence[str]) -> None:
        """Raise DataError for a label of which too many cells are not known."""
        unknown = (~self.known).sum(axis=0)
        for name, count, is_too_many in zip(names, unknown.tolist(), self.is_too_unknown.tolist(), strict=True):
            if is_too_many:
                raise DataError(
                    f"Of {count} of {len(self.known)} training images it is not known whether {name!r} holds; at most "
                    f"{MAX_UNKNOWN_SHARE:.0%}, and {MAX_UNKNOWN:,}, may be unknown: label more, or leave the label out "
                    "(--classes)."
                )


@dataclass(frozen=True)
class LabelRidge:
    """Ridge on several labels: the images in their basis, and the sums that all penalties share.

    ``cells`` [n, k] are the targets as numbers, 0 where they are not known; ``sums`` [r, k] the products of the
    coordinates with them.
    """

    basis: Eigenbasis
    targets: LabelTargets
    cells: Array
    sums: Array

    @classmethod
    def of(cls, basis: Eigenbasis, targets: LabelTargets) -> LabelRidge:
        """Put it together."""
        cells = (targets.values & targets.known).astype(np.float64)
        sums = np.zeros((len(basis.eigenvalues), cells.shape[1]))
        for block in basis.vectors.blocks():
            sums += basis.project(block).T @ cells[block]
        return cls(basis, targets, cells, sums)

    def penalty(self, value: float) -> float:
        """Return a penalty in units of the mean squared length of a vector as one of summed squared coordinates."""
        return value * self.basis.mean_squared_length

    def held_out(self, penalties: Sequence[float], rows: NDArray[np.int64] | None = None) -> Array:
        """Return the scores [p, m, k] with each of p penalties for ``rows`` [m] when their group is left out.

        ``rows`` hold groups as a whole, all unless stated. The score of a cell that is not known is NaN; nothing that
        is known depends on it.
        """
        inverses = 1 / (self.basis.eigenvalues + np.array([[self.penalty(value)] for value in penalties]))
        return self.held_out_with(inverses, rows)

    def held_out_with(
        self, inverses: Array, rows: NDArray[np.int64] | None = None, *, all_sizes: bool = False
    ) -> Array:
        """Return the scores of ``held_out`` by weights ``inverses`` [p, r] of the coordinates in products.

        With ``all_sizes`` large groups are not refitted, which would need the eigenvalues.
        """
        rows = np.arange(len(self.cells)) if rows is None else rows
        scores = np.full((len(inverses), len(rows), self.cells.shape[1]), np.nan)
        is_whole = self.targets.known.all(axis=0)
        columns = np.flatnonzero(is_whole)
        if len(columns):
            self._fill(scores, rows, columns, inverses, None, all_sizes)
        for label in np.flatnonzero(~is_whole):
            column = np.array([label])
            for i in range(len(inverses)):  # one at a time: the matrices of the unknown cells are large
                unknown = _Unknown.of(self, int(label), inverses[i])
                self._fill(scores[i : i + 1], rows, column, inverses[i : i + 1], unknown, all_sizes)
        return scores

    def solve(self, penalties: Sequence[float]) -> Solution:
        """Return the weights [d, k] and bias [k] of the fit to all known cells, with a penalty for each label."""
        inverses = 1 / (self.basis.eigenvalues[:, None] + np.array([self.penalty(value) for value in penalties]))
        sums, shares = self.sums.copy(), self.cells.mean(axis=0)
        for label in np.flatnonzero(~self.targets.known.all(axis=0)):
            unknown = _Unknown.of(self, int(label), inverses[:, label])
            sums[:, label], shares[label] = unknown.sums, unknown.share
        return self.basis.affine(sums * inverses, shares)

    def _fill(
        self,
        scores: Array,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        inverses: Array,
        unknown: _Unknown | None,
        all_sizes: bool,
    ) -> None:
        """Fill in the scores [p, m, k] of ``columns`` for the rows of which they are known."""
        count = len(self.cells)
        is_known = self.targets.known[rows][:, columns].all(axis=1)
        places = np.flatnonzero(is_known)  # in the rows
        sums, shares = self.sums[:, columns], self.cells[:, columns].mean(axis=0)
        if unknown is not None:
            sums, shares = unknown.sums[:, None], np.array([unknown.share])
        projected = inverses[:, :, None] * sums
        for batch in self._batches(self.targets.groups[rows[places]], 0 if unknown is None else len(unknown.rows)):
            at = places[batch]
            if not all_sizes and self._is_large(batch.shape[1]):
                self._refit(scores, rows, at[0], columns, inverses, unknown)
                continue
            points, cells = self.basis.project(rows[at]), self.cells[rows[at]][..., columns]
            for chunk in chunks(len(inverses), at, len(columns)):
                residual = cells - shares - batched_matmul(points, projected[chunk])
                smoother = gram_by_group(points, inverses[chunk])
                smoother += 1 / count
                if unknown is not None:
                    smoother += unknown.change(points)
                found = cells - np.linalg.solve(identity_minus(smoother), residual)
                scores[chunk, at[..., None], columns] = found

    def _batches(self, groups: Labels, further: int) -> Iterator[NDArray[np.int64]]:
        """Yield the places [groups, size] of groups of one size, as many at a time as keep arrays small."""
        width = max(len(self.basis.eigenvalues), self.cells.shape[1], further)
        for same_size in rows_by_group_size(groups) if len(groups) else ():
            size = same_size.shape[1]
            step = 1 if self._is_large(size) else max(1, CHUNK_SIZE // (size * max(size, width)))
            yield from (same_size[first : first + step] for first in range(0, len(same_size), step))

    def _is_large(self, size: int) -> bool:
        return max(LARGE_GROUP, len(self.basis.eigenvalues)) < size < len(self.cells)

    def _refit(
        self,
        scores: Array,
        rows: NDArray[np.int64],
        at: NDArray[np.int64],
        columns: NDArray[np.int64],
        inverses: Array,
        unknown: _Unknown | None,
    ) -> None:
        """Fill in the scores of one large group by solving once more without it, which saves memory."""
        left_out = rows[at] if unknown is None else np.union1d(rows[at], unknown.rows)
        points, eigenvalues = self.basis.project(left_out), self.basis.eigenvalues
        count, total = len(self.cells) - len(left_out), -points.sum(axis=0)
        gram = add_to_diagonal(-(points.T @ points), eigenvalues)
        scatter = gram - np.outer(total, total) / count
        cells = self.cells[np.ix_(left_out, columns)]
        shares = (self.cells[:, columns].sum(axis=0) - cells.sum(axis=0)) / count
        cross = self.sums[:, columns] - points.T @ cells - np.outer(total, shares)
        own = self.basis.project(rows[at])
        for i, inverse in enumerate(inverses):
            penalty = 1 / inverse[0] - eigenvalues[0]
            weights = np.linalg.solve(add_to_diagonal(scatter.copy(), penalty), cross)
            scores[i, at[:, None], columns] = (own - total / count) @ weights + shares


@dataclass(frozen=True)
class _Unknown:
    """What leaving out the images ``rows`` [m], of which a label is not known, changes at one penalty.

    ``sums`` [r] and ``share`` are those of the label with the predictions of the fit without these images in their
    place: such targets change nothing. ``weighted`` [r, m] are their coordinates times the inverse, ``inverse`` [m, m]
    is that of I - H_UU.
    """

    rows: NDArray[np.int64]
    sums: Array
    share: float
    weighted: Array
    inverse: Array
    count: int

    @classmethod
    def of(cls, ridge: LabelRidge, label: int, inverses: Array) -> _Unknown:
        """Compute it for a label and the inverses [r] of one penalised scatter matrix."""
        rows = np.flatnonzero(~ridge.targets.known[:, label])
        count = len(ridge.cells)
        points = ridge.basis.project(rows)
        weighted = (points * inverses).T
        smoother = points @ weighted + 1 / count
        share = float(ridge.cells[:, label].mean())
        residual = -share - points @ (inverses * ridge.sums[:, label])  # the targets in these cells are 0
        inverse = np.asarray(np.linalg.inv(identity_minus(smoother)), np.float64)
        imputed = -(inverse @ residual)
        sums = ridge.sums[:, label] + points.T @ imputed
        return cls(rows, sums, share + float(imputed.sum()) / count, weighted, inverse, count)

    def change(self, points: Array) -> Array:
        """Return what is added to the smoother [g, m, m] of groups of points [g, m, r]."""
        cross = points @ self.weighted + 1 / self.count
        changed: Array = cross @ self.inverse @ cross.transpose(0, 2, 1)
        return changed
