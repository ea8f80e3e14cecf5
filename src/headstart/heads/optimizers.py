"""What the trainings by gradient descent share, of the mlp head and of a backbone's layers."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPTIMISERS = ("rmsprop", "adam", "adamw", "sgd")


def optimiser(torch: ModuleType, name: str, parameters: Any, rate: float, decay: float) -> Any:
    """One of ``OPTIMISERS`` with Keras's constants; ``decay`` is the weight decay of adamw, the others have none."""
    if name == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate, alpha=0.9, eps=1e-7)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=rate, eps=1e-7)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9)


def class_weights(labels: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    """Weights [k] by which every class of ``labels`` [n] counts alike; their mean over the pictures is 1.

    >>> class_weights(np.array([0, 0, 0, 1]), 3).round(2).tolist()  # the last class has no picture
    [0.67, 2.0, 2.0]
    """
    counts = np.bincount(labels, minlength=classes)
    result: NDArray[np.float64] = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return result
