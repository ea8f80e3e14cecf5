"""Random ReLU features: a fixed, seeded hidden layer that lets a linear head bend."""

import numpy as np
from numpy.typing import NDArray


def expansion_for(
    x: NDArray[np.float64], scales: NDArray[np.float64], width: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A matrix [d, width] and offset [width]; the features are ``relu(x @ matrix + offset)``.

    Directions are random and even over the scaled, centred vectors; offsets are spread so that each unit is
    active on part of the pictures (random features: Rahimi & Recht 2008; ReLU: Cho & Saul 2009).
    """
    generator = np.random.default_rng(seed)
    directions = generator.standard_normal((x.shape[1], width))
    centred = (x - x.mean(axis=0)) * scales
    length = np.sqrt((centred**2).sum(axis=1).mean())
    matrix = scales[:, None] * directions / max(float(length), 1e-12)
    offset = generator.uniform(-1, 1, width) - x.mean(axis=0) @ matrix
    return matrix, offset
