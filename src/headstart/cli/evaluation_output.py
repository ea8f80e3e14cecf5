"""What commands print of evaluations: accuracies, classes, errors, and models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.cli.terminal import NAME_WIDTH, counted, fitted, line, listed, share_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headstart.compare import ModelComparison
    from headstart.compare.models import ModelDifference
    from headstart.model import Evaluation
    from headstart.model.label_predictions import MultiLabelEvaluation
    from headstart.stats.classification import ClassificationMetrics, ClassMetrics
    from headstart.stats.label_metrics import LabelMetrics
    from headstart.stats.paired import MetricDifference, PairedDifference

MAX_ERRORS = 10
MAX_WEAK = 3
MAX_LEFT_OUT = 5  # classes or labels without images that are named


def training_image_notes(model: str, evaluation: Evaluation | MultiLabelEvaluation) -> list[str]:
    """Warn of images that a model was trained on."""
    count, total = evaluation.training_images, len(evaluation.predictions)
    if not count:
        return []
    return [
        f"{'All' if count == total else count} of these {total} images are training images of {model}; how well it "
        "predicts them says nothing about new images."
    ]


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the accuracy, and how well prediction sets and rejection meet their targets."""
    from headstart.stats.accuracy import target_text  # every start would pay for its imports

    print(f"Accuracy    {evaluation.accuracy}")
    print_weak_classes(evaluation)
    metrics = evaluation.metrics
    print(f"            balanced accuracy {metrics.balanced_accuracy:.1%}, macro F1 {metrics.macro_f1:.1%}")
    print_baseline(metrics)
    print_cost(evaluation)
    if evaluation.decision:
        print(line(f"Decisions   {evaluation.decision.partition(' ')[2]}"))
    thresholds = evaluation.predictions.thresholds
    if thresholds is None:
        return
    if evaluation.coverage is not None:
        print(
            f"Sets        {evaluation.coverage} hold the true class (target {target_text(thresholds.coverage)}); "
            f"{evaluation.set_size:.2f} classes per set"
        )
    if evaluation.false_rejections is not None:
        target = target_text(thresholds.false_alarms)
        print(f"Rejected    {evaluation.false_rejections} of known classes (target {target})")
    if evaluation.ood_recall is not None:
        print(f"Rejected    {evaluation.ood_recall} of classes that the model does not know")


def print_class_table(metrics: ClassificationMetrics) -> None:
    """Print precision, recall, F1 and the number of images of each class."""
    width = max(NAME_WIDTH, 12)
    print(f"{'class':{width}} {'precision':>9} {'recall':>9} {'F1':>9} {'images':>8}")
    for row in metrics.per_class:
        values = " ".join(
            f"{text:>9}" for text in (share_text(row.precision), share_text(row.recall), f1_text(row, row.f1))
        )
        print(f"{fitted(row.name, width):{width}} {values} {row.support:8}")
    macro = (metrics.macro_precision, metrics.macro_recall, metrics.macro_f1)
    values = " ".join(f"{value:9.1%}" for value in macro)
    print(f"{'macro average':{width}} {values} {sum(row.support for row in metrics.per_class):8}")
    print_without_images([row.name for row in metrics.per_class if not row.support], "the macro averages")


def f1_text(metrics: ClassMetrics | LabelMetrics, f1: float | None) -> str:
    """Return an F1 as a percentage; - where no image has the class or label, and scikit-learn says 0."""
    return share_text(f1 if metrics.support else None)


def print_without_images(names: Sequence[str], means: str) -> None:
    """Name the classes or labels without images, which are in none of the ``means``."""
    if names:
        print(line(f"No images of {listed(names, MAX_LEFT_OUT)}: left out of {means}."))


def print_confusion(counts: NDArray[np.integer], classes: Sequence[str]) -> None:
    """Print the most frequent errors, first."""
    k = len(classes)
    errors = [(int(counts[i, j]), classes[i], classes[j]) for i in range(k) for j in range(k) if i != j]
    for count, truth, predicted in sorted((error for error in errors if error[0]), reverse=True)[:MAX_ERRORS]:
        print(line(f"{count:8}  {truth} predicted as {predicted}"))


def print_model_comparison(comparison: ModelComparison) -> None:
    """Print how good each model is, and for each pair whether the difference is significant."""
    from headstart.model.label_predictions import MultiLabelEvaluation  # every start would pay for its imports

    width = max(len(name) for name in comparison.models)
    for name, evaluation in zip(comparison.models, comparison.evaluations, strict=True):
        if isinstance(evaluation, MultiLabelEvaluation):
            print(line(f"{name:{width}}  mAP {evaluation.metrics.mean_average_precision}"))
            print(f"{'':{width}}  every label right: {evaluation.metrics.exact_match}")
        else:
            print(line(f"{name:{width}}  {evaluation.accuracy}"))
    for pair in comparison.differences:
        if pair.mean_average_precision is None:
            assert pair.paired is not None
            resampled = f"{comparison.groups.count} groups"
            print(line(f"{_verdict(comparison, pair, pair.paired)}: {_paired(comparison, pair, 'correct', resampled)}"))
        else:
            mean = pair.mean_average_precision
            by = f"{_points(comparison, pair, mean, f'{comparison.groups.count} groups')}, p {mean.p_value:.2g})"
            print(line(f"{_verdict(comparison, pair, mean)} by mAP: {by}"))
            if pair.paired is not None:
                resampled = f"{counted(pair.groups, 'group')} of {counted(pair.images, 'image')}"
                print(line(f"every label right: {_paired(comparison, pair, 'right', resampled)}"))


def _verdict(
    comparison: ModelComparison, pair: ModelDifference, difference: PairedDifference | MetricDifference
) -> str:
    """Say which of two models is better, or that the images do not show it."""
    first, second = comparison.models[pair.first], comparison.models[pair.second]
    if difference.significant:
        better, worse = (second, first) if difference.difference > 0 else (first, second)
        return f"{better} is better than {worse}"
    images = len(comparison.evaluations[0].predictions)
    return f"{counted(images, 'image')} do not show whether {first} or {second} is better"


def _points(
    comparison: ModelComparison,
    pair: ModelDifference,
    difference: PairedDifference | MetricDifference,
    resampled: str,
) -> str:
    """Say how far the second model is from the first, and of what that is, in an open bracket."""
    low, high = (100 * bound for bound in difference.interval)
    return (
        f"{comparison.models[pair.second]} is {100 * difference.difference:+.1f} points from "
        f"{comparison.models[pair.first]} (95% interval {low:+.1f} to {high:+.1f}, {resampled} resampled"
    )


def _paired(comparison: ModelComparison, pair: ModelDifference, right: str, resampled: str) -> str:
    first, second, paired = comparison.models[pair.first], comparison.models[pair.second], pair.paired
    assert paired is not None
    return (
        f"{_points(comparison, pair, paired, resampled)}); only {second} is {right} on "
        f"{counted(paired.only_second, 'image')}, only {first} on {paired.only_first} (McNemar p {paired.p_value:.2g})"
    )


def print_weak_classes(evaluation: Evaluation) -> None:
    """Name the classes that are recognised far worse than the others, and for what they are taken."""
    weak = evaluation.weak_classes
    for weak_class in weak[:MAX_WEAK]:
        print(line(f"Weak class  {weak_class.describe()}"))
    if len(weak) > MAX_WEAK:
        print(f"            and {len(weak) - MAX_WEAK} more weak classes")


def print_baseline(metrics: ClassificationMetrics) -> None:
    """Print what the most frequent class alone would give, where the classes are so uneven that it matters."""
    if metrics.is_uneven:
        name, share = metrics.majority
        balanced = metrics.balanced_accuracy
        print(line(f"Baseline    {share:.1%} by always predicting {name}; balanced accuracy {balanced:.1%}"))


def print_cost(evaluation: Evaluation) -> None:
    """Print the mean cost of the predictions, where there are costs."""
    if evaluation.cost is not None:
        print(f"Cost        {evaluation.cost}")
