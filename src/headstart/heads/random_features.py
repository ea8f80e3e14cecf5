"""Random ReLU features: a fixed, seeded hidden layer that lets a linear head bend."""

import numpy as np
from numpy.typing import NDArray

from headstart.heads.vectors import Vectors


def expansion_for(x: Vectors, width: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A matrix [d, width] and offset [width] for scaled vectors x; the features are ``relu(x @ matrix + offset)``.

    Directions are random and even over the centred vectors; offsets are spread so that each unit is active on
    part of the pictures (random features: Rahimi & Recht 2008; ReLU: Cho & Saul 2009).
    """
    generator = np.random.default_rng(seed)
    mean, squares = x.moments()
    length = float(np.sqrt(max(0.0, float((squares - mean**2).sum()))))
    matrix = generator.standard_normal((x.width, width)) / max(length, 1e-12)
    offset = generator.uniform(-1, 1, width) - mean @ matrix
    return matrix, offset
