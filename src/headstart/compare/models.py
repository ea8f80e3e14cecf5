"""Two models or more on the same images: is one better, or could the difference be chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from headstart import backbones
from headstart.backbones import DEFAULT_BACKBONE
from headstart.data import Dataset, ReadOptions, as_dataset
from headstart.errors import DataError, OptionError
from headstart.features import Compute, FeatureCache, embed
from headstart.features.features import Progress
from headstart.model import Evaluation, Predictor
from headstart.model.predictor import labelled_part
from headstart.splits.groups import Groups
from headstart.splits.named import parse_group_by
from headstart.splits.split import group_images
from headstart.stats.paired import PairedDifference, holm, paired_difference


@dataclass(frozen=True)
class ModelDifference:
    """The difference between two models, which are given by their places among the models compared."""

    first: int
    second: int
    paired: PairedDifference


@dataclass(frozen=True)
class ModelComparison:
    """The evaluations of several models, the groups of the images, and the difference of each pair of models."""

    models: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    groups: Groups
    differences: tuple[ModelDifference, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "models": [
                {"model": name, **evaluation.to_dict()}
                for name, evaluation in zip(self.models, self.evaluations, strict=True)
            ],
            "groups": self.groups.to_dict(),
            "differences": [
                {"first": self.models[pair.first], "second": self.models[pair.second], **pair.paired.to_dict()}
                for pair in self.differences
            ],
        }


def compare_models(
    models: Sequence[str],
    data: str | Dataset,
    compute: Compute | None = None,
    *,
    group_by: str = "auto",
    read_options: ReadOptions | None = None,
    progress: Progress | None = None,
) -> ModelComparison:
    """Compare model folders on the same labelled images.

    ``group_by`` is that of ``FitOptions``; "auto" is by the features of the default backbone.
    A dataset as ``data`` is taken as it was read. Raises HeadstartError.
    """
    if len(models) < 2:
        raise OptionError("A comparison needs two models or more.")
    options = replace(read_options or ReadOptions(), group_column=parse_group_by(group_by).column)
    dataset = as_dataset(data, options=options)
    dataset.require_one_label("the comparison of models")
    dataset = labelled_part(dataset)
    predictors = [Predictor.load(model, compute) for model in models]
    for predictor in predictors:
        predictor.model.require_one_label("the comparison of models")
    evaluations = tuple(
        evaluation
        for predictor in predictors
        if isinstance(evaluation := predictor.evaluate(dataset, progress=progress), Evaluation)
    )
    paths = evaluations[0].predictions.paths
    if any(evaluation.predictions.paths != paths for evaluation in evaluations[1:]):
        raise DataError(f"The images of {dataset.uri} changed while they were read; compare again.")
    groups = _group(dataset, evaluations[0], group_by, compute, progress)
    return ModelComparison(tuple(models), evaluations, groups, compare_pairs(evaluations, groups))


def compare_pairs(evaluations: Sequence[Evaluation], groups: Groups) -> tuple[ModelDifference, ...]:
    """Compare every pair of evaluations of the same images."""
    correct = [evaluation.predictions.is_correct for evaluation in evaluations]
    pairs = [
        (i, j, paired_difference(correct[i], correct[j], groups.index)) for i, j in combinations(range(len(correct)), 2)
    ]
    p_values = holm([paired.p_value for _, _, paired in pairs])
    return tuple(
        ModelDifference(i, j, replace(paired, p_value=p_value))
        for (i, j, paired), p_value in zip(pairs, p_values, strict=True)
    )


def _group(
    dataset: Dataset, evaluation: Evaluation, group_by: str, compute: Compute | None, progress: Progress | None
) -> Groups:
    # The models may be of any precision; the grouping is that of the default backbone at its own.
    compute = replace(compute or Compute(), precision="auto")
    with FeatureCache() as cache:
        features = embed(dataset, backbones.load(DEFAULT_BACKBONE), compute, cache=cache, progress=progress)
    truth = evaluation.predictions.truth
    assert truth is not None
    if len(features.index) != len(truth):
        raise DataError(f"The images of {dataset.uri} changed while they were read; compare again.")
    labels = np.unique(truth, return_inverse=True)[1]
    return group_images(features, dataset, np.arange(len(labels)), labels, group_by)
