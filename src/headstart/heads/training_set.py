"""TrainingSet: the vectors of each tap, the labels and the groups of the images to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.integers import AnyVectors
from headstart.heads.kinds import Labels, LinearProblem, Targets
from headstart.heads.vectors import Vectors
from headstart.stats.temperature import label_smoothing

Array = NDArray[np.float64]
SCALINGS = ("tap", "channel")
MANY_IMAGES = 2000  # from here on memory and time are saved: one scatter matrix for all scalings, fewer directions
STD_FLOOR = 0.001  # of a tap's mean standard deviation: what is added to each, so that no channel is all noise


@dataclass(frozen=True)
class _Moments:
    """Of the vectors of all taps side by side: mean [d], mean square [d], and sum of each class [k, d]."""

    mean: Array
    squares: Array
    class_sums: Array


@dataclass(frozen=True)
class TrainingSet:
    """Vectors by tap, shallow to deep, [n, channels], and what they are to be classified as.

    The first ``images`` of the n rows are images, the others further views of them: learned from, and left out with
    their groups, but not evaluated. ``smoothing`` is the share of probability that held-out labels leave open.
    ``deepest_basis`` is what the function of that name returned for these vectors, None if it was not called.
    """

    values: Mapping[str, AnyVectors]
    targets: Targets
    images: int
    smoothing: float
    deepest_basis: Eigenbasis | None = None

    @classmethod
    def of(
        cls,
        values: Mapping[str, AnyVectors],
        labels: Labels,
        groups: Labels,
        images: int | None = None,
        deepest_basis: Eigenbasis | None = None,
    ) -> TrainingSet:
        """Put it together from ``labels`` [n] in 0..k-1 and ``groups`` [n]; all rows are images unless stated."""
        targets = Targets(labels, int(labels.max()) + 1, groups)
        smoothing = label_smoothing(len(np.unique(groups)))
        return cls(values, targets, len(labels) if images is None else images, smoothing, deepest_basis)

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

    def scales(self, taps: Sequence[str], scaling: str) -> Array:
        """Return the factors [d] by which the vectors of taps side by side are multiplied.

        "tap": one for each tap, which gives all taps the same total variance, so that none dominates another.
        "channel": each channel is divided by its standard deviation first. "dropout": each is divided by the root of
        its summed square, which makes the penalty equal that is dropout in closed form. Moments are those of all
        images, held-out groups included, since they use no labels.
        """
        parts = []
        for tap in taps:
            mean, squares = self._moments.mean[self._columns[tap]], self._moments.squares[self._columns[tap]]
            variance = np.maximum(squares - mean**2, 0)
            if scaling == "dropout":
                summed = squares * len(self)
                parts.append(np.where(summed > 0, 1 / np.sqrt(np.where(summed > 0, summed, 1)), 0.0))
                continue
            scales = np.ones(len(mean))
            if scaling == "channel":
                deviation = np.sqrt(variance)
                floor = STD_FLOOR * float(deviation.mean())
                scales = 1 / (deviation + floor) if floor > 0 else scales
            total = float((variance * scales**2).sum())
            parts.append(scales / np.sqrt(total) if total > 0 else scales)
        return np.concatenate(parts)

    def vectors(self, taps: Sequence[str], scaling: str = "tap") -> Vectors:
        """Put taps side by side, scaled."""
        return Vectors(tuple(self.values[tap] for tap in taps), self.scales(taps, scaling))

    def matrix(self, taps: Sequence[str]) -> NDArray[np.float32]:
        """Put taps side by side [n, d] as they are."""
        return np.concatenate([np.asarray(self.values[tap], np.float32) for tap in taps], axis=1)

    def problem(
        self,
        taps: Sequence[str],
        scaling: str,
        rows: NDArray[np.integer] | None = None,
        directions: int | None = None,
    ) -> LinearProblem:
        """Return what heads on these taps are solved for, in so many directions, in all unless stated.

        Held-out scores are wanted of ``rows``, of all unless stated.
        """
        basis = self.basis(taps, scaling, directions)
        columns = np.concatenate([self._columns[tap] for tap in taps])
        return LinearProblem.of(basis, self.targets, rows, self._moments.class_sums[:, columns] * basis.vectors.scales)

    def basis(self, taps: Sequence[str], scaling: str, directions: int | None = None) -> Eigenbasis:
        """Return the eigenbasis of these taps, in so many directions, in all unless stated."""
        is_deepest = tuple(taps) == tuple(self.values)[-1:] and scaling == "tap" and directions is None
        if is_deepest and self.deepest_basis is not None:
            return self.deepest_basis
        vectors, columns = self.vectors(taps, scaling), np.concatenate([self._columns[tap] for tap in taps])
        scatter = None
        if len(self) >= MANY_IMAGES and vectors.width < len(self) and set(taps) <= set(self._deepest):
            known_columns = np.concatenate([self._columns[tap] for tap in self._deepest])
            at = np.searchsorted(known_columns, columns)
            scatter = self._scatter[np.ix_(at, at)] * np.outer(vectors.scales, vectors.scales)
        return Eigenbasis.of(vectors, self._moments.mean[columns] * vectors.scales, scatter, directions)

    @property
    def _deepest(self) -> tuple[str, ...]:
        """The taps whose scatter matrix is computed once for all scalings: those that are tried together."""
        return tuple(self.values)[-3:]

    @cached_property
    def _columns(self) -> dict[str, NDArray[np.int64]]:
        """Where the channels of each tap are when all taps are side by side."""
        edges = np.cumsum([0, *(part.shape[1] for part in self.values.values())])
        return {tap: np.arange(edges[i], edges[i + 1]) for i, tap in enumerate(self.values)}

    @cached_property
    def _moments(self) -> _Moments:
        vectors = Vectors.of(*self.values.values())
        return _Moments(*vectors.moments(), vectors.class_sums(self.targets.labels, self.targets.classes))

    @cached_property
    def _scatter(self) -> Array:
        vectors = Vectors.of(*(self.values[tap] for tap in self._deepest))
        columns = np.concatenate([self._columns[tap] for tap in self._deepest])
        return vectors.scatter(self._moments.mean[columns])


def deepest_basis(values: Mapping[str, AnyVectors]) -> Eigenbasis:
    """Return the basis of the deepest tap of ``values``, which needs no labels and which heads are first tried on."""
    count = len(next(iter(values.values())))
    return TrainingSet.of(values, np.zeros(count, np.int64), np.arange(count)).basis(tuple(values)[-1:], "tap")


def tap_sets(taps: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return each tap alone, and the deepest two and three together."""
    return [(tap,) for tap in reversed(taps)] + [taps[-count:] for count in range(2, min(3, len(taps)) + 1)]
