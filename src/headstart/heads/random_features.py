"""Random ReLU features: a fixed, seeded hidden layer that gives a linear head curved decision boundaries."""

import numpy as np
from numpy.typing import NDArray

from headstart.heads.vectors import Vectors


def draw_random_features(x: Vectors, width: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw weights [d, width] and bias [width] for scaled vectors x; the features are ``relu(x @ weights + bias)``.

    Directions are uniform over the centred vectors; offsets are spread so that each unit is active on part of the
    images (random features: Rahimi & Recht 2008; ReLU: Cho & Saul 2009).
    """
    generator = np.random.default_rng(seed)
    mean, squares = x.moments()
    length = float(np.sqrt(max(0.0, float((squares - mean**2).sum()))))
    weights = generator.standard_normal((x.width, width)) / max(length, 1e-12)
    bias = generator.uniform(-1, 1, width) - mean @ weights
    return weights, bias
