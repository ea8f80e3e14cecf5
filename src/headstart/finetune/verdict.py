"""Whether fine-tuning is better than frozen, told by groups that neither has seen.

Every picture is judged by models, a frozen and a fine-tuned one, that were made without its fold. How far to go from
frozen to fine-tuned (WiSE-FT, Wortsman et al. 2022) is chosen for each fold by the others, so that no picture has a
say in the choice by which it is judged; the network of the other folds has seen it, as in any cross-validation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.compare.models import Difference, difference
from headstart.stats import fit_temperature, label_smoothing, log_losses

Array = NDArray[np.float64]
ALPHAS = (0.25, 0.5, 0.75, 1.0)
FOLDS = 3
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Verdict:
    """``difference``: frozen first, fine-tuned second, on all n pictures held out; the ``alpha`` that all folds
    together choose, each fold's own, the accuracies, and ``temperature`` of the scores at ``alpha``."""

    difference: Difference
    alpha: float
    alphas: tuple[float, ...]
    frozen: float
    tuned: float
    temperature: float

    @property
    def better(self) -> bool:
        """Whether fine-tuning wins by more than chance explains."""
        return self.difference.real and self.difference.difference > 0

    def __str__(self) -> str:
        low, high = (100 * end for end in self.difference.interval)
        what = "is better than" if self.better else "is not shown to be better than"
        return (
            f"Fine-tuned {what} frozen: {self.tuned:.1%} against {self.frozen:.1%} on groups held out "
            f"({100 * self.difference.difference:+.1f} points, 95% interval {low:+.1f} to {high:+.1f}; right alone on "
            f"{self.difference.only_second} and {self.difference.only_first} pictures, McNemar p "
            f"{self.difference.p_value:.2g}); the {'fine-tuned' if self.better else 'frozen'} model is kept."
        )


def folds(labels: Rows, groups: Rows, seed: int) -> list[tuple[Rows, Rows]] | None:
    """Rows to learn from and rows to judge; groups stay whole and every class is learned from. None if that cannot be
    done."""
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(np.unique(groups[labels == c])) for c in np.unique(labels))
    for count in range(min(FOLDS, fewest), 1, -1):
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        found = [(a, b) for a, b in splitter.split(labels[:, None], labels, groups) if len(b)]
        if len(found) > 1 and all(len(np.unique(labels[a])) == len(np.unique(labels)) for a, _ in found):
            return found
    return None


def judge(frozen: Array, tuned: Array, labels: Rows, groups: Rows, fold: Rows) -> Verdict:
    """From scores of the frozen [n, k] and the fine-tuned [alphas, n, k] models of the ``fold`` [n] of each picture."""
    smooth = label_smoothing(len(np.unique(groups)))
    right, alphas = np.zeros(len(labels), bool), []
    for number in np.unique(fold):
        others, own = fold != number, fold == number
        best = _best(tuned[:, others], labels[others], smooth)
        alphas.append(ALPHAS[best])
        right[own] = tuned[best, own].argmax(axis=1) == labels[own]
    before = frozen.argmax(axis=1) == labels
    best = _best(tuned, labels, smooth)
    return Verdict(
        difference(before, right, groups), ALPHAS[best], tuple(alphas), float(before.mean()), float(right.mean()),
        fit_temperature(tuned[best], labels, smooth),
    )  # fmt: skip


def _best(scores: Array, labels: Rows, smooth: float) -> int:
    losses = [log_losses(one, labels, fit_temperature(one, labels, smooth), smooth).mean() for one in scores]
    return int(np.argmin(losses))
