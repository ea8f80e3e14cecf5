"""Two-dimensional projections of the images for the map. They are deterministic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MIN_PROBABILITY = 1e-7  # lower probabilities count as this one
MAX_NAME = 100  # characters of a class name in a description
FEATURES_DESCRIPTION = (
    "Images with similar features lie close together. The axes are the first two principal components of the features."
)


def predictions_description(classes: Sequence[str]) -> str:
    """Describe the axes of ``project_predictions``."""
    start = "Images with similar predictions lie close together. "
    if len(classes) == 2:
        return (
            f"{start}Horizontal axis: log-odds of {classes[1][:MAX_NAME]}, predicted without training on the image. "
            "Vertical axis: the first principal component of the remaining variation of the features."
        )
    return (
        f"{start}The axes are the first two principal components of the log-probabilities, predicted without training "
        "on the image."
    )


def principal_components(
    vectors: NDArray[np.floating], count: int = 2, *, iterations: int = 12, seed: int = 0
) -> Array:
    """Return the first principal components [n, count] of vectors [n, d].

    Subspace iteration from seeded random directions (Halko, Martinsson & Tropp 2011, algorithm 4.4): it is accurate
    enough for a map, and a full decomposition would take longer than the fit. The sign of each component is such that
    its entry of the largest absolute value is positive.
    """
    centred = np.asarray(vectors, np.float32) - np.asarray(vectors, np.float32).mean(axis=0)
    width = min(centred.shape[1], count + 6)
    basis = np.random.default_rng(seed).standard_normal((centred.shape[1], width)).astype(np.float32)
    for _ in range(iterations):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    coordinates = (centred @ basis).astype(np.float64)
    eigenvectors = np.linalg.eigh(coordinates.T @ coordinates)[1][:, ::-1][:, :count]
    components = coordinates @ eigenvectors
    if components.shape[1] < count:
        components = np.pad(components, ((0, 0), (0, count - components.shape[1])))
    signs = np.sign(components[np.abs(components).argmax(axis=0), np.arange(count)])
    result: Array = components * np.where(signs == 0, 1, signs)
    return result


def project_features(vectors: NDArray[np.floating]) -> Array:
    """Project features [n, d] to points [n, 2]: principal components of the centred vectors scaled to unit length."""
    return principal_components(_unit_length(vectors))


def project_predictions(probabilities: Array, vectors: NDArray[np.floating]) -> Array:
    """Project probabilities [n, k] to points [n, 2]: principal components of their centred log-ratios.

    Two classes have a single log-ratio: then the first axis is the log-odds of the second class, and the second axis
    the first principal component of the features [n, d] after regressing the log-odds out of them.
    """
    logarithms = np.log(np.maximum(probabilities, MIN_PROBABILITY))
    logarithms -= logarithms.mean(axis=1, keepdims=True)
    if probabilities.shape[1] > 2:
        return principal_components(logarithms)
    log_odds = logarithms[:, 1] - logarithms[:, 0]
    directions = _unit_length(vectors)
    centred_odds = (log_odds - log_odds.mean()).astype(np.float32)
    slopes = (centred_odds @ directions) / max(float(centred_odds @ centred_odds), 1e-12)
    residuals = directions - np.outer(centred_odds, slopes)
    return np.stack([log_odds, principal_components(residuals, 1)[:, 0]], axis=1)


def to_map_coordinates(points: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Scale points [n, 2] to x and y coordinates that are integers from 0 to 1,000.

    Outliers do not shrink the rest: the lowest and the highest 0.3% are compressed into a margin of 4% at each end.
    """
    axes = []
    for values in points.T:
        low, high = np.quantile(values, [0.003, 0.997]) if len(values) else (0.0, 1.0)
        center, half_range = (low + high) / 2, max((high - low) / 2, 1e-12)
        scaled = (values - center) / half_range
        excess = np.maximum(np.abs(scaled) - 1, 0)
        compressed = np.sign(scaled) * (np.minimum(np.abs(scaled), 1) + 0.08 * excess / (1 + excess))
        axes.append(tuple(int(v) for v in np.rint(500 + 460 * compressed)))
    return axes[0], axes[1]


def _unit_length(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Center vectors [n, d] and scale each to unit length."""
    values = np.asarray(vectors, np.float32)
    centred: NDArray[np.float32] = values - values.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return centred
