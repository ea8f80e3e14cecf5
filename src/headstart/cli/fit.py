"""fit."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.options import (
    BACKBONE_HELP,
    AugmentationOption,
    BatchNormOption,
    BatchOption,
    BoardOption,
    ChannelsOption,
    ClassWeightsOption,
    CoverageOption,
    CropOption,
    CutOption,
    DecayOption,
    DropoutOption,
    EpochsOption,
    FalseAlarmsOption,
    FineTuneOption,
    GradualOption,
    HiddenOption,
    JsonOption,
    LimitOption,
    MeanOption,
    OptimiserOption,
    PatienceOption,
    PrecisionOption,
    ProgressOption,
    QuietOption,
    RateOption,
    ResizeOption,
    ResumeOption,
    RuntimeOption,
    SizeOption,
    StdOption,
    StopOption,
    StrictOption,
    TuningOption,
    UnfreezeOption,
    WeightsOption,
    WorkersOption,
    app,
    input_options,
)
from headstart.cli.report import write_report
from headstart.cli.terminal import (
    line,
    print_fit,
    print_json,
    progress_bar,
    tell_quarantine,
)
from headstart.errors import OptionError
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.classifier import ImageClassifier
    from headstart.finetune import FineTuning
    from headstart.finetune.run import Tuned
    from headstart.heads import Training


@app.command()
def fit(
    data: Annotated[str, typer.Argument(help="Folder, zip or tar, table (.csv, .parquet, .jsonl) or URL of these.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")] = Path("model"),
    backbone: Annotated[str, typer.Option(help=BACKBONE_HELP)] = "headstart-s",
    weights: WeightsOption = None,
    cut: CutOption = "auto",
    head: Annotated[str, typer.Option(help="auto, ridge, lda, centroid, logistic or mlp.")] = "auto",
    dropout: DropoutOption = None,
    hidden: HiddenOption = None,
    optimiser: OptimiserOption = None,
    lr: RateOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    patience: PatienceOption = None,
    stop_at_accuracy: StopOption = None,
    class_weights: ClassWeightsOption = None,
    fine_tune: FineTuneOption = False,
    unfreeze_from: UnfreezeOption = None,
    gradual: GradualOption = False,
    layer_decay: DecayOption = None,
    batch_norm: BatchNormOption = None,
    time_limit: LimitOption = None,
    tensorboard: BoardOption = None,
    resume: ResumeOption = False,
    tuning: TuningOption = None,
    views: Annotated[int, typer.Option(min=1, help="Views of each training picture to learn from.")] = 1,
    augmentation: AugmentationOption = "light",
    group_by: Annotated[str, typer.Option(help="auto (near duplicates), none, or a table's column.")] = "auto",
    validation: Annotated[str | None, typer.Option(help="Data set, or share of the groups to hold out.")] = None,
    coverage: CoverageOption = 0.95,
    false_alarms: FalseAlarmsOption = 0.05,
    mean: MeanOption = None,
    std: StdOption = None,
    channels: ChannelsOption = None,
    input_size: SizeOption = None,
    crop: CropOption = None,
    resize: ResizeOption = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    seed: Annotated[int, typer.Option(help="For what is drawn at random.")] = 0,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep features on disk.")] = True,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write MODEL/report.html.")] = True,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Learn to tell the classes of DATA apart, and write a model folder."""
    started = time.perf_counter()
    from headstart.classifier import ImageClassifier
    from headstart.model import check_target

    check_target(output)  # before the work, not after it
    given = {
        "optimiser": optimiser, "rate": lr, "epochs": epochs, "batch": batch_size, "patience": patience,
        "stop_at_accuracy": stop_at_accuracy, "class_weights": class_weights,
    }  # fmt: skip
    how = _fine_tuning(
        fine_tune or unfreeze_from is not None, backbone, output, tuning, given, unfreeze_from=unfreeze_from,
        gradual=gradual, layer_decay=layer_decay, batch_norm=batch_norm, time_limit=time_limit, resume=resume,
        tensorboard=tensorboard, augmentation=augmentation, precision=precision,
    )  # fmt: skip
    training = _training(head, hidden=hidden, **({} if how else given))
    classifier = ImageClassifier(
        backbone=backbone, cut=cut, head=head, dropout=dropout, group_by=group_by,
        validation=_validation(validation), coverage=coverage, false_alarms=false_alarms, runtime=runtime,
        precision="auto" if how and precision == "fp16" else precision, workers=workers, seed=seed,
        input_options=input_options(mean, std, channels, input_size, crop, resize, weights), cache=cache, views=views,
        augmentation="light" if augmentation == "none" else augmentation, training=training,
    )  # fmt: skip
    with progress_bar("Reading features", quiet, progress) as bar, quiet_frameworks():
        classifier.fit(data, report=report, progress=bar)
    folder, curves = _written(classifier, output, how, quiet)
    if not as_json:
        print_fit(classifier, folder, time.perf_counter() - started)
        print(curves, end="", flush=True)  # the result is not kept waiting for the report
    _report(classifier, folder, cache, report, as_json)
    raise typer.Exit(1 if strict and classifier.quarantined_ else 0)


def _report(classifier: ImageClassifier, folder: str, cache: bool, wanted: bool, as_json: bool) -> None:
    page = write_report(classifier, folder, cache) if wanted else None
    if as_json:
        print_json(_summary(classifier.run_, folder) | {"report": page})
    elif page is not None:
        print(line(f"Report      {page}"))


def _written(classifier: ImageClassifier, output: Path, how: FineTuning | None, quiet: bool) -> tuple[str, str]:
    """Fine-tune where that is wanted, write the model, say what is odd: its folder, and the curves of a training."""
    history, of = classifier.run_["training"], ""
    if how is not None:
        tuned = _tuned(classifier, how, quiet)
        if not tuned.main:
            raise typer.Exit  # of several processes one writes
        history, of = tuned.history, tuned.last
    folder = classifier.save(output)
    if how is not None:
        rmtree(str(how.checkpoints), ignore_errors=True)
    if not quiet:
        for note in classifier.notes_:
            print(line(f"note: {note}"), file=sys.stderr)
    tell_quarantine(classifier.quarantined_, quiet)
    return folder, _curves(history, of, folder)


def _fine_tuning(
    wanted: bool, backbone: str, output: Path, tuning: str | None, shared: dict[str, Any], **given: Any
) -> FineTuning | None:
    """How layers are trained, None if they are not; checkpoints lie beside the model until it is written."""
    from headstart.finetune import FineTuning, check_backbone, parse

    shown = ("augmentation", "precision")  # of the frozen path too
    if not wanted:
        some = [f"--{name.replace('_', '-')}" for name, value in given.items() if value and name not in shown]
        some += ["--tuning"] * (tuning is not None)
        if some or given["augmentation"] == "none":
            raise OptionError(f"{', '.join(some) or '--augmentation none'} is of fine-tuning; give --fine-tune too.")
        return None
    check_backbone(backbone)
    some_given = {name: value for name, value in {**shared, **given}.items() if value is not None}
    checkpoints = output.with_name(f"{output.name}.unfinished")
    return FineTuning(**some_given, **parse(tuning or ""), checkpoints=checkpoints)


def _tuned(classifier: ImageClassifier, how: FineTuning, quiet: bool) -> Tuned:
    from headstart.finetune import fine_tune

    with quiet_frameworks():
        return fine_tune(classifier, how, say=lambda text: None if quiet else print(line(text), file=sys.stderr))


def _curves(history: list[dict[str, Any]], of: str, folder: str) -> str:
    """The curves of a training, left as a picture in the model folder too; nothing where nothing was trained."""
    if not history:
        return ""
    from headstart.report.training_curves import curves_svg, curves_text

    (Path(folder) / "training.svg").write_text(curves_svg(history), "utf-8")
    return curves_text(history, of) + "\n"


def _summary(run: dict[str, Any], folder: str) -> dict[str, Any]:
    images = {**run["images"], "quarantined": len(run["images"]["quarantined"])}
    keys = ("groups", "backbone", "cut", "head", "runtime", "accuracy", "learning_curve", "seconds", "cache")
    tuned = {"fine_tuning": run["fine_tuning"]} if "fine_tuning" in run else {}
    return {"model": folder, "classes": run["classes"], "images": images} | {key: run[key] for key in keys} | tuned


def _validation(value: str | None) -> str | float | None:
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value


def _training(head: str, **given: object) -> Training | None:
    """How an mlp head is trained: what was given, and the defaults."""
    from headstart.heads import Training

    some: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if some and head != "mlp":
        flags = {"rate": "--lr", "batch": "--batch-size"}
        names = ", ".join(flags.get(name, f"--{name.replace('_', '-')}") for name in some)
        raise OptionError(f"Only the mlp head is trained; give --head mlp, or leave {names} out.")
    return Training(**some) if some else None
