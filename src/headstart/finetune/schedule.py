"""The learning rate by step."""

from __future__ import annotations

import math


def learning_rate_factor(step: int, total_steps: int, warm_up: float) -> float:
    """Return the factor, 0 to 1, of the learning rate at a step from 0.

    It rises linearly over the share ``warm_up`` of all steps, then falls as a cosine to 0 (Loshchilov & Hutter 2017).

    >>> [round(learning_rate_factor(step, 10, 0.2), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
    """
    warm_up_steps = round(warm_up * total_steps)
    if step < warm_up_steps:
        return (step + 1) / warm_up_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up_steps) / max(1, total_steps - warm_up_steps)))
