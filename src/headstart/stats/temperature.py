"""Temperature scaling: one number by which held-out scores become calibrated probabilities (Guo et al. 2017)."""

import numpy as np
from numpy.typing import NDArray


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
    logits = scores / temperature
    logits = logits - logits.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(logits).sum(axis=1))
    true_logits = logits[np.arange(len(labels)), labels]
    losses: NDArray[np.float64] = log_total - (1 - smoothing) * true_logits - smoothing * logits.mean(axis=1)
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
    centred = centred / scale
    target = float(((1 - smoothing) * centred[np.arange(len(labels)), labels]).mean())
    low, high = 1e-4, 1e6
    beta = 1.0 if start is None else min(max(scale / start, low), high)
    for _ in range(100):
        logits = beta * centred
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        expected = (weights * centred).sum(axis=1)
        slope = float(expected.mean()) - target
        curvature = float(((weights * centred**2).sum(axis=1) - expected**2).mean())
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = beta - slope / curvature if curvature > 0 else -1.0
        new = step if low < step < high else float(np.sqrt(low * high))
        if abs(new - beta) <= 1e-6 * beta:
            break
        beta = new
    return scale / beta
