"""Out-of-distribution detection: the share of an image's vector that the training images do not explain.

An image's vector differs from the mean of the training images by some length. Ridge explains a part of that by the
directions in which the training images themselves vary; the OOD score is the share, 0 to 1, that is left. This is a
Mahalanobis distance (Lee et al. 2018) divided by the Euclidean distance, so that it does not depend on the contrast of
the image. A direction that holds less than PENALTY of all variation counts as mostly unexplained.

Of several taps the deepest alone is looked at: of photographs of other things its features differ most. With the last
three taps of MobileNetV2 together, none of 256 horses and humans was rejected by a model of ants and bees; with the
deepest alone, all were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import LinearProblem, Targets
from headstart.heads.leave_one_group_out import chunks_of_groups, group_batches, large_groups
from headstart.heads.statistics import add_to_diagonal

Array = NDArray[np.float64]
PENALTY = 0.003  # of the summed eigenvalues of the training images
LEAST_EXPLAINED = 0.05  # directions of which less than this share is explained are left out: many, and of no effect
EPSILON = 1e-9  # of a mean squared length of about 1: an image that is the mean itself has a score of 1
CHUNK_SIZE = 4096  # images whose coordinates are held at a time


@dataclass(frozen=True)
class OodDetector:
    """The directions in which the training images vary.

    For vectors x [n, d] let ``y = (x - centre) * scales``; the OOD score is ``1 - |y @ factor|^2 / |y|^2``. ``centre``
    and ``scales`` [d] are float32, ``factor`` [d, q] float16.
    """

    centre: NDArray[np.float32]
    scales: NDArray[np.float32]
    factor: NDArray[np.float16]

    def behind(self, width: int) -> OodDetector:
        """Return the detector for vectors [n, width + d] of which it does not look at the first ``width`` numbers."""
        zeros = np.zeros(width, np.float32)
        return OodDetector(
            np.concatenate([zeros, self.centre]),
            np.concatenate([zeros, self.scales]),
            np.concatenate([np.zeros((width, self.factor.shape[1]), np.float16), self.factor]),
        )

    def scores(self, x: NDArray[np.floating]) -> Array:
        """Compute the OOD scores [n], 0 to 1, of vectors [n, d] of the head's taps side by side."""
        y = (np.asarray(x, np.float32) - self.centre) * self.scales
        projected = (y @ self.factor.astype(np.float32)).astype(np.float64)
        squared_length = (y.astype(np.float64) ** 2).sum(axis=1)
        scores: Array = np.maximum(0, 1 - (projected**2).sum(axis=1) / (squared_length + EPSILON))
        return scores


def fit_ood(basis: Eigenbasis) -> OodDetector:
    """Fit a detector from the basis of the training vectors."""
    explained = basis.eigenvalues / (basis.eigenvalues + PENALTY * basis.total)
    count = max(1, int((explained >= LEAST_EXPLAINED).sum()))  # ONNX has no matrix without columns
    # Eigenvalues are ascending: the directions of which enough is explained are the last.
    basis, explained, scales = basis.top(count), explained[-count:], basis.vectors.scales
    root = np.sqrt(np.where(explained >= LEAST_EXPLAINED, explained, 0))
    factor = basis.weights(np.eye(len(explained), count) * root[:, None])
    return OodDetector((basis.mean / scales).astype(np.float32), scales.astype(np.float32), factor.astype(np.float16))


def held_out_ood_scores(basis: Eigenbasis, groups: NDArray[np.integer]) -> Array:
    """Compute the OOD score [n] of every image when its group is left out; nothing is refitted but for large groups."""
    scores = np.ones(len(basis))
    if basis.total == 0:
        return scores
    problem = LinearProblem.of(basis, Targets(np.zeros(len(basis), np.int64), 1, groups), np.zeros(0, np.int64))
    for rows in chunks_of_groups(groups, CHUNK_SIZE):
        scores[rows] = _held_out_scores(problem.at(rows))
    return scores


def _held_out_scores(problem: LinearProblem) -> Array:
    """Compute the scores [m] of the rows of a problem.

    With the smoother H of all images (intercept included), the smoother without group G evaluated on G is
    ``H_GG (I - H_GG)^-1``. Subtracting 1 / (number of other images) removes the intercept's part.
    """
    basis, count = problem.basis, len(problem.basis)
    penalty, is_truncated = PENALTY * basis.total, not basis.is_complete
    scores = np.ones(len(problem.rows))
    outside: Array | float
    for rows in group_batches(problem):
        size = rows.shape[1]
        if size == count:
            continue
        points = problem.points[rows]
        smoother = (points / (basis.eigenvalues + penalty)) @ points.transpose(0, 2, 1) + 1 / count
        products = np.linalg.solve(np.eye(size) - smoother, smoother)
        unexplained = penalty * (np.diagonal(products, axis1=1, axis2=2) - 1 / (count - size))
        offsets = points + points.sum(axis=1, keepdims=True) / (count - size)
        outside = 0.0
        if is_truncated:
            vectors = basis.centred(problem.rows[rows])
            outside = _length_outside(vectors + vectors.sum(axis=1, keepdims=True) / (count - size), offsets)
        scores[rows] = (unexplained + outside) / ((offsets**2).sum(axis=-1) + outside + EPSILON)
    for blocks, others in large_groups(problem):
        inverse = np.linalg.inv(add_to_diagonal(others.scatter, penalty))
        mean = np.zeros(basis.vectors.width)  # of the vectors of the others, where they are needed
        if is_truncated:
            mean -= sum(basis.centred(problem.rows[block]).sum(axis=0) for block in blocks) / others.count
        for block in blocks:
            offsets = problem.points[block] - others.mean
            unexplained = penalty * ((offsets @ inverse) * offsets).sum(axis=1)
            outside = 0.0
            if is_truncated:
                outside = _length_outside(basis.centred(problem.rows[block]) - mean, offsets)
            scores[block] = (unexplained + outside) / ((offsets**2).sum(axis=-1) + outside + EPSILON)
    return scores


def _length_outside(vectors: Array, coordinates: Array) -> Array:
    """Return the squared length [...] of vectors [..., d] outside the basis, of which nothing is explained."""
    outside: Array = np.maximum((vectors**2).sum(axis=-1) - (coordinates**2).sum(axis=-1), 0)
    return outside
