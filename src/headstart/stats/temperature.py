"""Temperature scaling: one number by which held-out scores become calibrated probabilities (Guo et al. 2017).

Scores are looked at some rows at a time: of a million images and 100 classes each array of their size takes 800 MB.
What is computed of a row depends on that row alone, so the results are the same bits for any number of rows in a block;
of scores in Fortran order where no block has a single row, whose numbers NumPy adds in another order.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

NUMBERS = 1_000_000  # in a block of rows


def row_blocks(scores: NDArray[np.floating]) -> Iterator[slice]:
    """Yield slices of the rows of scores [n, k], one after the other, of about NUMBERS numbers each."""
    count, classes = scores.shape
    step = max(1, NUMBERS // max(1, classes))
    return (slice(start, start + step) for start in range(0, count, step))


def label_smoothing(groups: int) -> float:
    """Return the share of probability that ``groups`` independent trials leave open: ``1 / (groups + 1)``.

    It stands for one more group whose images could be of any class. Without it a head that makes no error on the
    held-out groups would be given a temperature of zero and a log-loss of zero, whatever its cut (Laplace's rule of
    succession; the targets of Platt 1999, section 2.2).
    """
    return 1 / (groups + 1)


def log_losses(
    scores: NDArray[np.float64], labels: NDArray[np.integer], temperature: float, smoothing: float
) -> NDArray[np.float64]:
    """Return the log-loss [n], in nats, of softmax(scores / temperature) against labels smoothed by ``smoothing``."""
    losses = np.empty(len(labels))
    for rows in row_blocks(scores):
        logits = scores[rows] / temperature
        logits -= logits.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(logits).sum(axis=1))
        true_logits = logits[np.arange(len(logits)), labels[rows]]
        losses[rows] = log_total - (1 - smoothing) * true_logits - smoothing * logits.mean(axis=1)
    return losses


def fit_temperature(
    scores: NDArray[np.float64], labels: NDArray[np.integer], smoothing: float, start: float | None = None
) -> float:
    """Return the temperature > 0 with the least mean log-loss on held-out scores [n, k].

    The loss is convex in 1 / temperature; a safeguarded Newton search finds its minimum to 1e-6 relative. It begins at
    the temperature ``start`` where one is given: that of similar scores saves most of its steps.
    """
    centred = scores - scores.mean(axis=1, keepdims=True)
    scale = float(np.sqrt((centred**2).mean()))
    if not scale > 0:
        return 1.0
    centred /= scale
    target = float(((1 - smoothing) * centred[np.arange(len(labels)), labels]).mean())
    low, high = 1e-4, 1e6
    beta = 1.0 if start is None else min(max(scale / start, low), high)
    expected, squares = np.empty(len(labels)), np.empty(len(labels))
    for _ in range(100):
        for rows in row_blocks(centred):
            logits = beta * centred[rows]
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            expected[rows] = (weights * centred[rows]).sum(axis=1)
            squares[rows] = (weights * centred[rows] ** 2).sum(axis=1)
        slope = float(expected.mean()) - target
        curvature = float((squares - expected**2).mean())
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = beta - slope / curvature if curvature > 0 else -1.0
        new = step if low < step < high else float(np.sqrt(low * high))
        if abs(new - beta) <= 1e-6 * beta:
            break
        beta = new
    return scale / beta
