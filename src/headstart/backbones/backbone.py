"""What a backbone is, and the register of providers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import OptionError
from headstart.images.preprocess import Preprocess

FLAT = "/flat"  # behind a cut's name: the whole map in one vector, not its mean


@dataclass(frozen=True)
class Tap:
    """A place to cut: its name, channels, depth as a share of the graph's multiply-adds in (0, 1], and the
    (height, width) of the map before pooling, or None where it is a vector already."""

    name: str
    channels: int
    depth: float
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Backbone:
    """A frozen network in standard form.

    ``graph`` is an ONNX file, or its bytes: input ``pixels`` uint8 [batch, height, width, 3] RGB, one output
    [batch, channels] float32 a tap, named like it; normalisation is inside. ``sha256`` is that file's.
    ``taps`` go from shallow to deep. ``notes`` are lines the user must see, such as a default assumed.
    ``batch`` is the only batch size the graph allows, or None for any.
    """

    id: str
    graph: Path | bytes
    sha256: str
    preprocess: Preprocess
    taps: tuple[Tap, ...]
    licence: str
    source: str
    notes: tuple[str, ...] = ()
    batch: int | None = None


@dataclass(frozen=True)
class InputOptions:
    """How pictures are to be prepared, where the user says so; None leaves it to the graph's own description.

    ``mean`` and ``std`` are of RGB scaled to 0..1; ``channels`` is "RGB" or "BGR"; ``size`` is (height, width).
    ``weights`` is a file of weights for ``timm:`` and ``keras:``, in place of those their authors publish.
    """

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: str | None = None
    size: tuple[int, int] | None = None
    crop: float | None = None
    resize: str | None = None
    interpolation: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and (len(value) != 3 or not all(abs(v) < 1e6 for v in value)):
                raise OptionError(f"{name} {value} cannot be used; expected three numbers, one for each of R, G, B.")
        if self.std is not None and min(self.std) <= 0:
            raise OptionError(f"std {self.std} cannot be used; expected three numbers above 0.")
        if self.channels not in (None, "RGB", "BGR"):
            raise OptionError(f"Channel order {self.channels!r} is unknown; expected RGB or BGR.")


Provider = Callable[[str, InputOptions, tuple[str, ...]], Backbone]
PROVIDERS: dict[str, Provider] = {}


def provider(name: str) -> Callable[[Provider], Provider]:
    """Enter a function in ``PROVIDERS`` under the part of a backbone id before its colon."""

    def enter(function: Provider) -> Provider:
        PROVIDERS[name] = function
        return function

    return enter
