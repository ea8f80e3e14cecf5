"""TrainingSet: the vectors of each tap, the labels and the groups of the images to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.heads.kinds import Labels, Targets
from headstart.heads.random_features import draw_random_features
from headstart.heads.vectors import Vectors
from headstart.stats.temperature import label_smoothing

RANDOM_FEATURES = 1024  # how many


@dataclass(frozen=True)
class TrainingSet:
    """Vectors by tap, shallow to deep, [n, channels], and what they are to be classified as.

    The first ``images`` of the n rows are images, the others further views of them: learned from, and left out with
    their groups, but not evaluated. ``smoothing`` is the share of probability that held-out labels leave open.
    """

    values: Mapping[str, NDArray[np.floating]]
    targets: Targets
    images: int
    smoothing: float

    @classmethod
    def of(
        cls,
        values: Mapping[str, NDArray[np.floating]],
        labels: Labels,
        groups: Labels,
        images: int | None = None,
    ) -> TrainingSet:
        """Put it together from ``labels`` [n] in 0..k-1 and ``groups`` [n]; all rows are images unless stated."""
        targets = Targets(labels, int(labels.max()) + 1, groups)
        smoothing = label_smoothing(len(np.unique(groups)))
        return cls(values, targets, len(labels) if images is None else images, smoothing)

    def __len__(self) -> int:
        return len(self.targets.labels)

    @property
    def image_labels(self) -> Labels:
        """The labels of the images alone, without further views."""
        return self.targets.labels[: self.images]

    @property
    def image_groups(self) -> Labels:
        """The groups of the images alone, without further views."""
        return self.targets.groups[: self.images]

    def vectors(self, taps: Sequence[str]) -> Vectors:
        """Put taps side by side, each scaled to the same total variance, so that none dominates another."""
        parts = tuple(self.values[tap] for tap in taps)
        scales = []
        for part in parts:
            mean, squares = Vectors.of(part).moments()
            variance = float((squares - mean**2).sum())
            scales.append(np.full(part.shape[1], 1 / np.sqrt(variance) if variance > 0 else 1.0))
        return Vectors(parts, np.concatenate(scales))

    def dropout_vectors(self, taps: Sequence[str]) -> Vectors:
        """Put taps side by side, scaled for closed-form dropout.

        The dropout penalty of a feature is proportional to its second moment. Dividing each feature by the root of its
        second moment makes the penalty equal for all. Moments are computed over all images, held-out groups included,
        since they use no labels.
        """
        plain = Vectors.of(*(self.values[tap] for tap in taps))
        moments = plain.moments()[1] * len(plain)
        return replace(plain, scales=np.where(moments > 0, 1 / np.sqrt(np.where(moments > 0, moments, 1)), 0.0))

    def random_feature_vectors(self, taps: Sequence[str], seed: int) -> Vectors:
        """Compute random ReLU features of the taps."""
        plain = self.vectors(taps)
        return replace(plain, random_features=draw_random_features(plain, RANDOM_FEATURES, seed))
