"""The rows of a comparison of backbones: order, ties, the Pareto set, and the one that is recommended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.heads.candidates import ScoredCandidate, tied_with_best
from headstart.stats.accuracy import Accuracy, errors_to_each_side
from headstart.stats.label_metrics import Estimate
from headstart.stats.paired import grouped_difference

ABOUT_AS_FAST = 1.05  # times as fast, or as small: what a short timed run cannot tell


@dataclass(frozen=True)
class ComparedCut:
    """A backbone at a cut: the leave-one-group-out loss of its best head, and what it costs on this machine.

    ``weights`` is the file it was given, None with the published weights. ``log_loss`` in nats with its 95%
    ``interval``; ``accuracy`` is the mAP where an image may have several labels. ``behind`` is how much the loss is
    above that of the best row, with an interval; ``tied``: that difference is within the noise. ``bytes`` of the graph
    up to the cut; ``images_per_second`` of it, None if there was no time to measure. ``pareto``: no row is at least as
    good in loss, speed and size and better in one. ``fit_cut``: the cut that ``fit`` would choose of this backbone.
    ``variant`` are the values of the options that vary, by their names, and ``variant_label`` the same for people;
    empty where none do.
    """

    backbone: str
    weights: str | None
    sha256: str
    licence: str
    cut: tuple[str, ...]
    head: Mapping[str, object]
    log_loss: float
    interval: tuple[float, float]
    accuracy: Accuracy | Estimate
    bytes: int = 0
    images_per_second: float | None = None
    behind: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tied: bool = True
    pareto: bool = True
    recommended: bool = False
    fit_cut: bool = True
    variant: Mapping[str, object] = field(default_factory=dict)
    variant_label: str = ""

    @classmethod
    def of(
        cls,
        backbone_id: str,
        weights: str | None,
        backbone: Backbone,
        losses: NDArray[np.float64],
        groups: NDArray[np.integer],
        *,
        cut: tuple[str, ...],
        head: Mapping[str, object],
        accuracy: Accuracy | Estimate,
    ) -> ComparedCut:
        """Make a row from the held-out losses [n] and groups [n] of the images; size and speed are not known yet."""
        loss, error = grouped_difference(losses, np.zeros(len(losses)), groups)
        half = errors_to_each_side(len(np.unique(groups))) * error
        interval = (max(0.0, loss - half), loss + half)
        return cls(backbone_id, weights, backbone.sha256, backbone.licence, cut, head, loss, interval, accuracy)

    @property
    def label(self) -> str:
        """The backbone, its file of weights if it was given one, and the variant if there are several."""
        backbone = self.backbone if self.weights is None else f"{self.backbone} with {self.weights}"
        return f"{backbone}, {self.variant_label}" if self.variant_label else backbone

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "backbone": self.backbone,
            "weights": self.weights,
            "sha256": self.sha256,
            "licence": self.licence,
            "cut": list(self.cut),
            "variant": dict(self.variant),
            "head": dict(self.head),
            "log_loss": {"value": self.log_loss, "interval": list(self.interval)},
            "mean_average_precision" if isinstance(self.accuracy, Estimate) else "accuracy": self.accuracy.to_dict(),
            "bytes": self.bytes,
            "pictures_per_second": self.images_per_second,
            "behind_best": {"value": self.behind[0], "interval": list(self.behind[1:])},
            "fit_cut": self.fit_cut,
            "tied_with_best": self.tied,
            "pareto": self.pareto,
            "recommended": self.recommended,
        }


def rank(
    scored: Sequence[tuple[ComparedCut, ScoredCandidate]], groups: NDArray[np.integer]
) -> tuple[tuple[ComparedCut, ...], str]:
    """Mark ties, the Pareto set and the recommended one of rows in order of loss; return them and the reason."""
    candidates = [candidate for _, candidate in scored]
    best = candidates[0]
    rows = []
    for (row, candidate), tied in zip(scored, tied_with_best(candidates, groups), strict=True):
        behind, error = grouped_difference(candidate.losses, best.losses, groups)
        half = errors_to_each_side(len(np.unique(groups))) * error
        rows.append(replace(row, tied=tied, behind=(behind, behind - half, behind + half)))
    rows = [replace(row, pareto=not any(_dominates(other, row) for other in rows)) for row in rows]
    # A shallow cut can tie on training scenes and fail on others (docs: choosing a head): fit's own preference holds.
    eligible = [row for row in rows if row.tied and row.fit_cut] or [row for row in rows if row.tied]
    chosen = _fastest(eligible)
    rows = [replace(row, recommended=row is chosen) for row in rows]
    return tuple(rows), _reason(chosen, rows)


def _fastest(rows: Sequence[ComparedCut]) -> ComparedCut:
    """Return the fastest of ``rows``, or the smallest where no speed was measured; of those about alike the first."""
    speeds = [row.images_per_second or 0.0 for row in rows]
    if not any(speeds):
        speeds = [1 / max(1, row.bytes) for row in rows]
    least = max(speeds) / ABOUT_AS_FAST
    if speeds[0] < least:  # what is chosen in its place is to be faster than it by as much
        least = max(least, speeds[0] * ABOUT_AS_FAST)
    return next(row for row, speed in zip(rows, speeds, strict=True) if speed >= least)


def _dominates(first: ComparedCut, second: ComparedCut) -> bool:
    a, b = ((row.log_loss, -(row.images_per_second or 0.0), row.bytes) for row in (first, second))
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _reason(chosen: ComparedCut, rows: Sequence[ComparedCut]) -> str:
    best = rows[0]
    if len(rows) == 1:
        return "the only one compared"
    if (chosen.label, chosen.cut) == (best.label, best.cut):
        if sum(row.tied for row in rows) == 1:
            return "the best, and no other is as good within the noise"
        return "the best, and none that is as good within the noise is faster"
    tied = f"as good as the best ({best.label} at {', '.join(best.cut)}) within the noise"
    if not chosen.images_per_second or not best.images_per_second:
        return f"{tied}, and smaller" if chosen.bytes < best.bytes else f"{tied}; speeds were not measured"
    ratio = chosen.images_per_second / best.images_per_second
    return f"{tied}, and {f'{ratio:.1f} times as fast' if ratio >= ABOUT_AS_FAST else 'what fit would choose'}"
