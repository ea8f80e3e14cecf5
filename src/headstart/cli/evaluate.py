"""headstart evaluate"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from headstart.cli.evaluation_output import (
    MAX_LEFT_OUT,
    print_class_table,
    print_confusion,
    print_evaluation,
    print_model_comparison,
    training_image_notes,
)
from headstart.cli.label_output import MIN_ACCURACY, evaluate_labels
from headstart.cli.options import (
    CONDITION_FAILED,
    GROUP_BY_HELP,
    Format,
    LabelFlags,
    LabelSeparatorOption,
    Messages,
    ModelArgument,
    RunOptions,
    StrictOption,
    evaluation_option,
)
from headstart.cli.terminal import line, listed, print_json, print_notes, print_quarantined
from headstart.errors import OptionError

if TYPE_CHECKING:
    from headstart.model import Evaluation
    from headstart.stats.classification import ClassificationMetrics


@dataclass(frozen=True)
class EvaluateFlags(LabelFlags):
    """How DATA is read and grouped, and the accuracy that is required."""

    group_by: Annotated[
        str,
        evaluation_option(
            metavar="RULE", help=f"Images that count together, in intervals and to compare models: {GROUP_BY_HELP}"
        ),
    ] = "auto"
    label_separator: LabelSeparatorOption = None
    min_accuracy: Annotated[
        float | None,
        evaluation_option(min=0, max=1, metavar="SHARE", help="Exit with status 1 if the accuracy is below this."),
    ] = None

    def __post_init__(self) -> None:
        """Raises OptionError."""
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:  # typer lets nan pass
            raise OptionError(f"An accuracy of {self.min_accuracy} cannot be required; give a share from 0 to 1.")


def evaluate(
    model: ModelArgument,
    more: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL]... DATA",
            help="Labelled images that had no part in training; before them more models to compare.",
        ),
    ],
    flags: EvaluateFlags = EvaluateFlags(),
    form: Format = Format(),
    run: RunOptions = RunOptions(),
    strict: StrictOption = False,
    messages: Messages = Messages(),
) -> None:
    """Measure accuracy on labelled images, or compare models."""
    *other_models, data = more
    if form.as_csv and (form.as_json or other_models):
        raise OptionError("--csv prints the classes of one model; leave --json and further models out.")
    from headstart.data import open_dataset
    from headstart.model import Predictor
    from headstart.model.label_predictions import MultiLabelEvaluation
    from headstart.model.predictor import labelled_part
    from headstart.splits.named import name_groups, parse_group_by, unnamed_notes

    if other_models:
        _compare([model, *other_models], data, flags, form, run, strict, messages)
        return
    predictor = Predictor.load(model, run.compute)
    options, by = flags.read_options(flags.group_by), parse_group_by(flags.group_by)
    if predictor.model.is_multi_label:
        if flags.min_accuracy is not None:
            raise OptionError(MIN_ACCURACY)
        evaluate_labels(model, predictor, data, options, by, form, strict, messages)
        return
    dataset = open_dataset(data, options)
    dataset.require_one_label("a model of one class an image")
    print_notes(dataset.notes)
    dataset = name_groups(labelled_part(dataset), by)
    print_notes(unnamed_notes(dataset, by))
    with messages.bar("Predicting") as bar:
        evaluation = predictor.evaluate(dataset, progress=bar)
    assert not isinstance(evaluation, MultiLabelEvaluation)
    quarantined = evaluation.predictions.quarantined
    print_quarantined([vars(image) for image in quarantined])
    print_notes(training_image_notes(model, evaluation))
    _print_unknown_classes(model, evaluation)
    print_notes([*evaluation.predictions.notes, *evaluation.missed_targets])
    if form.as_json:
        print_json({"model": model, **evaluation.to_dict()})
    elif form.as_csv:
        _write_class_csv(evaluation.metrics, sys.stdout)
    else:
        print_evaluation(evaluation)
        print_class_table(evaluation.metrics)
        print_confusion(evaluation.confusion, evaluation.predictions.classes)
    is_too_low = _report_low_accuracy(model, evaluation, flags.min_accuracy)
    if is_too_low or (strict and quarantined):
        raise typer.Exit(CONDITION_FAILED)


def _compare(
    models: list[str],
    data: str,
    flags: EvaluateFlags,
    form: Format,
    run: RunOptions,
    strict: bool,
    messages: Messages,
) -> None:
    """Compare models on the same images, and print what was found."""
    from headstart.compare import compare_models
    from headstart.model.folder import read_model
    from headstart.model.label_predictions import MultiLabelEvaluation

    if flags.min_accuracy is not None and read_model(models[0]).is_multi_label:
        raise OptionError(MIN_ACCURACY)
    with messages.bar("Predicting") as bar:
        comparison = compare_models(
            models,
            data,
            run.compute,
            group_by=flags.group_by,
            read_options=flags.read_options(flags.group_by),
            progress=bar,
        )
    evaluations = comparison.evaluations
    quarantined = evaluations[0].predictions.quarantined
    print_notes([*comparison.notes, *comparison.groups.notes])
    print_quarantined([vars(image) for image in quarantined])
    is_too_low = False
    for name, evaluation in zip(models, evaluations, strict=True):
        print_notes(training_image_notes(name, evaluation))
    for name, evaluation in zip(models, evaluations, strict=True):
        if not isinstance(evaluation, MultiLabelEvaluation):
            _print_unknown_classes(name, evaluation)
    print_json(comparison.to_dict()) if form.as_json else print_model_comparison(comparison)
    for name, evaluation in zip(models, evaluations, strict=True):
        if not isinstance(evaluation, MultiLabelEvaluation):
            is_too_low |= _report_low_accuracy(name, evaluation, flags.min_accuracy)
    if is_too_low or (strict and quarantined):
        raise typer.Exit(CONDITION_FAILED)


def _write_class_csv(metrics: ClassificationMetrics, stream: TextIO) -> None:
    """Write precision, recall, F1 and support of each class as comma-separated values; undefined ones are empty."""
    from headstart.files import table_row, table_text  # every start would pay for its imports

    columns = ("class", "precision", "recall", "f1", "support")
    stream.write(table_row(columns))
    for row in metrics.per_class:
        values = {**row.to_dict(), "class": table_text(row.name)}
        stream.write(table_row([values[column] for column in columns]))


def _print_unknown_classes(model: str, evaluation: Evaluation) -> None:
    predictions = evaluation.predictions
    if predictions.unknown_classes:
        unknown = ", ".join(predictions.unknown_classes)
        mend = ""
        if not evaluation.confusion.any():  # of no image the class is known: the names differ, not the classes
            known = listed(predictions.classes, MAX_LEFT_OUT)
            mend = f" It knows {known}: if these are the same classes, rename them by --classes FILE."
        print(line(f"note: {model} does not know {unknown}; those images count as wrong.{mend}"), file=sys.stderr)


def _report_low_accuracy(model: str, evaluation: Evaluation, min_accuracy: float | None) -> bool:
    """Return whether the accuracy is below the limit, and then say so."""
    value = evaluation.accuracy.value
    if min_accuracy is None or value >= min_accuracy:
        return False
    print(line(f"{model}: accuracy {value:.1%} is below the {min_accuracy:.1%} required."), file=sys.stderr)
    return True
