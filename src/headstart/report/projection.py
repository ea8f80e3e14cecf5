"""Two dimensions of many: where each picture lies on the map. Closed forms, and the same map every time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEAST = 1e-7  # probabilities below are as good as nothing


def principal(rows: NDArray[np.floating], count: int = 2, *, rounds: int = 12, seed: int = 0) -> Array:
    """The first principal components [n, count] of rows [n, d].

    Subspace iteration from seeded random directions (Halko, Martinsson & Tropp 2011, algorithm 4.4): a map needs
    no more digits, and a full decomposition would take longer than the fit. The largest is positive.
    """
    centred = np.asarray(rows, np.float32) - np.asarray(rows, np.float32).mean(axis=0)
    width = min(centred.shape[1], count + 6)
    basis = np.random.default_rng(seed).standard_normal((centred.shape[1], width)).astype(np.float32)
    for _ in range(rounds):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    inner = (centred @ basis).astype(np.float64)
    vectors = np.linalg.eigh(inner.T @ inner)[1][:, ::-1][:, :count]
    points = inner @ vectors
    if points.shape[1] < count:
        points = np.pad(points, ((0, 0), (0, count - points.shape[1])))
    signs = np.sign(points[np.abs(points).argmax(axis=0), np.arange(count)])
    result: Array = points * np.where(signs == 0, 1, signs)
    return result


def by_look(vectors: NDArray[np.floating]) -> Array:
    """Places [n, 2] of pictures by their features [n, d]: principal components of the vectors' directions."""
    rows = np.asarray(vectors, np.float32)
    rows = rows - rows.mean(axis=0)
    return principal(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def by_answer(probabilities: Array, vectors: NDArray[np.floating]) -> Array:
    """Places [n, 2] by what was answered, probabilities [n, k]: principal components of their centred logarithms.

    Of two classes there is one such number, the log-odds of the second; the other axis is then what varies most in
    the features [n, d] once that number is taken out.
    """
    logs = np.log(np.maximum(probabilities, LEAST))
    logs -= logs.mean(axis=1, keepdims=True)
    if probabilities.shape[1] > 2:
        return principal(logs)
    odds = logs[:, 1] - logs[:, 0]
    rows = np.asarray(vectors, np.float32)
    rows = rows - rows.mean(axis=0)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    part = (odds - odds.mean()).astype(np.float32)
    rows = rows - np.outer(part, (part @ rows) / max(float(part @ part), 1e-12))
    return np.stack([odds, principal(rows, 1)[:, 0]], axis=1)


def on_paper(points: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Places [n, 2] as whole numbers from 0 to 1,000. What lies far out is drawn in: 0.3% at each end share 4%."""
    scaled = []
    for values in points.T:
        low, high = np.quantile(values, [0.003, 0.997]) if len(values) else (0.0, 1.0)
        middle, half = (low + high) / 2, max((high - low) / 2, 1e-12)
        away = (values - middle) / half
        beyond = np.maximum(np.abs(away) - 1, 0)
        drawn = np.sign(away) * (np.minimum(np.abs(away), 1) + 0.08 * beyond / (1 + beyond))
        scaled.append(tuple(int(v) for v in np.rint(500 + 460 * drawn)))
    return scaled[0], scaled[1]
