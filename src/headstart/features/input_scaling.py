"""A backbone whose scaling was assumed: find the right one by the user's images and the backbone's batch norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import backbones
from headstart.backbones import Backbone, InputOptions
from headstart.backbones.scaling import (
    PADDING_MARGIN,
    Assumption,
    Norms,
    Scaling,
    candidates,
    choose,
    divergence,
    padding_ratio,
)
from headstart.data import Dataset
from headstart.errors import ImageError
from headstart.images.decoding import decode
from headstart.images.preprocess import Preprocess
from headstart.images.samples import SampleRange

IMAGES = 32  # training images that are compared, fewer where they are larger than 1,200 x 1,200 pixels
MAX_BYTES = 2**27  # of their pixels
SAME_PADDING = "pad_type=same"  # timm's argument


@dataclass(frozen=True)
class InputScaling:
    """The scaling that was taken where none came with the weights and none was given.

    ``measured`` tells whether batch norms decided, or the assumption stands. ``divergences`` are those of the scalings
    that were compared (``scaling.divergence``), by name; ``padding_ratio`` is that of ``scaling.padding_ratio``, None
    where the padding is not open. ``note`` is the line that the user must see.
    """

    scaling: Scaling
    measured: bool
    same_padding: bool
    divergences: Mapping[str, float]
    padding_ratio: float | None
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, for ``run.json``."""
        return {
            **asdict(self.scaling),
            "found_by": "batch norms" if self.measured else "assumed",
            "same_padding": self.same_padding,
            "divergences": dict(self.divergences),
            "padding_ratio": self.padding_ratio,
        }


@dataclass(frozen=True)
class OpenedBackbone:
    """A backbone, with the id and the options that give it, and its scaling where that was open (else None)."""

    backbone: Backbone
    id: str
    options: InputOptions | None
    scaling: InputScaling | None


def open_backbone(
    id: str,
    options: InputOptions | None,
    taps: Sequence[str],
    images: Dataset,
    sample_range: SampleRange | None = None,
    *,
    precision: str = "fp32",
) -> OpenedBackbone:
    """Load a backbone; where its scaling would be assumed, the one that fits ``images`` (the training images) is taken.

    ``precision`` "int8" is its int8 version. Raises what ``backbones.load`` raises.
    """
    backbone = backbones.load(id, options=options, taps=taps)  # in fp32: int8 is made once the scaling is known
    assumption = backbone.assumption
    if assumption is None:
        if precision == "int8":
            backbone = backbones.load(id, options=options, taps=taps, precision=precision)
        return OpenedBackbone(backbone, id, options, None)
    pixels = sample_pixels(images, replace(backbone.preprocess, sample_range=sample_range))
    found = find_scaling(assumption, pixels)
    if found.same_padding:
        id = f"{id}{'&' if '?' in id else '?'}{SAME_PADDING}"
    is_other = found.same_padding or found.scaling != assumption.scaling
    if is_other:
        options = replace(
            options or InputOptions(),
            mean=found.scaling.mean,
            std=found.scaling.std,
            channels=found.scaling.channels,
        )
    if is_other or precision == "int8":
        backbone = backbones.load(id, options=options, taps=taps, precision=precision)
    notes = tuple(note for note in backbone.notes if note != assumption.note)
    return OpenedBackbone(replace(backbone, notes=notes, assumption=None), id, options, found)


def sample_pixels(images: Dataset, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Return up to ``IMAGES`` images that can be read, evenly spread, as [n, height, width, 3] uint8."""
    pixels = []
    limit = max(1, MAX_BYTES // (preprocess.height * preprocess.width * 3))
    for index in np.linspace(0, len(images) - 1, min(IMAGES, len(images), limit)).astype(int):
        try:
            source = images.read(int(index))
            image = decode(source, min_size=preprocess.min_size, sample_range=preprocess.sample_range)
        except ImageError:  # the extraction names it
            continue
        pixels.append(preprocess(image))
    return np.array(pixels, np.uint8).reshape(-1, preprocess.height, preprocess.width, 3)


def find_scaling(assumption: Assumption, pixels: NDArray[np.uint8]) -> InputScaling:
    """Find the scaling, and the padding where it is open, that fits images [n, height, width, 3] best.

    Raises BackboneError where the batch norms cannot be computed.
    """
    norms, assumed = assumption.norms, assumption.scaling
    kept = InputScaling(assumed, False, False, {}, None, assumption.note)
    if norms is None:
        return replace(kept, note=f"{assumption.note} It has no batch norm with which images could be compared.")
    if not len(pixels):
        return kept
    from headstart.backbones.onnx.norms import FIRST, measure_norms

    divergences = {
        scaling: divergence(norms.statistics[:FIRST], measure_norms(norms, pixels, scaling, first=True))
        for scaling in candidates(assumed)
    }
    chosen = choose(divergences)
    named = {str(scaling): value for scaling, value in divergences.items()}
    if chosen is None:
        best = min(named, key=named.__getitem__)
        note = f"{assumption.note} None of the usual scalings fits its batch norms clearly (the nearest: {best})."
        return replace(kept, divergences=named, note=note)
    ratio = _compare_paddings(norms, pixels, chosen) if norms.padding_is_open else None
    same_padding = ratio is not None and ratio >= PADDING_MARGIN
    note = _note(assumption, chosen, divergences, same_padding)
    return InputScaling(chosen, True, same_padding, named, ratio, note)


def _compare_paddings(norms: Norms, pixels: NDArray[np.uint8], scaling: Scaling) -> float:
    """Return the ``padding_ratio`` of the last batch norms."""
    from headstart.backbones.onnx.norms import FIRST, measure_norms

    own, same = (
        measure_norms(norms, pixels, scaling, first=False, same_padding=same_padding) for same_padding in (False, True)
    )
    return padding_ratio(norms.statistics[FIRST:], own, same)


def _note(assumption: Assumption, chosen: Scaling, divergences: Mapping[Scaling, float], same_padding: bool) -> str:
    """Say what was taken, and how much better it fits than the next."""
    others = {
        scaling: value
        for scaling, value in divergences.items()
        if (scaling.mean, scaling.std) != (chosen.mean, chosen.std)
    }
    subject = assumption.note.partition(" does not say")[0]
    next_best = min(others, key=others.__getitem__)
    padding = " and TensorFlow's padding (pad_type=same)" if same_padding else ""
    return (
        f"{subject} does not say how its images are scaled; its batch norms fit {chosen}{padding}, which is taken "
        f"(divergence {divergences[chosen]:.2f}, the next, {next_best}, {others[next_best]:.2f}); if that is wrong "
        "give --mean and --std."
    )
