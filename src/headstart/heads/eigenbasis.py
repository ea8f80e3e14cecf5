"""Vectors in the eigenbasis of their scatter matrix, in which ridge is a division and LDA a low-rank update of one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.heads.vectors import Vectors, one_hot

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Eigenbasis:
    """The centred vectors [n, d] in the eigenbasis of their scatter matrix.

    Their coordinates [n, r] have orthogonal columns of squared length ``eigenvalues`` [r], ascending and positive;
    ``mean`` [d] was subtracted before. Ridge, LDA and centroids do not change under this rotation. Where there are at
    most as many vectors as numbers in a vector, ``coordinates`` holds the coordinates; else they are the centred
    vectors times ``eigenvectors`` [d, r], computed when they are needed.
    """

    vectors: Vectors
    mean: Array
    eigenvalues: Array
    eigenvectors: Array | None
    coordinates: Array | None

    @classmethod
    def of(cls, x: Vectors | NDArray[np.floating]) -> Eigenbasis:
        """Compute the basis of vectors [n, d] from the smaller of the n x n and the d x d Gram matrix."""
        vectors = x if isinstance(x, Vectors) else Vectors.of(x)
        mean, _ = vectors.moments()
        is_wide = len(vectors) <= vectors.width
        if is_wide:
            centred = vectors.rows(slice(None)) - mean
            gram = centred @ centred.T
        else:
            gram = np.zeros((vectors.width, vectors.width))
            for block in vectors.blocks():
                centred = vectors.rows(block) - mean
                gram += centred.T @ centred
        eigenvalues, eigenvectors = np.linalg.eigh(gram)  # SciPy's is as fast but holds the interpreter's lock
        # 1e-10: below it a direction is rounding of the fp16 features, and 1 / eigenvalue would amplify it.
        keep = eigenvalues > max(float(eigenvalues[-1]), 1e-300) * 1e-10
        eigenvalues, eigenvectors = eigenvalues[keep], eigenvectors[:, keep]
        if is_wide:
            # The constant direction belongs to the intercept: nothing of it may be left.
            eigenvectors = eigenvectors - eigenvectors.mean(axis=0)
            return cls(vectors, mean, eigenvalues, None, eigenvectors * np.sqrt(eigenvalues))
        return cls(vectors, mean, eigenvalues, eigenvectors, None)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def mean_squared_length(self) -> float:
        """The mean squared length of the centred vectors: the unit in which penalties are given."""
        return float(self.eigenvalues.sum()) / len(self)

    def project(self, rows: slice | NDArray[np.integer]) -> Array:
        """Return the coordinates [..., r] of the vectors at ``rows``."""
        if self.coordinates is not None:
            return self.coordinates[rows]
        assert self.eigenvectors is not None
        centred = self.vectors.rows(rows) - self.mean
        # One product of two matrices: of three axes numpy would make one product per group, forty times as slow.
        coordinates: Array = centred.reshape(-1, centred.shape[-1]) @ self.eigenvectors
        return coordinates.reshape(*centred.shape[:-1], -1)

    def top(self, count: int) -> Eigenbasis:
        """Return the basis of only the ``count`` directions that vary most."""
        eigenvectors = None if self.eigenvectors is None else self.eigenvectors[:, -count:]
        coordinates = None if self.coordinates is None else self.coordinates[:, -count:]
        return replace(self, eigenvalues=self.eigenvalues[-count:], eigenvectors=eigenvectors, coordinates=coordinates)

    def products(self, targets: Array) -> Array:
        """Compute ``coordinates.T @ targets`` [r, k] for targets [n, k]."""
        if self.coordinates is not None:
            return self.coordinates.T @ targets
        assert self.eigenvectors is not None
        centred = self.vectors.products(targets) - np.outer(self.mean, targets.sum(axis=0))
        products: Array = self.eigenvectors.T @ centred
        return products

    def weights(self, coordinate_weights: Array) -> Array:
        """Turn weights [r, k] on the coordinates into weights [d, k] on the centred vectors."""
        if self.eigenvectors is not None:
            return self.eigenvectors @ coordinate_weights
        assert self.coordinates is not None
        row_weights = self.coordinates @ (coordinate_weights / self.eigenvalues[:, None])
        weights: Array = self.vectors.products(row_weights) - np.outer(self.mean, row_weights.sum(axis=0))
        return weights

    def class_means(self, labels: NDArray[np.integer], classes: int) -> tuple[NDArray[np.int64], Array]:
        """Count the images of each class [k] and compute their mean coordinates [k, r]."""
        counts = np.bincount(labels, minlength=classes)
        return counts, self.products(one_hot(labels, classes)).T / np.maximum(counts, 1)[:, None]

    def affine(self, coordinate_weights: Array, bias: Array) -> tuple[Array, Array]:
        """Turn an affine map of the coordinates into one of the vectors: weights [d, k] and bias [k]."""
        weights = self.weights(coordinate_weights)
        return weights, bias - self.mean @ weights
