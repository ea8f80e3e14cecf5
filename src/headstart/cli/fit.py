"""headstart fit"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.fit_labels import LabelTargetFlags, finish_fit, fit_labels, with_sources
from headstart.cli.fit_output import print_fit, print_preview, summary
from headstart.cli.fit_sharded import check_classes, check_holds_images, fit_by_workers
from headstart.cli.input_flags import InputFlags
from headstart.cli.options import (
    BACKBONE_HELP,
    DEFAULT_BACKBONE,
    GROUP_BY_HELP,
    CachedRunOptions,
    DataArgument,
    LabelFlags,
    LabelSeparatorOption,
    Messages,
    MultiLabelOption,
    SeedOption,
    StrictOption,
    common,
    data_option,
    evaluation_option,
    files_follow,
    head_option,
    run_option,
    save_memory,
)
from headstart.cli.terminal import print_json, print_notes, print_quarantined
from headstart.cli.worker_flags import WorkerFlags
from headstart.errors import OptionError
from headstart.machine import import_in_background, quiet_frameworks

if TYPE_CHECKING:
    from headstart.classifier import FitOptions
    from headstart.data import Dataset
    from headstart.heads.mlp import MlpConfig


@dataclass(frozen=True)
class FitFlags:
    """The most common options."""

    output: Annotated[
        Path | None, common("-o", "--output", metavar="MODEL", help="Model folder to write; DATA-model by default.")
    ] = None
    backbone: Annotated[str | None, common(metavar="ID", help=f"{BACKBONE_HELP} [default: {DEFAULT_BACKBONE}]")] = None
    validation: Annotated[
        str | None, common(metavar="DATA|SHARE", help="Validation images, or the share of the groups to hold out.")
    ] = None
    group_by: Annotated[str, common(metavar="RULE", help=f"Images to keep together: {GROUP_BY_HELP}")] = "auto"
    head: Annotated[
        str, common(metavar="KIND", help="Classifier on the features: auto, ridge, lda, centroid, logistic or mlp.")
    ] = "auto"
    cut: Annotated[
        str,
        common(
            metavar="TAPS", help="Where the network is cut: auto, a tap, or several with commas (see backbones show)."
        ),
    ] = "auto"
    report: Annotated[bool, common("--report/--no-report", help="Write MODEL/report.html.")] = True
    open_page: Annotated[bool, common("--open", help="Show the report in a browser.")] = False
    as_json: Annotated[bool, common("--json", help="Print JSON alone on standard output.")] = False

    @property
    def backbone_id(self) -> str:
        """The backbone to fit with: the default where none is given."""
        return DEFAULT_BACKBONE if self.backbone is None else self.backbone

    def __post_init__(self) -> None:
        """Raises OptionError."""
        if self.open_page and not self.report:
            raise OptionError("There is no report to open with --no-report; leave one of the two out.")

    def output_for(self, data: str) -> Path:
        """Return the model folder to write: by default one that is named after DATA, in the working folder."""
        if self.output is not None:
            return self.output
        name = Path(data.split("?")[0].rstrip("/")).resolve().name or "headstart"
        return Path(f"{name.split('.')[0] or name}-model")


@dataclass(frozen=True)
class DecodeFlags(LabelFlags):
    """How DATA is read, with one label an image or with several."""

    decode: Annotated[
        str,
        data_option(
            metavar="scaled|full",
            help="Large JPEG files: decoded at down to an eighth of their size, or in full, as browsers do.",
        ),
    ] = "scaled"
    multi_label: MultiLabelOption = None
    label_separator: LabelSeparatorOption = None


@dataclass(frozen=True)
class DataFlags(DecodeFlags):
    """How DATA is read, and augmented views to learn from."""

    views: Annotated[
        int,
        data_option(min=1, metavar="N", help="Views of each training image to learn from: itself, and varied copies."),
    ] = 1
    augmentation: Annotated[str, data_option(metavar="flip|light|lesson", help="How the copies of --views differ.")] = (
        "light"
    )
    keep_features: Annotated[
        bool, data_option("--keep-features", help="Keep the features of the images in MODEL, for update and forget.")
    ] = False


@dataclass(frozen=True)
class EvaluationFlags:
    """Targets of prediction sets and rejection, and what decides which class is predicted."""

    coverage: Annotated[
        float,
        evaluation_option(metavar="SHARE", help="Share of images whose prediction set is to hold the true class."),
    ] = 0.95
    false_alarms: Annotated[
        float,
        evaluation_option(
            metavar="SHARE", help="Share of images of the classes that may be rejected as none of these."
        ),
    ] = 0.05
    costs: Annotated[
        str | None,
        evaluation_option(
            metavar="FILE",
            help="Predict the class of least expected cost: a table with a row for each true class (CSV, JSON).",
        ),
    ] = None
    threshold: Annotated[
        list[str] | None,
        evaluation_option(
            metavar="CLASS=P", help="Predict CLASS where its probability reaches P; may be given several times."
        ),
    ] = None

    @property
    def thresholds(self) -> dict[str, float] | None:
        """The thresholds by class. Raises OptionError."""
        thresholds: dict[str, float] = {}
        for text in self.threshold or ():
            name, _, value = text.rpartition("=")  # the name of a class may have a "="
            try:
                number = float(value)
            except ValueError:
                number = float("nan")
            if not name or not 0 < number < 1:
                raise OptionError(f"--threshold {text!r} cannot be read; expected a class and a probability: cat=0.2.")
            if name in thresholds:
                raise OptionError(f"--threshold gives {name!r} two thresholds; give one.")
            thresholds[name] = number
        return thresholds or None


@dataclass(frozen=True)
class HeadFlags:
    """Class weights, the dropout rate, and how an mlp head is trained."""

    class_weight: Annotated[
        str | None,
        head_option(
            metavar="balanced|FILE",
            help="For classes that are more or less frequent in use: balanced, or rows of class,weight (CSV, JSON).",
        ),
    ] = None

    dropout: Annotated[
        float | None,
        head_option(metavar="RATE", help="Dropout rate: of the ridge head in closed form, or of the mlp head."),
    ] = None
    hidden: Annotated[int | None, head_option(metavar="N", help="mlp: units of the hidden layer [1024].")] = None
    optimizer: Annotated[
        str | None, head_option(metavar="rmsprop|adam|adamw|sgd", help="mlp: the optimizer [rmsprop].")
    ] = None
    lr: Annotated[float | None, head_option(metavar="RATE", help="mlp: learning rate [0.0001].")] = None
    epochs: Annotated[int | None, head_option(metavar="N", help="mlp: maximum number of epochs [20].")] = None
    batch_size: Annotated[int | None, head_option(metavar="N", help="mlp: images per step [20].")] = None
    patience: Annotated[
        int | None,
        head_option(metavar="N", help="mlp: stop when the validation loss has not fallen for so many epochs."),
    ] = None
    stop_at_accuracy: Annotated[
        float | None, head_option(metavar="SHARE", help="mlp: stop at this training accuracy.")
    ] = None

    def mlp_config(self, head: str) -> MlpConfig | None:
        """Return the training of an mlp head, None where nothing is given. Raises OptionError for another head."""
        shared = ("dropout", "class_weight")  # with the other heads
        given = {name: value for name, value in vars(self).items() if value is not None and name not in shared}
        if not given:
            return None
        if head != "mlp":
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise OptionError(f"Only the mlp head is trained; give --head mlp, or leave {names} out.")
        from headstart.heads.mlp import MlpConfig

        if "lr" in given:
            given["learning_rate"] = given.pop("lr")
        return MlpConfig(**given)


@dataclass(frozen=True)
class FitRunOptions(CachedRunOptions):
    """Options of the run, with the seed, strictness, what may be replaced, and what the model says of itself."""

    seed: SeedOption = 0
    strict: StrictOption = False
    overwrite: Annotated[bool, run_option("--overwrite", help="Replace a model of other data or classes, too.")] = False
    model_version: Annotated[str, run_option(metavar="VERSION", help="Version of the model, for its card.")] = ""
    author: Annotated[str, run_option(metavar="NAME", help="Who made the model, for its card.")] = ""


def fit(
    data: DataArgument,
    flags: FitFlags = FitFlags(),
    reading: DataFlags = DataFlags(),
    input_flags: InputFlags = InputFlags(),
    head: HeadFlags = HeadFlags(),
    targets: EvaluationFlags = EvaluationFlags(),
    label_targets: LabelTargetFlags = LabelTargetFlags(),
    run: FitRunOptions = FitRunOptions(),
    sharing: WorkerFlags = WorkerFlags(),
    messages: Messages = Messages(),
    dry_run: Annotated[
        bool, run_option("--dry-run", help="Print how DATA is read and about what a fit takes; write nothing.")
    ] = False,
    fine_tune: Annotated[bool, typer.Option("--fine-tune", hidden=True, help="See headstart fine-tune.")] = False,
) -> None:
    """Fit a classifier to images and write a model folder."""
    if fine_tune:
        raise OptionError("Fine-tuning is a command of its own: headstart fine-tune DATA")
    options = replace(
        fit_options(flags, input_flags, targets),
        dropout=head.dropout,
        class_weight=head.class_weight,
        mlp=head.mlp_config(flags.head),
        views=reading.views,
        augmentation=reading.augmentation,
        decode=reading.decode,
        compute=run.compute,
        cache=run.cache,
        seed=run.seed,
        model_version=run.model_version,
        author=run.author,
        **vars(label_targets),
    )
    where = sharing.where(data, run.workers)
    if where is not None and dry_run:
        raise OptionError(
            "--dry-run looks at the data in this process; leave --on and --address out, and give one file."
        )
    if where is not None:
        fit_by_workers(data, reading, options, flags, messages, run, where)
    elif dry_run:
        _preview(data, reading, options, flags, run)
    else:
        fit_and_write(data, reading, options, flags, messages, run, keep_features=reading.keep_features)


def _preview(data: str, reading: LabelFlags, options: FitOptions, flags: FitFlags, run: FitRunOptions) -> None:
    """Print what a fit would read and take. What would make it an error is an error here, too."""
    from headstart.classifier.preview import preview

    options.compute.resolve()
    dataset = _open_for(flags.output_for(data), data, reading, options, run)
    with quiet_frameworks():
        result = preview(dataset, options)
    print_notes(result.notes)
    print_quarantined([vars(image) for image in dataset.quarantined])
    if flags.as_json:
        print_json(result.to_dict())
    else:
        print_preview(result)


def _open_for(output: Path, data: str, reading: LabelFlags, options: FitOptions, run: FitRunOptions) -> Dataset:
    """Open the data of a model that may be written to ``output``. Raises OptionError where it may not."""
    from headstart.data import open_dataset
    from headstart.model.folder_files import check_output_folder

    check_holds_images(data)
    check_output_folder(output)  # before the work, not behind it
    dataset = open_dataset(data, reading.read_options(options.group_by))
    if not run.overwrite:
        check_classes(output, dataset)
    return dataset


def fit_options(flags: FitFlags, input_flags: InputFlags, targets: EvaluationFlags) -> FitOptions:
    """Return the options of the library that ``fit`` and ``fine-tune`` share. Raises OptionError."""
    from headstart.classifier import FitOptions

    return FitOptions(
        backbone=flags.backbone_id,
        input_options=input_flags.input_options,
        cut=flags.cut,
        head=flags.head,
        group_by=flags.group_by,
        validation=_parse_validation(flags.validation),
        coverage=targets.coverage,
        false_alarms=targets.false_alarms,
        costs=targets.costs,
        thresholds=targets.thresholds,
    )


@dataclass(frozen=True)
class Refinement:
    """What follows a fit, to one class an image or to several labels.

    ``check`` raises OptionError for data that it does not suit, before their features are read; ``run`` makes another
    result of the fit's.
    """

    check: Callable[[Dataset], None]
    run: Callable[[Any], Any]


def fit_and_write(
    data: str,
    reading: LabelFlags,
    options: FitOptions,
    flags: FitFlags,
    messages: Messages,
    run: FitRunOptions,
    *,
    keep_features: bool = False,
    refinement: Refinement | None = None,
) -> None:
    """Fit, refine the result, write the model and the report, and print what was found."""
    start = time.perf_counter()
    options.compute.resolve()
    import_in_background(["onnxruntime"])  # for the golden sample
    from headstart.classifier import fit_dataset
    from headstart.model.folder_files import check_keeps_none

    output = flags.output_for(data)
    dataset = _open_for(output, data, reading, options, run)
    if not (keep_features or run.overwrite):
        check_keeps_none(output)
    if refinement is not None:
        refinement.check(dataset)
    refine = None if refinement is None else refinement.run
    save_memory(len(dataset))
    if dataset.is_multi_label:
        fit_labels(dataset, options, flags, messages, run, start, keep_features=keep_features, refine=refine)
        return
    with quiet_frameworks():
        with messages.bar("Reading features") as bar:
            result = fit_dataset(
                dataset,
                options,
                thumbnails=flags.report,
                keep_features=keep_features,
                progress=bar,
                log=messages.log,
            )
        if refine is not None:
            result = refine(result)
    result = replace(result, model=with_sources(result.model))
    folder = Path(result.save(output, overwrite=run.overwrite))
    from headstart import report

    curves = report.write_training_curves(result.model.run, folder)
    if not flags.as_json:
        with files_follow():  # the result waits neither for the notes nor for the report
            print_fit(result, str(folder), time.perf_counter() - start, by_default=flags.backbone is None)
            print(curves, end="")
    finish_fit(result, summary(result.model.run, str(folder)), options, flags, run)


def _parse_validation(value: str | None) -> str | float | None:
    """Turn the text of an option into a share, or leave it as the name of a dataset."""
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value
