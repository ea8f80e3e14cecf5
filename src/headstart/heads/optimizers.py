"""Optimizers and class weights of what is trained by gradient descent: the mlp head and a backbone's layers."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPTIMIZERS = ("rmsprop", "adam", "adamw", "sgd")


def make_optimizer(torch: ModuleType, name: str, parameters: Any, learning_rate: float, weight_decay: float) -> Any:
    """Make one of ``OPTIMIZERS`` with the decay and epsilon of Keras's RMSprop and Adam; sgd has momentum 0.9.

    Only adamw uses ``weight_decay``; its epsilon is PyTorch's, 1e-8.
    """
    if name == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=learning_rate, alpha=0.9, eps=1e-7)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, eps=1e-7)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9)


def class_weights(labels: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    """Compute weights [k] by which every class of ``labels`` [n] counts the same; their mean over the images is 1.

    >>> class_weights(np.array([0, 0, 0, 1]), 3).round(2).tolist()  # the last class has no image
    [0.67, 2.0, 2.0]
    """
    counts = np.bincount(labels, minlength=classes)
    weights: NDArray[np.float64] = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return weights
