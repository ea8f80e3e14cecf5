"""How a network wants its images scaled, where nothing says so: what its batch norms have stored tells it.

A batch norm keeps the mean and the variance that each channel of its input had in training. Images that are scaled as
in training give about the same, and images that are scaled otherwise do not. So the usual scalings are tried on a few
of the user's images, and the one whose statistics come clearly closest to those stored is taken.

How far two normal distributions with such means and variances are from each other is a quarter of Jeffreys' divergence
(Jeffreys 1946), ``(m - n)^2 (1/v + 1/w) + v/w + w/v - 2`` for N(m, v) and N(n, w), averaged over the channels. It is
bounded for each channel: a channel that is nearly constant would outweigh all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import BackboneError

Triple = tuple[float, float, float]
MAX_OF_CHANNEL = 10.0  # of the divergence of one channel
SMALLEST_VARIANCE = 1e-3  # of the mean over the channels, added to each: some channels are nearly constant
MARGIN = 2.0  # the next scaling is at least so many times as far off as the one that is taken
ORDER_MARGIN = 1.2  # likewise the other order of the channels
PADDING_MARGIN = 1.2  # of ``padding_ratio``
ALIKE = 0.25  # scalings that differ by less, in mean and logarithm of the deviation, are one candidate
MAX_DIVERGENCE = 1.0  # of a scaling that is taken


@dataclass(frozen=True)
class Scaling:
    """What a network takes of RGB in 0..1: ``(rgb - mean) / std``, in the order ``channels`` ("RGB" or "BGR")."""

    mean: Triple
    std: Triple
    channels: str = "RGB"

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scale images [..., 3] uint8, RGB."""
        scaled = (pixels / np.float32(255) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(scaled[..., ::-1] if self.channels == "BGR" else scaled, np.float32)

    def __str__(self) -> str:
        """Its name where it is a usual one, else its numbers."""
        name = next((name for name, usual in USUAL.items() if _alike(Scaling(*usual), self, 1e-3)), None)
        numbers = [",".join(f"{number:.4g}" for number in values) for values in (self.mean, self.std)]
        order = " in the order BGR" if self.channels == "BGR" else ""
        return f"{name or f'mean {numbers[0]} and std {numbers[1]}'}{order}"


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and variance of each channel of a tensor."""

    mean: tuple[float, ...]
    variance: tuple[float, ...]


@dataclass(frozen=True)
class Norms:
    """Batch norms of a network, and the part of the network before them.

    ``graph`` is an ONNX file, or its bytes: the network's own input, and the inputs of the batch norms as outputs.
    ``statistics`` is what these hold, ``axes`` which axis of each is that of the channels. Only where
    ``padding_is_open`` there are more than the first ``onnx.norms.FIRST``: the last ones.
    """

    graph: Path | bytes
    statistics: tuple[ChannelStatistics, ...]
    axes: tuple[int, ...]
    padding_is_open: bool = False


@dataclass(frozen=True)
class Assumption:
    """A scaling that was assumed, since nothing came with the weights to tell it.

    ``note`` is the line that says so, one of the backbone's notes. ``norms`` is None where the network has no batch
    norm that could be compared.
    """

    note: str
    scaling: Scaling
    norms: Norms | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, without the graph of the batch norms."""
        norms = self.norms and {
            "statistics": [asdict(statistics) for statistics in self.norms.statistics],
            "axes": self.norms.axes,
            "padding_is_open": self.norms.padding_is_open,
        }
        return {"note": self.note, "scaling": asdict(self.scaling), "norms": norms}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], graph: Path) -> Assumption:
        """Build from the form of ``to_dict``; raises what values of another form raise."""
        scaling, norms = values["scaling"], values["norms"]
        return cls(
            str(values["note"]),
            Scaling(tuple(scaling["mean"]), tuple(scaling["std"]), str(scaling["channels"])),
            norms
            and Norms(
                graph,
                tuple(ChannelStatistics(tuple(s["mean"]), tuple(s["variance"])) for s in norms["statistics"]),
                tuple(norms["axes"]),
                bool(norms["padding_is_open"]),
            ),
        )


IMAGENET_MEAN = (0.485, 0.456, 0.406)
USUAL: dict[str, tuple[Triple, Triple]] = {
    "-1 to 1": ((0.5,) * 3, (0.5,) * 3),
    "0 to 1": ((0.0,) * 3, (1.0,) * 3),
    "ImageNet's mean and deviation": (IMAGENET_MEAN, (0.229, 0.224, 0.225)),
    "0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
    "0 to 255 less ImageNet's mean": (IMAGENET_MEAN, (1 / 255,) * 3),
}


def candidates(assumed: Scaling) -> tuple[Scaling, ...]:
    """List the assumed scaling and the usual ones that are not nearly the same, each in both orders of the channels."""
    others = [pair for pair in USUAL.values() if not _alike(Scaling(*pair), assumed, ALIKE)]
    pairs = [(assumed.mean, assumed.std), *others]
    return tuple(Scaling(*pair, order) for pair in pairs for order in ("RGB", "BGR"))


def _alike(a: Scaling, b: Scaling, tolerance: float) -> bool:
    """Whether two scalings are nearly the same, whatever the order of their channels."""
    ratios = np.array(a.std) / np.array(b.std)
    distances = np.abs(np.subtract(a.mean, b.mean)) / np.maximum(a.std, b.std)
    return bool((np.abs(np.log(ratios)) <= tolerance).all() and (distances <= tolerance).all())


def channel_statistics(values: NDArray[np.floating], axis: int) -> ChannelStatistics:
    """Return mean and variance of each channel of a tensor over all its other axes."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    return ChannelStatistics(
        tuple(values.mean(axis=others, dtype=np.float64).tolist()),
        tuple(values.var(axis=others, dtype=np.float64).tolist()),
    )


def divergence(stored: Sequence[ChannelStatistics], measured: Sequence[ChannelStatistics]) -> float:
    """Return how far measured statistics are from those stored: 0 where equal, at most ``MAX_OF_CHANNEL``.

    The mean over the batch norms of the mean over the channels. Raises BackboneError for other numbers of channels.
    """
    pairs = zip(stored, measured, strict=True)
    return float(np.mean([np.minimum(sum(_parts(*pair)), MAX_OF_CHANNEL).mean() for pair in pairs]))


def padding_ratio(
    stored: Sequence[ChannelStatistics], own: Sequence[ChannelStatistics], same: Sequence[ChannelStatistics]
) -> float:
    """Return how many times as far off as with TensorFlow's padding the variances are with that of the architecture.

    ``own`` and ``same`` are measured with the one and the other. The geometric mean over the batch norms of the part of
    ``divergence`` that is due to the variances alone: where maps are shifted against what the filters expect, channels
    vary less, while their means tell more about which images these are.
    """
    of_norms = [
        [np.minimum(_parts(statistics, measured)[1], MAX_OF_CHANNEL).mean() + 1e-6 for measured in (a, b)]
        for statistics, a, b in zip(stored, own, same, strict=True)
    ]
    return float(np.exp(np.mean([np.log(a / b) for a, b in of_norms])))


def _parts(stored: ChannelStatistics, measured: ChannelStatistics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The parts of the divergence of each channel that are due to the means and to the variances."""
    if len(stored.mean) != len(measured.mean):
        raise BackboneError(f"A batch norm of {len(stored.mean)} channels gets {len(measured.mean)}.")
    variance = np.array(stored.variance)
    smallest = SMALLEST_VARIANCE * variance.mean() + np.finfo(np.float64).tiny
    v, w = variance + smallest, np.array(measured.variance) + smallest
    return (np.array(measured.mean) - stored.mean) ** 2 * (1 / v + 1 / w) / 4, (v / w + w / v - 2) / 4


def choose(divergences: Mapping[Scaling, float]) -> Scaling | None:
    """Return the scaling that fits clearly better than all others; None where none does.

    First the mean and deviation are chosen, then the order of the channels: RGB unless BGR fits clearly better.
    """
    best_of: dict[tuple[Triple, Triple], float] = {}
    for scaling, value in divergences.items():
        key = (scaling.mean, scaling.std)
        best_of[key] = min(value, best_of.get(key, np.inf))
    ranked = sorted(best_of, key=best_of.__getitem__)
    best = best_of[ranked[0]]
    if not best <= MAX_DIVERGENCE or (len(ranked) > 1 and best_of[ranked[1]] < MARGIN * best):
        return None
    rgb, bgr = (Scaling(*ranked[0], order) for order in ("RGB", "BGR"))
    is_bgr = divergences.get(rgb, np.inf) >= ORDER_MARGIN * divergences.get(bgr, np.inf)
    return bgr if is_bgr else rgb
