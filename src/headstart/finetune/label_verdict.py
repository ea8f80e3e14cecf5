"""Whether fine-tuning is better than the frozen model where an image may have several labels.

The counterpart of ``verdict`` with the log-loss in the place of the accuracy. Both models are calibrated, each label by
Platt scaling. For each fold the calibrations, and how far to go to the fine-tuned weights, are chosen by the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.finetune.verdict import ALPHAS, Array, Rows
from headstart.stats.label_metrics import average_precisions
from headstart.stats.paired import Difference
from headstart.stats.paired_losses import loss_difference
from headstart.stats.platt import Platt, fit_platt, log_losses, platt_targets


@dataclass(frozen=True)
class LabelVerdict:
    """Comparison of the fine-tuned with the frozen model on images held out.

    ``difference`` has the frozen model first, the fine-tuned one second. ``alpha`` and ``alphas`` are those of
    ``Verdict``. The losses are the mean log-losses, in nats, of the known cells that ``difference`` compares, the
    precisions the mean average precisions, 0 to 1. ``platt`` calibrates the fine-tuned scores at ``alpha``.
    """

    difference: Difference
    alpha: float
    alphas: tuple[float, ...]
    frozen_loss: float
    tuned_loss: float
    frozen_precision: float
    tuned_precision: float
    platt: Platt

    @property
    def is_better(self) -> bool:
        """Whether the fine-tuned model is significantly better."""
        return self.difference.significant and self.difference.difference < 0

    def __str__(self) -> str:
        difference = self.difference
        low, high = difference.interval
        relation = "is better than" if self.is_better else "is not shown to be better than"
        return (
            f"Fine-tuned {relation} frozen: log-loss {self.tuned_loss:.3f} against {self.frozen_loss:.3f} for a label "
            f"of an image whose group was held out ({difference.difference:+.3f}, 95% interval {low:+.3f} to "
            f"{high:+.3f}; permutation test over groups, p {difference.p_value:.2g}), mAP "
            f"{self.tuned_precision:.1%} against {self.frozen_precision:.1%}; "
            f"the {'fine-tuned' if self.is_better else 'frozen'} model is kept."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form in ``run.json``."""
        return {
            "alpha": self.alpha,
            "alphas_by_fold": list(self.alphas),
            "frozen": self.frozen_loss,
            "tuned": self.tuned_loss,
            "difference": self.difference.to_dict(),
            "mean_average_precision": {"frozen": self.frozen_precision, "tuned": self.tuned_precision},
        }


def compare_labels_to_frozen(
    frozen: Array, tuned: Array, labels: NDArray[np.floating], groups: Rows, folds: Rows
) -> LabelVerdict:
    """Compare held-out scores of the frozen [n, k] and the fine-tuned [alphas, n, k] models.

    ``labels`` [n, k] are 1, 0, or NaN where that is not known; ``folds`` [n] the fold in which each image was held out.
    """
    values, known = labels == 1, ~np.isnan(labels)
    tuned_logits, alphas = calibrate_held_out(tuned, labels, groups, folds)
    calibrated = {"frozen": calibrate_held_out(frozen[None], labels, groups, folds)[0], "tuned": tuned_logits}
    losses = {name: log_losses(logits, values.astype(np.float64)) for name, logits in calibrated.items()}
    precisions = {
        name: float(np.nanmean(average_precisions(logits, values, known))) for name, logits in calibrated.items()
    }
    best, platt = _best_alpha(tuned, labels, groups)
    return LabelVerdict(
        loss_difference(losses["frozen"], losses["tuned"], known, groups),
        ALPHAS[best],
        tuple(ALPHAS[i] for i in alphas),
        float(losses["frozen"][known].mean()),
        float(losses["tuned"][known].mean()),
        precisions["frozen"],
        precisions["tuned"],
        platt,
    )


def calibrate_held_out(
    scores: Array, labels: NDArray[np.floating], groups: Rows, folds: Rows
) -> tuple[Array, tuple[int, ...]]:
    """Return log-odds [n, k] of held-out scores [alphas, n, k], and which alpha was taken for each fold.

    The alpha and the calibration of a fold are chosen by the others.
    """
    logits, chosen = np.zeros(scores.shape[1:]), []
    for fold in np.unique(folds):
        is_test = folds == fold
        best, platt = _best_alpha(scores[:, ~is_test], labels[~is_test], groups[~is_test])
        logits[is_test] = platt.logits(scores[best, is_test])
        chosen.append(best)
    return logits, tuple(chosen)


def _best_alpha(scores: Array, labels: NDArray[np.floating], groups: Rows) -> tuple[int, Platt]:
    """Return which of scores [alphas, n, k] have the least log-loss once they are calibrated, and their calibration."""
    values, known = labels == 1, ~np.isnan(labels)
    targets = platt_targets(values, known, groups)
    platts = [fit_platt(of_alpha, targets, known) for of_alpha in scores]
    losses = [
        log_losses(platt.logits(of_alpha), targets)[known].mean()
        for platt, of_alpha in zip(platts, scores, strict=True)
    ]
    best = int(np.argmin(losses))
    return best, platts[best]
