"""The program, and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart import __version__
from headstart.errors import OptionError

if TYPE_CHECKING:
    from headstart.backbones import InputOptions

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A folder of pictures in, a trustworthy image classifier out: transfer learning without a training framework.",
)
networks = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The networks whose features are used.")
app.add_typer(networks, name="backbones")

BACKBONE_HELP = "headstart-s, onnx:FILE, hf:ORG/NAME, timm:NAME or keras:NAME ('timm:NAME?pad_type=same')."
RUNTIME_HELP = "auto, onnxruntime or openvino"
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print no progress and no notes.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="End with status 1 if a picture could not be read.")]
RuntimeOption = Annotated[str, typer.Option(help=f"What runs the network: {RUNTIME_HELP}.")]
PrecisionOption = Annotated[
    str, typer.Option(help="auto, fp32 or bf16 (OpenVINO, where the processor has it); fine-tuning: or fp16.")
]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Threads; one a core unless given.")]
WeightsOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="timm:, keras: weights to use in place of the published ones.")
]
ProgressOption = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="Show progress; by default on a terminal only."),
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"headstart {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# How an mlp head is trained, or layers of the backbone.
HiddenOption = Annotated[int | None, typer.Option(help="mlp: units of the hidden layer [1024].")]
OptimiserOption = Annotated[
    str | None, typer.Option(help="rmsprop, adam, adamw, sgd [mlp: rmsprop, fine-tuning: adamw].")
]
RateOption = Annotated[float | None, typer.Option(help="Learning rate [mlp: 0.0001, fine-tuning: 0.0003].")]
EpochsOption = Annotated[int | None, typer.Option(help="Epochs at the most [mlp: 20, fine-tuning: 5].")]
BatchOption = Annotated[int | None, typer.Option(help="Pictures a step [mlp: 20, fine-tuning: 16].")]
PatienceOption = Annotated[
    int | None, typer.Option(help="Stop when the loss on groups kept back has not fallen for so many epochs.")
]
StopOption = Annotated[float | None, typer.Option(help="Stop at this accuracy in training.")]
ClassWeightsOption = Annotated[
    bool | None, typer.Option("--class-weights", help="Every class counts alike, however few its pictures.")
]
FineTuneOption = Annotated[bool, typer.Option("--fine-tune", help="Train the backbone's last layers on (PyTorch).")]
UnfreezeOption = Annotated[
    str | None, typer.Option(metavar="TAP|LAYER|INDEX|all", help="Fine-tune from there on [the last two stages].")
]
DecayOption = Annotated[float | None, typer.Option(help="Fine-tuning: rate of a stage to that of the next [0.75].")]
GradualOption = Annotated[
    bool, typer.Option("--gradual", help="Fine-tuning: the last stage first, one stage more in each epoch.")
]
BoardOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Fine-tuning: event files for TensorBoard.")]
BatchNormOption = Annotated[str | None, typer.Option(help="Fine-tuning: frozen, or update its statistics [frozen].")]
LimitOption = Annotated[float | None, typer.Option(metavar="SECONDS", help="Fine-tuning: fewer epochs if need be.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on where a fine-tuning into the same MODEL ended.")]
TuningOption = Annotated[
    str | None,
    typer.Option(metavar="NAME=N,...", help="Fine-tuning: warm_up, l2_sp, ema, mixup, cutmix and more (docs)."),
]

# How a network wants its pictures.
MeanOption = Annotated[str | None, typer.Option(metavar="R,G,B", help="The input's mean, of RGB in 0..1.")]
StdOption = Annotated[str | None, typer.Option(metavar="R,G,B", help="The input's deviation, of RGB in 0..1.")]
ChannelsOption = Annotated[str | None, typer.Option(help="RGB or BGR, as the network wants it.")]
SizeOption = Annotated[str | None, typer.Option(metavar="N|HxW", help="Input size in pixels.")]
CropOption = Annotated[float | None, typer.Option(help="Share of the shorter side to keep.")]
ResizeOption = Annotated[str | None, typer.Option(help="shortest (crop the centre) or squash.")]

# What a model promises.
CoverageOption = Annotated[float, typer.Option(help="Share of pictures whose set of classes is to hold the true one.")]
FalseAlarmsOption = Annotated[
    float, typer.Option(help="Share of pictures of the classes that may be taken for none of these.")
]
CutOption = Annotated[
    str, typer.Option(help="auto, a tap, or several with commas; any tensor of an onnx: graph, any keras: layer.")
]
DropoutOption = Annotated[
    float | None, typer.Option(help="Dropout rate: of the ridge head in closed form, or of the mlp head.")
]
AugmentationOption = Annotated[str, typer.Option(help="How views differ: flip, light or lesson; fine-tuning: or none.")]


def input_options(
    mean: str | None,
    std: str | None,
    channels: str | None,
    size: str | None,
    crop: float | None,
    resize: str | None,
    weights: str | None = None,
) -> InputOptions | None:
    """What these options say of the input; None where none is given. Raises OptionError."""
    if all(value is None for value in (mean, std, channels, size, crop, resize, weights)):
        return None
    from headstart.backbones import InputOptions

    return InputOptions(
        mean=_three(mean, "--mean"), std=_three(std, "--std"), channels=channels, size=_size(size), crop=crop,
        resize=resize, weights=weights,
    )  # fmt: skip


def _three(text: str | None, name: str) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise OptionError(f"{name} {text!r} cannot be read; expected three numbers like 0.485,0.456,0.406.")
    return (numbers[0], numbers[1], numbers[2])


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdecimal() for part in parts):
        raise OptionError(
            f"--input-size {text!r} cannot be read; expected pixels like 160, or height x width like 160x224."
        )
    return (int(parts[0]), int(parts[-1]))
