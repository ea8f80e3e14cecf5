"""headstart fit"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.options import (
    BACKBONE_HELP,
    CONDITION_FAILED,
    CacheOption,
    DataArgument,
    InputFlags,
    ProgressOption,
    QuietOption,
    RunOptions,
    SeedOption,
    StrictOption,
    common,
    data_option,
    evaluation_option,
    head_option,
)
from headstart.cli.terminal import line, print_fit, print_json, print_notes, print_quarantined, progress_bar
from headstart.errors import OptionError
from headstart.machine import import_in_background, quiet_frameworks, return_freed_memory

if TYPE_CHECKING:
    from headstart.classifier import FitOptions, FitResult
    from headstart.heads.mlp import MlpConfig

MANY_IMAGES = 4096  # from here on memory is saved at the cost of a little time
OutputOption = Annotated[Path, common("-o", "--output", help="Model folder to write.")]
ReportOption = Annotated[bool, common("--report/--no-report", help="Write MODEL/report.html.")]
BackboneOption = Annotated[str, common(help=BACKBONE_HELP)]
ValidationOption = Annotated[
    str | None, common(metavar="DATA|SHARE", help="Validation images, or the share of the groups to hold out.")
]
GroupOption = Annotated[
    str, common(help="Images to keep together: auto (near duplicates and scenes), none, or a table's column.")
]
HeadOption = Annotated[str, common(help="auto, ridge, lda, centroid, logistic or mlp.")]
CutOption = Annotated[
    str, common(help="auto, a tap, or several with commas; any tensor of an onnx: graph, any keras: layer.")
]
DropoutOption = Annotated[
    float | None, head_option(help="Dropout rate: of the ridge head in closed form, or of the mlp head.")
]


@dataclass(frozen=True)
class EvaluationFlags:
    """Targets of prediction sets and rejection."""

    coverage: Annotated[
        float, evaluation_option(help="Share of images whose prediction set is to hold the true class.")
    ] = 0.95
    false_alarms: Annotated[
        float, evaluation_option(help="Share of images of the classes that may be rejected as none of these.")
    ] = 0.05


@dataclass(frozen=True)
class MlpFlags:
    """How an mlp head is trained."""

    hidden: Annotated[int | None, head_option(help="mlp: units of the hidden layer [1024].")] = None
    optimizer: Annotated[str | None, head_option(help="mlp: rmsprop, adam, adamw or sgd [rmsprop].")] = None
    lr: Annotated[float | None, head_option(help="mlp: learning rate [0.0001].")] = None
    epochs: Annotated[int | None, head_option(help="mlp: maximum number of epochs [20].")] = None
    batch_size: Annotated[int | None, head_option(help="mlp: images per step [20].")] = None
    patience: Annotated[
        int | None, head_option(help="mlp: stop when the validation loss has not fallen for so many epochs.")
    ] = None
    stop_at_accuracy: Annotated[float | None, head_option(help="mlp: stop at this training accuracy.")] = None
    class_weights: Annotated[
        bool | None, head_option("--class-weights", help="mlp: every class counts the same, however few its images.")
    ] = None

    def config(self, head: str) -> MlpConfig | None:
        """The same for the library, None where nothing is given. Raises OptionError for another head."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given:
            return None
        if head != "mlp":
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise OptionError(f"Only the mlp head is trained; give --head mlp, or leave {names} out.")
        from headstart.heads.mlp import MlpConfig

        if "lr" in given:
            given["learning_rate"] = given.pop("lr")
        return MlpConfig(**given)


def fit(
    data: DataArgument,
    output: OutputOption = Path("model"),
    backbone: BackboneOption = "headstart-s",
    validation: ValidationOption = None,
    group_by: GroupOption = "auto",
    head: HeadOption = "auto",
    cut: CutOption = "auto",
    report: ReportOption = True,
    as_json: Annotated[bool, common("--json", help="Print JSON alone on standard output.")] = False,
    views: Annotated[int, data_option(min=1, help="Views of each training image to learn from.")] = 1,
    augmentation: Annotated[str, data_option(help="How views differ: flip, light or lesson.")] = "light",
    input_flags: InputFlags = InputFlags(),
    dropout: DropoutOption = None,
    mlp: MlpFlags = MlpFlags(),
    targets: EvaluationFlags = EvaluationFlags(),
    run: RunOptions = RunOptions(),
    seed: SeedOption = 0,
    cache: CacheOption = True,
    strict: StrictOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
    fine_tune: Annotated[bool, typer.Option("--fine-tune", hidden=True, help="See headstart fine-tune.")] = False,
) -> None:
    """Fit a classifier to images and write a model folder."""
    if fine_tune:
        raise OptionError("Fine-tuning is a command of its own: headstart fine-tune DATA")
    from headstart.classifier import FitOptions

    options = FitOptions(
        backbone=backbone,
        input_options=input_flags.input_options,
        cut=cut,
        head=head,
        dropout=dropout,
        mlp=mlp.config(head),
        views=views,
        augmentation=augmentation,
        group_by=group_by,
        validation=parse_validation(validation),
        coverage=targets.coverage,
        false_alarms=targets.false_alarms,
        compute=run.compute,
        cache=cache,
        seed=seed,
    )
    fit_and_write(data, output, options, Printing(as_json, quiet, progress, report, strict))


@dataclass(frozen=True)
class Printing:
    """What a command that fits prints and writes beside the model."""

    as_json: bool
    quiet: bool
    progress: bool | None
    report: bool
    strict: bool


def fit_and_write(
    data: str,
    output: Path,
    options: FitOptions,
    printing: Printing,
    refine: Callable[[FitResult], FitResult] | None = None,
) -> None:
    """Fit, ``refine`` the result, write the model and the report, and print what was found."""
    start = time.perf_counter()
    info = options.compute.resolve()
    import_in_background([info.name, "onnxruntime"])  # needed for the features and behind them
    from headstart import report
    from headstart.classifier import fit_dataset
    from headstart.data import open_dataset
    from headstart.model.folder import check_output_folder, write_model

    check_output_folder(output)  # before the work, not behind it
    dataset = open_dataset(data, group_column=options.group_column)
    if len(dataset) >= MANY_IMAGES:
        return_freed_memory()
    with quiet_frameworks():
        with progress_bar("Reading features", printing.quiet, printing.progress) as bar:
            result = fit_dataset(dataset, options, thumbnails=printing.report, progress=bar)
        if refine is not None:
            result = refine(result)
    folder = write_model(result.model, output)
    curves = report.write_training_curves(result.model.run, folder)
    if not printing.quiet:
        print_notes(result.notes)
    quarantined = result.model.run["images"]["quarantined"]
    print_quarantined(quarantined, printing.quiet)
    if not printing.as_json:
        print_fit(result, str(folder), time.perf_counter() - start)
        print(curves, end="", flush=True)  # the result does not wait for the report
    page = None
    if printing.report:
        with options.open_cache() as cache:
            page = str(report.write_report(result, folder, cache=cache))
    if printing.as_json:
        print_json({**_summary(result.model.run, str(folder)), "report": page})
    elif page is not None:
        print(line(f"Report      {page}"))
    if printing.strict and quarantined:
        raise typer.Exit(CONDITION_FAILED)


def parse_validation(value: str | None) -> str | float | None:
    """Turn the text of an option into a share, or leave it as the name of a dataset."""
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value


def _summary(run: Mapping[str, Any], folder: str) -> dict[str, Any]:
    images = {**run["images"], "quarantined": len(run["images"]["quarantined"])}
    keys = (
        "groups",
        "backbone",
        "cut",
        "head",
        "runtime",
        "accuracy",
        "metrics",
        "learning_curve",
        "seconds",
        "cache",
    )
    fine_tuning = {"fine_tuning": run["fine_tuning"]} if "fine_tuning" in run else {}
    return {
        "model": folder,
        "classes": run["classes"],
        "images": images,
        **{key: run[key] for key in keys},
        **fine_tuning,
    }
