"""Whether fine-tuning is better than the frozen model, measured on images whose groups neither was trained on.

In a cross-validation over groups every image is predicted by a frozen and by a fine-tuned model that were made without
its fold. How far to go from the frozen weights to the fine-tuned ones (alpha of WiSE-FT, Wortsman et al. 2022) is
chosen for each fold by the others, so that no image takes part in the choice by which it is evaluated; the networks of
the other folds were trained on it, as in any cross-validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.heads.folds import count_by_group, stratified_group_folds
from headstart.stats.paired import PairedDifference, paired_difference
from headstart.stats.temperature import fit_temperature, label_smoothing, log_losses

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
ALPHAS = (0.25, 0.5, 0.75, 1.0)
MAX_FOLDS = 3


@dataclass(frozen=True)
class Verdict:
    """Comparison of the fine-tuned with the frozen model on images held out.

    ``difference`` has the frozen model first, the fine-tuned one second. ``alpha`` is chosen by all folds together,
    ``alphas`` are those chosen for each fold by the others. The accuracies, 0 to 1, are those that ``difference``
    compares. ``temperature`` calibrates the fine-tuned scores at ``alpha``.
    """

    difference: PairedDifference
    alpha: float
    alphas: tuple[float, ...]
    frozen_accuracy: float
    tuned_accuracy: float
    temperature: float

    @property
    def is_better(self) -> bool:
        """Whether the fine-tuned model is significantly better."""
        return self.difference.significant and self.difference.difference > 0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form in ``run.json``."""
        return {
            "alpha": self.alpha,
            "alphas_by_fold": list(self.alphas),
            "frozen": self.frozen_accuracy,
            "tuned": self.tuned_accuracy,
            "difference": self.difference.to_dict(),
        }

    def __str__(self) -> str:
        difference = self.difference
        low, high = (100 * end for end in difference.interval)
        relation = "is better than" if self.is_better else "is not shown to be better than"
        return (
            f"Fine-tuned {relation} frozen: {self.tuned_accuracy:.1%} against {self.frozen_accuracy:.1%} on images "
            f"whose groups were held out ({100 * difference.difference:+.1f} points, 95% interval {low:+.1f} to "
            f"{high:+.1f}; only the fine-tuned model is correct on {difference.only_second} images, only the frozen "
            f"one on {difference.only_first}, McNemar p {difference.p_value:.2g}); "
            f"the {'fine-tuned' if self.is_better else 'frozen'} model is kept."
        )


def make_folds(labels: NDArray[Any], groups: Rows, seed: int) -> list[tuple[Rows, Rows]] | None:
    """Split images with ``labels`` and ``groups`` [n] into folds: rows to train on and rows to test on.

    No group is divided, and every class is trained on in every fold, of several labels an image every answer to every
    label: ``labels`` are those of ``count_by_group``. None where that is impossible.
    """
    counts, group = count_by_group(labels, groups)
    fewest_groups = int((counts > 0).sum(axis=0).min())
    for count in range(min(MAX_FOLDS, fewest_groups), 1, -1):
        folds = stratified_group_folds(labels, groups, count, seed)
        has_all_classes = all(counts[np.unique(group[train])].any(axis=0).all() for train, _ in folds)
        if len(folds) > 1 and has_all_classes:
            return folds
    return None


def compare_to_frozen(frozen: Array, tuned: Array, labels: Rows, groups: Rows, folds: Rows) -> Verdict:
    """Compare held-out scores of the frozen [n, k] and the fine-tuned [alphas, n, k] models.

    ``labels`` [n] are the true classes, ``folds`` [n] the fold in which each image was held out.
    """
    smoothing = label_smoothing(len(np.unique(groups)))
    is_tuned_correct = np.zeros(len(labels), bool)
    alphas = []
    for fold in np.unique(folds):
        is_test = folds == fold
        best = _best_alpha(tuned[:, ~is_test], labels[~is_test], smoothing)
        alphas.append(ALPHAS[best])
        is_tuned_correct[is_test] = tuned[best, is_test].argmax(axis=1) == labels[is_test]
    is_frozen_correct = frozen.argmax(axis=1) == labels
    best = _best_alpha(tuned, labels, smoothing)
    return Verdict(
        paired_difference(is_frozen_correct, is_tuned_correct, groups),
        ALPHAS[best],
        tuple(alphas),
        float(is_frozen_correct.mean()),
        float(is_tuned_correct.mean()),
        fit_temperature(tuned[best], labels, smoothing),
    )


def _best_alpha(scores: Array, labels: Rows, smoothing: float) -> int:
    """Return the index into ``ALPHAS`` with the least log-loss of scores [alphas, n, k]."""
    losses = [
        log_losses(alpha_scores, labels, fit_temperature(alpha_scores, labels, smoothing), smoothing).mean()
        for alpha_scores in scores
    ]
    return int(np.argmin(losses))
