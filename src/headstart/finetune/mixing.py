"""Pictures of a batch mixed in pairs, labels with them: mixup (Zhang et al. 2018), cutmix (Yun et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.finetune.options import FineTuning

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Mix:
    """How the pictures of a batch are mixed: ``partner`` [b] is the place of each one's other picture, ``share`` what
    is left of itself, ``box`` (top, left, bottom, right) where the other is seen; None: everywhere, blended."""

    partner: NDArray[np.int64]
    share: float
    box: tuple[int, int, int, int] | None

    def __call__(self, own: Pixels, other: Pixels) -> Pixels:
        """Pictures [b, height, width, 3] with their partners in them."""
        if self.box is None:
            blended = self.share * own.astype(np.float32) + (1 - self.share) * other.astype(np.float32)
            return np.rint(blended).astype(np.uint8)
        top, left, bottom, right = self.box
        mixed = own.copy()
        mixed[:, top:bottom, left:right] = other[:, top:bottom, left:right]
        return mixed


def drawn(how: FineTuning, count: int, size: tuple[int, int], seed: Sequence[int]) -> Mix | None:
    """The mix of a batch of ``count`` pictures of ``size`` (height, width), settled by ``seed``; None where there is
    none. With both kinds, each has half of the batches."""
    kinds = [(name, alpha) for name, alpha in (("mixup", how.mixup), ("cutmix", how.cutmix)) if alpha > 0]
    if not kinds or count < 2:
        return None
    rng = np.random.default_rng(seed)
    name, alpha = kinds[rng.integers(len(kinds))]
    share, partner = float(rng.beta(alpha, alpha)), rng.permutation(count)
    if name == "mixup":
        return Mix(partner, share, None)
    (height, width), side = size, (1 - share) ** 0.5
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = (round(min(max(y + half * side * height, 0), height)) for half in (-0.5, 0.5))
    left, right = (round(min(max(x + half * side * width, 0), width)) for half in (-0.5, 0.5))
    return Mix(partner, 1 - (bottom - top) * (right - left) / (height * width), (top, left, bottom, right))
