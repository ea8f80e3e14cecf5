"""Mixing images of a batch, and their labels, in pairs: mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.finetune.options import FineTuneConfig


@dataclass(frozen=True)
class Mix:
    """How the images of a batch are mixed.

    ``partner`` [b] is the position in the batch of the image that is mixed into each image. ``lam`` (lambda in both
    papers), 0 to 1, is the weight of the image itself and of its label; the partner has the rest. ``box`` (top, left,
    bottom, right) is where cutmix pastes the partner; None: mixup blends the two everywhere.
    """

    partner: NDArray[np.int64]
    lam: float
    box: tuple[int, int, int, int] | None


def draw_mix(config: FineTuneConfig, count: int, size: tuple[int, int], seed: Sequence[int]) -> Mix | None:
    """Draw the mix of a batch of ``count`` images of ``size`` (height, width); the same seed gives the same mix.

    None where the configuration mixes nothing, or for a single image. With both mixup and cutmix, each batch takes one
    of them, at equal odds.
    """
    kinds = [(name, alpha) for name, alpha in (("mixup", config.mixup), ("cutmix", config.cutmix)) if alpha > 0]
    if not kinds or count < 2:
        return None
    rng = np.random.default_rng(seed)
    name, alpha = kinds[rng.integers(len(kinds))]
    lam = float(rng.beta(alpha, alpha))
    partner = rng.permutation(count)
    if name == "mixup":
        return Mix(partner, lam, None)
    height, width = size
    side = (1 - lam) ** 0.5  # of the box, as a share of the image's
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = (round(min(max(y + half * side * height, 0), height)) for half in (-0.5, 0.5))
    left, right = (round(min(max(x + half * side * width, 0), width)) for half in (-0.5, 0.5))
    # The box is cut off at the edges of the image: lambda is what is left of it.
    return Mix(partner, 1 - (bottom - top) * (right - left) / (height * width), (top, left, bottom, right))
