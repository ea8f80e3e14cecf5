"""Two models or more on the same pictures: is one really better, or was it luck?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from headstart import backbones
from headstart.classifier import load
from headstart.data import Dataset, open_dataset
from headstart.errors import DataError, OptionError
from headstart.features.cache import FeatureCache
from headstart.features.features import embed
from headstart.model.predictions import Evaluation, judge, labelled_part
from headstart.splits.groups import Groups
from headstart.splits.split import group_images
from headstart.stats.accuracy import group_bootstrap, holm, mcnemar

LIMIT = 0.05  # of the chance that models without a difference are said to have one


@dataclass(frozen=True)
class Difference:
    """How two models differ on the same pictures, ``first`` and ``second`` being their places.

    ``difference`` is the accuracy of the second less that of the first, with a 95% interval from groups resampled;
    ``only_first`` and ``only_second`` count pictures that one alone gets right, ``p_value`` is their exact McNemar
    test, by Holm's rule for all pairs. ``real``: the test is below 0.05 and the interval leaves out 0.
    """

    first: int
    second: int
    only_first: int
    only_second: int
    difference: float
    interval: tuple[float, float]
    p_value: float

    @property
    def real(self) -> bool:
        """Whether chance hardly explains it."""
        return self.p_value < LIMIT and not self.interval[0] <= 0 <= self.interval[1]

    def to_dict(self) -> dict[str, object]:
        """The JSON form, the models' places apart."""
        return {
            "difference": self.difference, "interval": list(self.interval), "only_first": self.only_first,
            "only_second": self.only_second, "p_value": self.p_value, "real": self.real,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """The models' evaluations, the groups of the pictures, and a difference for each pair of models."""

    models: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    groups: Groups
    differences: tuple[Difference, ...]

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "models": [
                {"model": name, **found.to_dict()} for name, found in zip(self.models, self.evaluations, strict=True)
            ],
            "groups": {"count": self.groups.count, "largest": self.groups.largest, "method": self.groups.method},
            "differences": [
                {"first": self.models[pair.first], "second": self.models[pair.second], **pair.to_dict()}
                for pair in self.differences
            ],
        }


def compare(
    models: Sequence[str],
    data: str,
    *,
    group_by: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Judge model folders by the same labelled pictures.

    ``group_by`` is "auto" (near duplicates and scenes, by the features of the built-in backbone), "none" or a column.
    Raises HeadstartError.
    """
    if len(models) < 2:
        raise OptionError("A comparison needs two models or more.")
    dataset = labelled_part(open_dataset(data, group_column=None if group_by in ("auto", "none") else group_by))
    found = []
    for model in models:
        classifier = load(model).set_params(runtime=runtime, precision=precision, workers=workers)
        found.append(judge(classifier.answer(dataset, progress=progress), dataset))
    if any(other.paths != found[0].paths for other in found[1:]):
        raise DataError(f"The pictures of {data} changed while they were read; compare again.")
    groups = _groups(dataset, found[0], group_by, runtime, workers, progress)
    return Comparison(tuple(models), tuple(found), groups, differences(found, groups))


def difference(first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.integer]) -> Difference:
    """How two models differ that were right on the same pictures as ``first`` [n] and ``second`` [n] say."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    change = second.astype(np.float64) - first
    return Difference(
        0, 1, only_first, only_second, float(change.mean()), group_bootstrap(change, groups),
        mcnemar(only_first, only_second),
    )  # fmt: skip


def differences(found: Sequence[Evaluation], groups: Groups) -> tuple[Difference, ...]:
    """Every pair of evaluations of the same pictures."""
    pairs = []
    for first, second in combinations(range(len(found)), 2):
        pair = difference(found[first].correct, found[second].correct, groups.index)
        pairs.append(replace(pair, first=first, second=second))
    adjusted = holm([pair.p_value for pair in pairs])
    return tuple(replace(pair, p_value=p) for pair, p in zip(pairs, adjusted, strict=True))


def _groups(
    dataset: Dataset, found: Evaluation, group_by: str, runtime: str, workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> Groups:  # fmt: skip
    with FeatureCache() as cache:
        features = embed(
            dataset, backbones.load("headstart-s"), cache=cache, runtime=runtime, workers=workers, progress=progress
        )
    if len(features.index) != len(found.paths):
        raise DataError(f"The pictures of {dataset.uri} changed while they were read; compare again.")
    labels = np.unique(np.array(found.truth), return_inverse=True)[1]
    return group_images(features, dataset, np.arange(len(labels)), labels, group_by)
