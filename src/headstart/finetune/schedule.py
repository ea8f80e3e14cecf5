"""The learning rate."""

from __future__ import annotations

import math


def rate_at(step: int, steps: int, warm_up: float) -> float:
    """The share of the learning rate at a step from 0: a straight rise, then a cosine to 0 (Loshchilov & Hutter 2017).

    >>> [round(rate_at(step, 10, 0.2), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
    """
    rise = round(warm_up * steps)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
