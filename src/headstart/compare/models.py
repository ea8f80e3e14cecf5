"""Two models or more on the same images: is one better, or could the difference be chance?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart import backbones
from headstart.backbones import DEFAULT_BACKBONE
from headstart.data import Dataset, ReadOptions, as_dataset, group_numbers
from headstart.data.label_sets import label_matrix
from headstart.errors import DataError, OptionError
from headstart.features import Compute, FeatureCache, embed
from headstart.features.features import Progress
from headstart.model import Evaluation, Predictor
from headstart.model.label_predictions import MultiLabelEvaluation, evaluate_labels
from headstart.model.predictor import labelled_part
from headstart.splits.groups import Groups
from headstart.splits.named import name_groups, parse_group_by
from headstart.splits.scenes import Labels
from headstart.splits.split import group_images
from headstart.stats.label_metrics import mean_average_precision_difference
from headstart.stats.paired import MetricDifference, PairedDifference, holm, paired_difference

MAX_NAMED = 5  # labels in a note
Difference = TypeVar("Difference", PairedDifference, MetricDifference)


@dataclass(frozen=True)
class ModelDifference:
    """The difference between two models, which are given by their places among the models compared.

    ``paired`` is that in accuracy, of several labels that in the share of images of which every label is right; None
    where of no image all labels are known. It is of so many ``images`` in so many ``groups``: of several labels those
    whose labels are all known. ``mean_average_precision`` is that of several labels, and of all images.
    """

    first: int
    second: int
    paired: PairedDifference | None
    images: int
    groups: int
    mean_average_precision: MetricDifference | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form, without the models."""
        paired = None if self.paired is None else self.paired.to_dict()
        if self.mean_average_precision is None:
            return paired or {}
        exact = None if paired is None else {**paired, "images": self.images, "groups": self.groups}
        return {"mean_average_precision": self.mean_average_precision.to_dict(), "exact_match": exact}


@dataclass(frozen=True)
class ModelComparison:
    """The evaluations of several models, all of one class or all of several labels an image.

    ``groups`` are those of the images, ``differences`` those of each pair of models. ``notes`` are lines about the data
    that the user must see.
    """

    models: tuple[str, ...]
    evaluations: tuple[Evaluation | MultiLabelEvaluation, ...]
    groups: Groups
    differences: tuple[ModelDifference, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "models": [
                {"model": name, **evaluation.to_dict()}
                for name, evaluation in zip(self.models, self.evaluations, strict=True)
            ],
            "groups": self.groups.to_dict(),
            "differences": [
                {"first": self.models[pair.first], "second": self.models[pair.second], **pair.to_dict()}
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

    All are of one class an image, or all of several labels; then the labels that all of them know are compared.
    ``group_by`` is that of ``FitOptions``; "auto" is by the features of the default backbone.
    A dataset as ``data`` is taken as it was read. Raises HeadstartError.
    """
    if len(models) < 2:
        raise OptionError("A comparison needs two models or more.")
    predictors = [Predictor.load(model, compute) for model in models]
    is_multi_label = predictors[0].model.is_multi_label
    for model, predictor in zip(models, predictors, strict=True):
        if predictor.model.is_multi_label != is_multi_label:
            one, several = (model, models[0]) if is_multi_label else (models[0], model)
            raise OptionError(
                f"{one} gives an image one class, and {several} several labels; compare models of one kind."
            )
    by = parse_group_by(group_by)
    options = replace(read_options or ReadOptions(), group_column=by.column)
    if is_multi_label:
        options = replace(options, multi_label=True)
    dataset = name_groups(as_dataset(data, options=options), by)
    evaluations = tuple(predictor.evaluate(dataset, progress=progress) for predictor in predictors)
    notes = (*dataset.notes, *_notes(models, evaluations))
    dataset = labelled_part(dataset)
    paths = evaluations[0].predictions.paths
    if any(evaluation.predictions.paths != paths for evaluation in evaluations[1:]):
        raise DataError(f"The images of {dataset.uri} changed while they were read; compare again.")
    if is_multi_label:
        items = [dataset.items[i] for i in evaluations[0].predictions.rows]
        named = group_numbers([item.group for item in items])
        of_labels = [e for e in evaluations if isinstance(e, MultiLabelEvaluation)]
        labelled, label_notes = _of_common_labels(of_labels, named)
        values, known = label_matrix(items, dataset.label_names)  # of all labels, whichever the models know
        groups = _group(dataset, values & known, group_by, compute, progress)
        differences = compare_label_pairs(labelled, groups)
        return ModelComparison(tuple(models), tuple(labelled), groups, differences, (*notes, *label_notes))
    classified = [e for e in evaluations if isinstance(e, Evaluation)]
    classes = classified[0].predictions.truth
    assert classes is not None
    groups = _group(dataset, np.unique(classes, return_inverse=True)[1], group_by, compute, progress)
    return ModelComparison(tuple(models), evaluations, groups, compare_pairs(classified, groups), notes)


def _notes(models: Sequence[str], evaluations: Sequence[Evaluation | MultiLabelEvaluation]) -> list[str]:
    """Return the notes of all evaluations once, with the name of the model where one is not of all models."""
    counts = Counter(note for evaluation in evaluations for note in {*evaluation.predictions.notes})
    pairs = zip(models, evaluations, strict=True)
    named = (
        note if counts[note] == len(evaluations) else f"{model}: {note}"
        for model, evaluation in pairs
        for note in evaluation.predictions.notes
    )
    return [*dict.fromkeys(named)]


def _of_common_labels(
    evaluations: Sequence[MultiLabelEvaluation], groups: NDArray[np.int64] | None
) -> tuple[list[MultiLabelEvaluation], list[str]]:
    """Return the evaluations for the labels that all models know, and a note about the others. Raises OptionError.

    ``groups`` [n] are those of the images, where they have names.
    """
    names = [evaluation.predictions.classes for evaluation in evaluations]
    common = [name for name in names[0] if all(name in others for others in names)]
    if not common:
        raise OptionError("These models have no label in common; there is nothing to compare.")
    left_out = sorted({name for known in names for name in known} - set(common))
    if not left_out and all(known == names[0] for known in names):
        return [*evaluations], []
    more = f" and {len(left_out) - MAX_NAMED} more" if len(left_out) > MAX_NAMED else ""
    notes = [f"Not compared, since not every model knows them: {', '.join(left_out[:MAX_NAMED])}{more}."]
    found = [evaluate_labels(evaluation.predictions.of_labels(common), groups) for evaluation in evaluations]
    return found, notes if left_out else []


def compare_pairs(evaluations: Sequence[Evaluation], groups: Groups) -> tuple[ModelDifference, ...]:
    """Compare every pair of evaluations of the same images."""
    correct = [evaluation.predictions.is_correct for evaluation in evaluations]
    places = [*combinations(range(len(correct)), 2)]
    found = _adjusted([paired_difference(correct[i], correct[j], groups.index) for i, j in places])
    images = len(groups.index)
    return tuple(
        ModelDifference(i, j, paired, images, groups.count) for (i, j), paired in zip(places, found, strict=True)
    )


def compare_label_pairs(evaluations: Sequence[MultiLabelEvaluation], groups: Groups) -> tuple[ModelDifference, ...]:
    """Compare every pair of evaluations of the same labels of the same images."""
    predictions = [evaluation.predictions for evaluation in evaluations]
    truth, known = predictions[0].label_truth, predictions[0].label_known
    assert truth is not None
    assert known is not None
    places = [*combinations(range(len(predictions)), 2)]
    probabilities = [one.probabilities for one in predictions]
    means = [
        mean_average_precision_difference(probabilities[i], probabilities[j], truth, known, groups.index)
        for i, j in places
    ]
    whole = known.all(axis=1)
    right, index = [one.is_right[whole] for one in predictions], groups.index[whole]
    exact: list[PairedDifference | None] = [None] * len(places)
    if whole.any():
        exact = [*_adjusted([paired_difference(right[i], right[j], index) for i, j in places])]
    pairs = zip(places, _adjusted(means), exact, strict=True)
    count = len(np.unique(index))
    return tuple(ModelDifference(i, j, paired, len(index), count, mean) for (i, j), mean, paired in pairs)


def _adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences of all pairs with p-values that allow for their number."""
    p_values = holm([difference.p_value for difference in differences])
    return [replace(one, p_value=p_value) for one, p_value in zip(differences, p_values, strict=True)]


def _group(
    dataset: Dataset, labels: Labels, group_by: str, compute: Compute | None, progress: Progress | None
) -> Groups:
    """Group the images of which predictions were compared; ``labels`` are those of ``group_images``."""
    # The models may be of any precision; the grouping is that of the default backbone at its own.
    compute = replace(compute or Compute(), precision="auto")
    with FeatureCache() as cache:
        features = embed(dataset, backbones.load(DEFAULT_BACKBONE), compute, cache=cache, progress=progress)
    if len(features.index) != len(labels):
        raise DataError(f"The images of {dataset.uri} changed while they were read; compare again.")
    return group_images(features, dataset, np.arange(len(labels)), labels, group_by)
