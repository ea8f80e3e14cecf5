"""headstart fine-tune"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.fit import (
    DecodeFlags,
    EvaluationFlags,
    FitFlags,
    FitRunOptions,
    Refinement,
    fit_and_write,
    fit_options,
)
from headstart.cli.fit_labels import LabelTargetFlags
from headstart.cli.fit_sharded import working_in
from headstart.cli.input_flags import InputFlags
from headstart.cli.options import (
    DataArgument,
    Messages,
    common,
    head_option,
    run_option,
)
from headstart.machine import keep_freed_memory

if TYPE_CHECKING:
    from headstart.data import Dataset
    from headstart.features import Compute
    from headstart.finetune import FineTuneConfig

training_option = partial(typer.Option, rich_help_panel="Training")


@dataclass(frozen=True)
class TrainingFlags:
    """How layers of the backbone are trained."""

    unfreeze_from: Annotated[
        str | None,
        common(metavar="TAP|LAYER|INDEX|all", help="First layer to train [the last two stages]."),
    ] = None
    epochs: Annotated[int | None, common(help="Maximum number of epochs [5].")] = None
    lr: Annotated[float | None, training_option(metavar="RATE", help="Learning rate [0.0003].")] = None
    batch_size: Annotated[int | None, training_option(help="Images per step [16; 16 to 128 on a GPU].")] = None
    optimizer: Annotated[
        str | None, training_option(metavar="rmsprop|adam|adamw|sgd", help="The optimizer [adamw].")
    ] = None
    layer_decay: Annotated[
        float | None,
        training_option(metavar="FACTOR", help="Learning rate of a stage relative to that of the next [0.75]."),
    ] = None
    gradual: Annotated[
        bool, training_option("--gradual", help="Unfreeze the last stage first, one more stage in each epoch.")
    ] = False
    batch_norm: Annotated[
        str | None,
        training_option(
            metavar="frozen|update", help="Whether batch norms keep their statistics or follow the batches [frozen]."
        ),
    ] = None
    augmentation: Annotated[
        str, training_option(metavar="none|flip|light|lesson", help="How images are varied in each epoch.")
    ] = "light"
    class_weights: Annotated[
        bool | None, training_option("--class-weights", help="Train as if every class had as many images.")
    ] = None
    patience: Annotated[
        int | None, training_option(help="Stop when the validation loss has not fallen for so many epochs.")
    ] = None
    stop_at_accuracy: Annotated[
        float | None, training_option(metavar="SHARE", help="Stop at this training accuracy.")
    ] = None
    time_limit: Annotated[
        float | None, training_option(metavar="SECONDS", help="Lower the number of epochs to keep to this time.")
    ] = None
    tuning: Annotated[
        str | None,
        training_option(
            metavar="NAME=N,...",
            help="What is rarely changed: warm_up, l2_sp, ema, label_smoothing, mixup, cutmix, clip.",
        ),
    ] = None
    tensorboard: Annotated[
        Path | None, training_option(metavar="DIR", help="Write event files for TensorBoard to this folder.")
    ] = None
    resume: Annotated[
        bool, training_option("--resume", help="Continue an interrupted fine-tuning into the same MODEL.")
    ] = False

    def config(self, output: Path, precision: str) -> FineTuneConfig:
        """Return the `FineTuneConfig` of the library; checkpoints lie beside the model until it is written.

        Raises OptionError.
        """
        from headstart.finetune import FineTuneConfig, parse_tuning

        given = {name: value for name, value in vars(self).items() if value is not None and name != "tuning"}
        if "lr" in given:
            given["learning_rate"] = given.pop("lr")
        output = output.resolve()  # "." has no name
        checkpoints = output.with_name(f"{output.name}.unfinished")
        return FineTuneConfig(**given, **parse_tuning(self.tuning or ""), precision=precision, checkpoints=checkpoints)


@dataclass(frozen=True)
class FineTuneRunOptions(FitRunOptions):
    """Options of the run, whose precision is that of the training."""

    precision: Annotated[
        str, run_option(metavar="auto|fp32|bf16|fp16", help="Of the training; evaluation is in fp32.")
    ] = "auto"

    @property
    def compute(self) -> Compute:
        """What computes the features, which are never fp16."""
        from headstart.features import Compute

        if self.precision in ("auto", "fp16"):  # never int8, which cannot be trained
            return Compute(self.runtime, Compute(self.runtime).resolve().precision, self.workers)
        return Compute(self.runtime, self.precision, self.workers)


def fine_tune(
    data: DataArgument,
    flags: FitFlags = FitFlags(),
    training: TrainingFlags = TrainingFlags(),
    reading: DecodeFlags = DecodeFlags(),
    input_flags: InputFlags = InputFlags(),
    dropout: Annotated[
        float | None, head_option(metavar="RATE", help="Dropout rate of the ridge head, in closed form.")
    ] = None,
    targets: EvaluationFlags = EvaluationFlags(),
    label_targets: LabelTargetFlags = LabelTargetFlags(),
    run: FineTuneRunOptions = FineTuneRunOptions(),
    messages: Messages = Messages(),
) -> None:
    """Fit, then train the backbone too; kept only if it is better."""
    from headstart import finetune
    from headstart.finetune.checkpoint import delete_checkpoints

    config = training.config(flags.output_for(data), run.precision)
    finetune.check_fine_tuning(flags.backbone_id, config)
    Thread(target=finetune.start_device).start()  # no daemon: PyTorch aborts a process that ends meanwhile
    options = replace(
        fit_options(flags, input_flags, targets),
        dropout=dropout,
        decode=reading.decode,
        compute=run.compute,
        cache=run.cache,
        seed=run.seed,
        model_version=run.model_version,
        author=run.author,
        **vars(label_targets),
    )

    def check(dataset: Dataset) -> None:
        finetune.check_class_weights(config, is_multi_label=dataset.is_multi_label)

    def refine(result: Any) -> Any:
        keep_freed_memory()
        tuned = finetune.fine_tune(result, config, log=messages.log)
        if not finetune.is_main_process():
            raise typer.Exit  # of several processes one writes
        return tuned

    assert config.checkpoints is not None
    # Of processes that torchrun started, which run this command together, one writes.
    is_writer = os.environ.get("RANK", "0") == "0"
    with working_in(config.checkpoints) if is_writer else nullcontext():
        fit_and_write(data, reading, options, flags, messages, run, refinement=Refinement(check, refine))
        delete_checkpoints(config.checkpoints)
