"""The program, and the options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart import __version__

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A folder of pictures in, a trustworthy image classifier out: transfer learning without a training framework.",
)
networks = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The networks whose features are used.")
app.add_typer(networks, name="backbones")

BACKBONE_HELP = "headstart-s, onnx:FILE, timm:NAME or keras:NAME; arguments as in 'timm:NAME?pad_type=same'."
RUNTIME_HELP = "auto, onnxruntime or openvino"
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print no progress and no notes.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="End with status 1 if a picture could not be read.")]
RuntimeOption = Annotated[str, typer.Option(help=f"What runs the network: {RUNTIME_HELP}.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, fp32 or bf16 (OpenVINO, where the processor has it).")]
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
