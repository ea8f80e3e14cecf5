"""What commands print of models that give an image several labels."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headstart.cli.evaluation_output import f1_text, print_without_images, training_image_notes
from headstart.cli.fit_output import TITLES, print_groups, print_kept, print_time
from headstart.cli.terminal import (
    MAX_SET,
    NAME_WIDTH,
    fitted,
    line,
    listed,
    print_json,
    print_notes,
    print_quarantined,
    reasons,
    share_text,
    unexpected,
)

if TYPE_CHECKING:
    from headstart.classifier import MultiLabelFitResult
    from headstart.cli.options import Format, Messages
    from headstart.data import ReadOptions
    from headstart.model import Predictor
    from headstart.model.label_predictions import MultiLabelEvaluation, MultiLabelPredictions
    from headstart.splits.named import GroupBy
    from headstart.stats.label_metrics import MultiLabelMetrics
    from headstart.stats.label_thresholds import LabelThresholds

MIN_ACCURACY = "--min-accuracy is for models of one class an image; leave it out."
MAX_ROWS = 50  # labels of the table that fit prints; evaluate prints all


def print_labels(predictions: MultiLabelPredictions, i: int) -> None:
    """Print the path of an image, its labels with their probabilities, and those that it could have besides."""
    fields = [predictions.paths[i]]
    if predictions.is_rejected is not None and predictions.is_rejected[i]:
        fields += ["unlike the training images", "nearest:"]
    names, decided = predictions.names(i), predictions.decisions[i]
    for c in predictions.ranking(i):
        fields += [predictions.classes[c], f"{predictions.probabilities[i, c]:.1%}"] if decided[c] else []
    if not names:
        fields.append("no label")
    if further := predictions.further(i):
        fields.append(f"could have {', '.join(further[:MAX_SET])}" + (", ..." if len(further) > MAX_SET else ""))
    print(line("\t".join(fields)))


def print_label_fit(result: MultiLabelFitResult, folder: str, seconds: float) -> None:
    """Print what a fit found, first, and what it used."""
    run = result.model.run
    print(line(f"Labels      {run['labels']}"))
    for key, title in TITLES.items():
        if key in result.evaluations:
            _print_means(result.evaluations[key].metrics, title)
    thresholds = result.model.label_thresholds
    assert thresholds is not None
    print(f"Thresholds  {_describe(thresholds)}")
    _print_table(result.evaluations["leave_group_out"].metrics, thresholds, MAX_ROWS)
    images = run["images"]
    print(f"Images      {images['train']} for training, {images['validation']} for validation")
    print(line(f"Read as     {images['layout'] or 'images with labels'}"))
    if skipped := unexpected(images["skipped"]):
        print(line(f"Skipped     {reasons(skipped)}"))
    print_groups(run["groups"])
    print(line(f"Head        {run['head']['kind']} on {', '.join(run['cut'])} of {run['backbone']['id']}"))
    print_time(run, seconds)
    if result.kept is not None:
        print_kept(result.kept, folder)
    print(line(f"Model       {folder}"))


def fit_summary(run: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return what ``fit --json`` prints."""
    images = {**run["images"], "quarantined": len(run["images"]["quarantined"])}
    keys = ("version", "author", "date", "problem_type", "label_thresholds", "groups", "backbone", "cut", "head")
    rest = ("runtime", "metrics", "seconds", "cache")
    return {
        "model": folder,
        "labels": run["classes"],
        "images": images,
        **{key: run[key] for key in (*keys, *rest)},
        **({"fine_tuning": run["fine_tuning"]} if "fine_tuning" in run else {}),
    }


def evaluate_labels(
    model: str,
    predictor: Predictor,
    data: str,
    options: ReadOptions,
    by: GroupBy,
    form: Format,
    strict: bool,
    messages: Messages,
) -> None:
    """Measure the model of several labels in the folder ``model`` on labelled images. Raises OptionError, DataError.

    ``by`` says which images count together in intervals.
    """
    from dataclasses import replace

    from headstart.cli.options import CONDITION_FAILED
    from headstart.data import open_dataset
    from headstart.model.predictor import labelled_part
    from headstart.splits.named import name_groups, unnamed_notes

    dataset = open_dataset(data, replace(options, multi_label=True))
    print_notes(dataset.notes)
    dataset = name_groups(labelled_part(dataset), by)
    print_notes(unnamed_notes(dataset, by))
    with messages.bar("Predicting") as bar:
        evaluation: Any = predictor.evaluate(dataset, progress=bar)
    quarantined = evaluation.predictions.quarantined
    print_quarantined([vars(image) for image in quarantined])
    print_notes([*training_image_notes(model, evaluation), *evaluation.predictions.notes, *evaluation.missed_targets])
    if form.as_json:
        print_json({"model": model, **evaluation.to_dict()})
    elif form.as_csv:
        _write_csv(evaluation.metrics)
    else:
        _print_evaluation(evaluation, dataset.label_summary)
    if strict and quarantined:
        import typer

        raise typer.Exit(CONDITION_FAILED)


def _print_evaluation(evaluation: MultiLabelEvaluation, summary: str) -> None:
    from headstart.stats.accuracy import target_text  # every start would pay for its imports

    print(line(f"Labels      {summary}"))
    _print_means(evaluation.metrics, f"on {len(evaluation.predictions)} images")
    thresholds, of_model = evaluation.predictions.label_thresholds, evaluation.predictions.thresholds
    assert thresholds is not None
    print(f"Thresholds  {_describe(thresholds)}")
    if of_model is not None and evaluation.coverage is not None:
        print(
            f"Sets        {evaluation.coverage} of the labels that hold are in them "
            f"(target {target_text(of_model.coverage)}); {evaluation.set_size:.2f} labels per set"
        )
    if of_model is not None and evaluation.false_rejections is not None:
        print(f"Rejected    {evaluation.false_rejections} (target {target_text(of_model.false_alarms)})")
    _print_table(evaluation.metrics, thresholds, len(thresholds.thresholds))


def _print_means(metrics: MultiLabelMetrics, title: str) -> None:
    print(f"mAP         {metrics.mean_average_precision} {title}")
    print(f"            micro F1 {metrics.micro_f1}, macro F1 {share_text(metrics.macro_f1.value)}")
    print(f"            every label right: {metrics.exact_match}")


def _describe(thresholds: LabelThresholds) -> str:
    from headstart.stats.accuracy import target_text  # every start would pay for its imports
    from headstart.stats.label_thresholds import CONFIDENCE, DEFAULT

    if not thresholds.target:
        return f"a label holds from a probability of {DEFAULT} on; --target-recall or --target-precision promises more"
    promised = sum(thresholds.is_promised)
    confidence = f", with a confidence of {CONFIDENCE:.0%}" if thresholds.target == "precision" else ""
    return (
        f"a {thresholds.target} of {target_text(thresholds.share)} is promised for {promised} of "
        f"{len(thresholds.is_promised)} labels{confidence}"
    )


def _print_table(metrics: MultiLabelMetrics, thresholds: LabelThresholds, rows: int) -> None:
    """Print the metrics of each label as a table; * marks a label of which the target is promised."""
    heads = f"{'AP':>7} {'precision':>9} {'recall':>7} {'F1':>7} {'from':>6} {'images':>8} {'groups':>7}"
    print(f"{'label':{NAME_WIDTH}} {heads}")
    table = [*zip(metrics.per_label, thresholds.thresholds, thresholds.is_promised, strict=True)]
    for label, threshold, promised in table[:rows]:
        mark = "*" if promised else " "
        print(
            f"{fitted(label.name, NAME_WIDTH):{NAME_WIDTH}} {share_text(label.average_precision.value):>7} "
            f"{share_text(label.precision.value):>9} {share_text(label.recall.value):>7} "
            f"{f1_text(label, label.f1.value):>7} {threshold:5.2f}{mark} {label.support:7} {label.groups:7}"
        )
    if len(metrics.per_label) > rows:
        print(line(f"and {listed([label.name for label in metrics.per_label[rows:]], 3)}: see run.json"))
    print_without_images([label.name for label in metrics.per_label if not label.support], "mAP and macro F1")


def _write_csv(metrics: MultiLabelMetrics) -> None:
    """Print the metrics of each label with their intervals as comma-separated values; undefined ones are empty."""
    from headstart.files import table_row, table_text  # every start would pay for its imports

    names = ("average_precision", "precision", "recall", "f1")
    columns = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    sys.stdout.write(table_row(["label", *columns, "support", "groups", "unknown"]))
    for label in metrics.per_label:
        cells: list[object] = [table_text(label.name)]
        for name in names:
            estimate = getattr(label, name)
            cells += [estimate.value, *(estimate.interval or (None, None))]
        sys.stdout.write(table_row([*cells, label.support, label.groups, label.unknown]))
