"""The loss of an image: cross-entropy of its one class, or of several labels the mean of their binary ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy


def image_losses(
    scores: Tensor, labels: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the loss [b], in nats, of scores [b, k], in their dtype.

    ``labels`` are classes [b], whose losses count ``class_weights`` [k] times, or several labels [b, k] that are 1, 0,
    or NaN where that is not known: such a cell adds nothing, nor has its score a gradient. The loss is then the sum
    over known cells divided by k. Smoothing spreads that share of a class over all classes, of a label over yes and no.
    """
    if labels.ndim == 1:
        losses = cross_entropy(scores, labels, reduction="none", label_smoothing=label_smoothing)
        return losses if class_weights is None else losses * class_weights[labels]
    known = ~labels.isnan()
    targets = torch.where(known, labels, 0.0).to(scores.dtype) * (1 - label_smoothing) + label_smoothing / 2
    cells = binary_cross_entropy_with_logits(scores, targets, known.to(scores.dtype), reduction="none")
    return cells.mean(1)


def correct_predictions(scores: Tensor, labels: Tensor) -> Tensor:
    """Return whether the predicted class of each image [b] is right, or what share of its labels is known and right.

    The parameters are those of ``image_losses``; a label is said to hold from a probability of 0.5 on.
    """
    if labels.ndim == 1:
        return scores.argmax(1) == labels
    return torch.where(labels.isnan(), False, (scores >= 0) == (labels == 1)).to(scores.dtype).mean(1)
