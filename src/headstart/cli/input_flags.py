"""Options of how a network wants its images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from headstart.cli.options import backbone_option
from headstart.errors import OptionError

if TYPE_CHECKING:
    from headstart.backbones import InputOptions

WEIGHTS_HELP = "timm:, keras: a file of weights in place of the published ones."


@dataclass(frozen=True)
class InputFlags:
    """How a network wants its images, and weights in place of the published ones."""

    weights: Annotated[str | None, backbone_option(metavar="FILE", help=WEIGHTS_HELP)] = None
    mean: Annotated[str | None, backbone_option(metavar="R,G,B", help="Mean of the input, of RGB in 0..1.")] = None
    std: Annotated[
        str | None, backbone_option(metavar="R,G,B", help="Standard deviation of the input, of RGB in 0..1.")
    ] = None
    channels: Annotated[str | None, backbone_option(metavar="RGB|BGR", help="Channel order of the input.")] = None
    input_size: Annotated[str | None, backbone_option(metavar="N|HxW", help="Size of the input in pixels.")] = None
    crop: Annotated[
        float | None, backbone_option(metavar="SHARE", help="Share of the shorter side to keep, above 0 to 1.")
    ] = None
    resize: Annotated[
        str | None,
        backbone_option(
            metavar="shortest|squash", help="How an image gets the size: its centre is cropped, or it is squashed."
        ),
    ] = None

    @property
    def input_options(self) -> InputOptions | None:
        """Return the `InputOptions` of the library, None where nothing is given. Raises OptionError."""
        if all(getattr(self, field.name) is None for field in dataclasses.fields(self)):
            return None
        from headstart.backbones import InputOptions

        return InputOptions(
            mean=_three_numbers(self.mean, "--mean"),
            std=_three_numbers(self.std, "--std"),
            channels=self.channels,
            size=_height_and_width(self.input_size),
            crop=self.crop,
            resize=self.resize,
            weights=self.weights,
        )


def _three_numbers(text: str | None, option: str) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise OptionError(f"{option} {text!r} cannot be read; expected three numbers like 0.485,0.456,0.406.")
    return (numbers[0], numbers[1], numbers[2])


def _height_and_width(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdecimal() for part in parts):
        raise OptionError(
            f"--input-size {text!r} cannot be read; expected pixels like 160, or height x width like 160x224."
        )
    return (int(parts[0]), int(parts[-1]))
