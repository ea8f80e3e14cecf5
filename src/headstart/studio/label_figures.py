"""What the algebra shows of several labels an image: mAP, each label, cells that look wrong, uncertain images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart.check.cells import cell_issues
from headstart.check.finding import Finding
from headstart.classifier import MultiLabelFitResult
from headstart.data import Item
from headstart.data.label_sets import label_matrix
from headstart.heads.label_ridge import LabelTargets
from headstart.heads.live_labels import LiveLabels
from headstart.stats.label_metrics import RESAMPLES, Estimate, MultiLabelMetrics, multi_label_metrics
from headstart.stats.label_thresholds import DEFAULT
from headstart.studio.choice import FullChoice
from headstart.studio.guesses import Guesses
from headstart.studio.label_counts import LabelCounts
from headstart.studio.label_sets import is_cell_accepted, labelled_item
from headstart.studio.live import Live
from headstart.studio.records import ImageRecord
from headstart.studio.state import State

Array = NDArray[np.float64]
LIVE_RESAMPLES = 20, 100  # at least and at most, for intervals until the full choice: a click waits for them
LIVE_CELLS = 10_000_000  # over all of these resamples


@dataclass(frozen=True)
class LabelFigures:
    """Predictions of ``names`` [k], the labels that can be learned, for the images ``ids`` [n], and what follows.

    The first ``measured`` images are those that somebody has labelled: what is known of them is predicted with their
    group left out. All else in ``probabilities`` [n, k] the model of the last full choice says, which has not learned
    it; NaN where it cannot. ``groups`` and ``metrics`` are of the images that are measured; ``thresholds`` [k] are
    those from which on a label is said to hold. ``left_out`` are labels that can be learned and of which nothing is
    predicted until the next full choice. ``issues`` are the cells of each image that look wrong, most confident
    first. ``is_followed`` says that the heads have learned the labels as they are, else they are of the last full
    choice.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    measured: int
    groups: NDArray[np.int64] = field(repr=False)
    probabilities: Array = field(repr=False)
    thresholds: Array
    left_out: tuple[str, ...]
    metrics: MultiLabelMetrics = field(repr=False)
    issues: Mapping[str, tuple[Finding, ...]] = field(repr=False)
    is_followed: bool

    @property
    def uncertainty(self) -> Array:
        """How near to a half the most uncertain label of each image is [n], 0 to 1; NaN without a prediction."""
        cells = 1 - np.abs(2 * self.probabilities - 1)
        uncertainty: Array = np.where(np.isnan(cells).all(axis=1), np.nan, np.nan_to_num(cells, nan=-1).max(axis=1))
        return uncertainty

    def uncertain_label(self, row: int) -> int:
        """Return the place of the most uncertain label of an image."""
        return int(np.nanargmin(np.abs(2 * self.probabilities[row] - 1)))

    def holding(self, row: int) -> list[str]:
        """Return the labels that are said to hold of an image."""
        holds = np.nan_to_num(self.probabilities[row], nan=-1) >= self.thresholds
        return [name for name, is_held in zip(self.names, holds.tolist(), strict=True) if is_held]

    def unpredicted(self, row: int) -> list[str]:
        """Return the labels that can be learned and of which nothing is predicted of an image."""
        missing = np.isnan(self.probabilities[row]).tolist()
        return [*self.left_out, *(name for name, is_missing in zip(self.names, missing, strict=True) if is_missing)]

    def evaluation(self) -> dict[str, object]:
        """Return the mean average precision and its interval in the JSON form."""
        mean = self.metrics.mean_average_precision
        return {
            "mean_average_precision": mean.value,
            "interval": None if mean.interval is None else list(mean.interval),
            "images": self.measured,
            "groups": len(np.unique(self.groups)),
            "labels": len(self.names),
        }

    def by_label(self) -> list[dict[str, object]]:
        """Return the numbers of each label in the JSON form."""
        return [
            {
                "name": label.name,
                "images": label.support,
                "groups": label.groups,
                "unknown": label.unknown,
                "average_precision": label.average_precision.to_dict(),
                "precision": label.precision.to_dict(),
                "recall": label.recall.to_dict(),
                "f1": label.f1.to_dict(),
                "threshold": threshold,
            }
            for label, threshold in zip(self.metrics.per_label, self.thresholds.tolist(), strict=True)
        ]

    def overall(self) -> dict[str, object]:
        """Return the numbers of all labels together in the JSON form."""
        together: dict[str, Estimate] = {
            "micro_f1": self.metrics.micro_f1,
            "macro_f1": self.metrics.macro_f1,
            "exact_match": self.metrics.exact_match,
        }
        return {name: estimate.to_dict() for name, estimate in together.items()}


def open_issues(figures: LabelFigures | None, record: ImageRecord) -> list[Finding]:
    """Return the cells of an image that look wrong and that nobody has accepted."""
    found = () if figures is None else figures.issues.get(record.id, ())
    return [finding for finding in found if not is_cell_accepted(record, finding.suggested_label)]


def label_figures(
    live: Live, state: State, full: FullChoice, guesses: Guesses, counts: LabelCounts
) -> LabelFigures | None:
    """Put the figures together for the labels as they are now; None where there is nothing to measure."""
    names = counts.learned
    records = [state.records.get(id) for id in live.ids]
    present = np.array(
        [i for i, r in enumerate(records) if r is not None and r.labels is not None and r.split == "train"], np.int64
    )
    if not names or len(present) < 2:
        return None
    ids, groups = tuple(live.ids[i] for i in present), live.groups[present]
    items = [labelled_item(Item("", None, "train"), state.records[id].labels) for id in ids]
    values, known = label_matrix(items, names)
    targets = LabelTargets(values, known, groups)
    found = None
    if isinstance(live.head, LiveLabels):
        place = {name: i for i, name in enumerate(full.result.model.classes)}
        found = live.head.held_out(targets, present, np.array([place.get(name, -1) for name in names]))
    is_followed = found is not None
    if found is None:
        found = _last_held_out(full, ids, names)
        names, values, known, found = _of_predicted(names, values, known, found)
        if not names:
            return None
        targets = LabelTargets(values, known, groups)
    decided = full.result.model.label_thresholds
    assert decided is not None
    least = dict(zip(full.result.model.classes, decided.thresholds, strict=True))
    thresholds = np.array([least.get(name, DEFAULT) for name in names])
    probabilities = np.where(known, found, 0.0)
    live_resamples = int(np.clip(LIVE_CELLS // max(1, values.size), *LIVE_RESAMPLES))
    resamples = RESAMPLES if full.version == state.version else live_resamples
    decisions = probabilities >= thresholds
    metrics = multi_label_metrics(probabilities, decisions, values, known, names, groups, resamples=resamples)
    issues: dict[str, list[Finding]] = {}
    measured = set(ids)
    for finding in sorted(cell_issues(ids, names, targets, probabilities), key=lambda f: -f.confidence):
        issues.setdefault(finding.files[0], []).append(finding)
    others = tuple(id for id in state.records if id in guesses.rows and id not in measured)
    everything = (*ids, *others)
    shown = guesses.of(everything, names)
    shown[: len(ids)] = np.where(known, found, shown[: len(ids)])
    kept = {id: tuple(findings) for id, findings in issues.items()}
    left_out = tuple(name for name in counts.learned if name not in names)
    return LabelFigures(names, everything, len(ids), groups, shown, thresholds, left_out, metrics, kept, is_followed)


def _last_held_out(full: FullChoice, ids: tuple[str, ...], names: tuple[str, ...]) -> Array:
    """Return what the last full choice predicted of images with their group left out, NaN where it did not."""
    assert isinstance(full.result, MultiLabelFitResult)
    held_out = Guesses(
        full.result.split.names, {id: i for i, id in enumerate(full.ids)}, full.result.selected.probabilities
    )
    return held_out.of(ids, names)


def _of_predicted(
    names: tuple[str, ...], values: NDArray[np.bool_], known: NDArray[np.bool_], found: Array
) -> tuple[tuple[str, ...], NDArray[np.bool_], NDArray[np.bool_], Array]:
    """Leave out cells that are not predicted, and labels of which no cell is."""
    known = known & ~np.isnan(found)
    has_both = (values & known).any(axis=0) & (~values & known).any(axis=0)
    columns = np.flatnonzero(has_both)
    return tuple(names[c] for c in columns), values[:, columns], known[:, columns], found[:, columns]
