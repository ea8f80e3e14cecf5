"""Backbones, their taps, the options of their input, and the registry of providers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.backbones.scaling import Assumption
from headstart.errors import BackboneError, OptionError
from headstart.images.preprocess import Preprocess

FLAT = "/flat"  # suffix of a tap's name: all values of the map in one vector, instead of their mean over space
MAX_FILE_BYTES = 2 * 2**30  # of a graph or a file of weights; an ONNX graph in one piece cannot be larger


@dataclass(frozen=True)
class Tap:
    """A tensor of a network at which it can be cut, reduced to a vector of ``channels`` values.

    ``depth`` is the share of the network's multiply-adds spent up to the tensor, in (0, 1]. ``size`` is the (height,
    width) of the map before pooling, or None where the tensor is not a map. Features of channel c are kept as whole
    numbers of the step ``2.0**exponents[c]`` (``steps.py``); None where values are only used as they are.
    """

    name: str
    channels: int
    depth: float
    size: tuple[int, int] | None
    exponents: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Backbone:
    """A frozen network in standard form.

    ``graph`` is an ONNX file, or its bytes: input ``pixels`` uint8 [batch, height, width, 3] RGB, and for each tap an
    output of its name, float32 [batch, channels]; the normalisation is part of the graph. ``sha256`` is the hash of
    that file in hexadecimal. ``taps`` go from shallow to deep. ``notes`` are lines that the user must see, such as an
    assumed default. ``batch`` is the only batch size that the graph allows, or None for any. ``assumption`` is the
    scaling that was assumed, None where it came with the weights or was given.
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
    assumption: Assumption | None = None
    precision: str = "fp32"


@dataclass(frozen=True)
class InputOptions:
    """How images are prepared for a network; None leaves it to the network's own description.

    ``mean`` and ``std`` are those of RGB scaled to 0..1; ``channels`` is "RGB" or "BGR"; ``size`` is (height, width) in
    pixels; ``crop``, ``resize`` and ``interpolation`` are those of ``Preprocess``. ``weights`` is a file of weights for
    ``timm:`` and ``keras:``, in place of the published ones. Raises OptionError for values that cannot be used.
    """

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: str | None = None
    size: tuple[int, int] | None = None
    crop: float | None = None
    resize: str | None = None
    interpolation: str | None = None
    weights: str | None = None

    @property
    def give_scaling(self) -> bool:
        """Whether any of mean, deviation and order of the channels is given."""
        return not (self.mean is None and self.std is None and self.channels is None)

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and (len(value) != 3 or not all(abs(v) < 1e6 for v in value)):
                raise OptionError(f"{name} {value} cannot be used; expected three numbers, one for each of R, G, B.")
        if self.std is not None and min(self.std) <= 0:
            raise OptionError(f"std {self.std} cannot be used; expected three numbers above 0.")
        if self.channels not in (None, "RGB", "BGR"):
            raise OptionError(f"Channel order {self.channels!r} is unknown; expected RGB or BGR.")


def check_taps(backbone: Backbone, names: Sequence[str], id: str | None = None) -> None:
    """Raise BackboneError for a name that is not a tap of ``backbone``, which the message calls by ``id`` if given."""
    known = [tap.name for tap in backbone.taps]
    for name in names:
        if name not in known:
            raise BackboneError(f"Unknown cut {name!r}; {id or backbone.id} has {', '.join(known)}.")
