"""Vectors in the eigenbasis of their scatter matrix, in which ridge is a division and LDA a low-rank update of one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.heads.statistics import class_sums
from headstart.heads.vectors import Vectors

Array = NDArray[np.float64]
OVERSAMPLING = 32  # further directions while those that vary most are searched
MAX_COORDINATES = 4_000_000  # numbers, 32 MB: more are computed when they are needed


@dataclass(frozen=True)
class Eigenbasis:
    """The centred vectors [n, d] in the eigenbasis of their scatter matrix, or in the directions that vary most.

    Their coordinates [n, r] have orthogonal columns of squared length ``eigenvalues`` [r], ascending and positive;
    ``mean`` [d] was subtracted before, and ``total`` is the summed squared length of all directions, also of those left
    out. Ridge, LDA and centroids do not change under a rotation. ``coordinates`` are kept where they are few, else they
    are the centred vectors times ``eigenvectors`` [d, r], which are None where all directions of few vectors are kept.
    """

    vectors: Vectors
    mean: Array
    eigenvalues: Array
    eigenvectors: Array | None
    coordinates: Array | None
    total: float

    @classmethod
    def of(
        cls,
        x: Vectors | NDArray[np.floating],
        mean: Array | None = None,
        scatter: Array | None = None,
        directions: int | None = None,
    ) -> Eigenbasis:
        """Compute the basis of vectors [n, d] from the smaller of the n x n and the d x d matrix of products.

        ``mean`` [d] and, for more vectors than numbers in a vector, ``scatter`` [d, d] may be given where they are
        known. ``directions`` is how many of those that vary most are kept, None for all.
        """
        vectors = x if isinstance(x, Vectors) else Vectors.of(x)
        mean = vectors.moments()[0] if mean is None else mean
        if directions is not None and min(len(vectors), vectors.width) <= directions + OVERSAMPLING:
            directions = None
        if len(vectors) > vectors.width:
            scatter = vectors.scatter(mean) if scatter is None else scatter
            total = float(np.trace(scatter))
            found = np.linalg.eigh(scatter) if directions is None else _top_directions(scatter, directions)
            eigenvalues, eigenvectors = _positive(*found)
            basis = cls(vectors, mean, eigenvalues, eigenvectors, None, total)
            is_small = len(vectors) * len(eigenvalues) <= MAX_COORDINATES
            return replace(basis, coordinates=basis.project(slice(None))) if is_small else basis
        centred = vectors.rows(slice(None)) - mean
        gram = centred @ centred.T
        total = float(np.trace(gram))
        if directions is None:
            eigenvalues, row_vectors = _positive(*np.linalg.eigh(gram))
            # The constant direction belongs to the intercept: nothing of it may be left.
            row_vectors = row_vectors - row_vectors.mean(axis=0)
            return cls(vectors, mean, eigenvalues, None, row_vectors * np.sqrt(eigenvalues), total)
        # The directions in which the vectors of the most important rows lie, made orthogonal (Nyström).
        row_values, row_vectors = _positive(*_top_directions(gram, directions))
        eigenvectors = centred.T @ (row_vectors / np.sqrt(row_values))
        coordinates = gram @ (row_vectors / np.sqrt(row_values))
        eigenvalues, rotation = _positive(*np.linalg.eigh(coordinates.T @ coordinates))
        coordinates = coordinates @ rotation
        return cls(vectors, mean, eigenvalues, eigenvectors @ rotation, coordinates, total)

    @classmethod
    def of_scatter(cls, scales: Array, mean: Array, scatter: Array) -> Eigenbasis:
        """Compute the basis from the ``scatter`` [d, d] and ``mean`` [d] alone of vectors scaled by ``scales``.

        It has no vectors: what is computed of rows is not to be asked for.
        """
        eigenvalues, eigenvectors = _positive(*np.linalg.eigh(scatter))
        return cls(Vectors((), scales), mean, eigenvalues, eigenvectors, None, float(np.trace(scatter)))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def directions(self) -> Array:
        """The eigenvectors [d, r], of a basis that has them."""
        assert self.eigenvectors is not None
        return self.eigenvectors

    @property
    def mean_squared_length(self) -> float:
        """The mean squared length of the centred vectors: the unit in which penalties are given."""
        return self.total / len(self)

    @property
    def is_complete(self) -> bool:
        """Whether no direction is left out in which the vectors vary, up to rounding."""
        return self.total - float(self.eigenvalues.sum()) <= 1e-6 * self.total

    def centred(self, rows: slice | NDArray[np.integer]) -> Array:
        """Return the centred vectors [..., d] at ``rows``."""
        centred: Array = self.vectors.rows(rows) - self.mean
        return centred

    def project(self, rows: slice | NDArray[np.integer]) -> Array:
        """Return the coordinates [..., r] of the vectors at ``rows``."""
        if self.coordinates is not None:
            return self.coordinates[rows]
        assert self.eigenvectors is not None
        index = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        flat = index.reshape(-1)
        coordinates = np.empty((len(flat), len(self.eigenvalues)))
        step = max(64, self.vectors.block_size // max(1, self.vectors.width))
        for first in range(0, len(flat), step):  # the vectors a block at a time: memory
            block = slice(first, first + step)
            coordinates[block] = self.centred(flat[block]) @ self.eigenvectors
        return coordinates.reshape(*index.shape, len(self.eigenvalues))

    def top(self, count: int) -> Eigenbasis:
        """Return the basis of only the ``count`` directions that vary most."""
        eigenvectors = None if self.eigenvectors is None else self.eigenvectors[:, -count:]
        coordinates = None if self.coordinates is None else self.coordinates[:, -count:]
        return replace(self, eigenvalues=self.eigenvalues[-count:], eigenvectors=eigenvectors, coordinates=coordinates)

    def weights(self, coordinate_weights: Array) -> Array:
        """Turn weights [r, k] on the coordinates into weights [d, k] on the centred vectors."""
        if self.eigenvectors is not None:
            return self.eigenvectors @ coordinate_weights
        assert self.coordinates is not None
        row_weights = self.coordinates @ (coordinate_weights / self.eigenvalues[:, None])
        weights: Array = self.vectors.products(row_weights) - np.outer(self.mean, row_weights.sum(axis=0))
        return weights

    def class_means(self, labels: NDArray[np.integer], classes: int, sums: Array | None = None) -> Array:
        """Compute the mean coordinates [k, r] of each class; ``sums`` [k, d] of the vectors where they are known."""
        counts = np.bincount(labels, minlength=classes)
        at_least_one = np.maximum(counts, 1)[:, None]
        if self.eigenvectors is None:
            assert self.coordinates is not None
            return class_sums(self.coordinates, labels, classes) / at_least_one
        sums = self.vectors.class_sums(labels, classes) if sums is None else sums
        means: Array = ((sums - counts[:, None] * self.mean) / at_least_one) @ self.eigenvectors
        return means

    def affine(self, coordinate_weights: Array, bias: Array) -> tuple[Array, Array]:
        """Turn an affine map of the coordinates into one of the vectors: weights [d, k] and bias [k]."""
        weights = self.weights(coordinate_weights)
        return weights, bias - self.mean @ weights


def _positive(eigenvalues: Array, eigenvectors: Array) -> tuple[Array, Array]:
    """Leave out the directions in which nothing varies; eigenvalues [m], ascending, eigenvectors [m, m] in columns."""
    # 1e-10: below it a direction is rounding of the features, and 1 / eigenvalue would amplify it.
    keep = eigenvalues > max(float(eigenvalues[-1]), 1e-300) * 1e-10
    return eigenvalues[keep], eigenvectors[:, keep]


def _top_directions(matrix: Array, count: int) -> tuple[Array, Array]:
    """Return about the ``count`` largest eigenvalues of a positive matrix [m, m], ascending, and their eigenvectors.

    By subspace iteration from random vectors (Halko, Martinsson & Tropp 2011, algorithm 4.4) and Rayleigh-Ritz: on the
    directions returned the matrix is exactly diagonal, also where they are not exactly eigenvectors. A fixed seed makes
    the result that of the matrix alone.
    """
    directions = np.random.default_rng(0).standard_normal((len(matrix), count + OVERSAMPLING))
    for _ in range(2):
        directions = np.linalg.qr(matrix @ directions)[0]
    eigenvalues, rotation = np.linalg.eigh(directions.T @ (matrix @ directions))
    return eigenvalues[-count:], directions @ rotation[:, -count:]
