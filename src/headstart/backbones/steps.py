"""The steps by which features are rounded to whole numbers: a power of two for each channel of each tap.

They are measured once, when a backbone is prepared, on images that come with the package, in fp32 on ONNX Runtime. So
they depend on nobody's images, and all who use a backbone round alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.backbone import Backbone, Tap
from headstart.errors import BackboneError, one_line
from headstart.images.preprocess import Preprocess
from headstart.machine import import_onnxruntime

IMAGES = "step_images.png"  # rendered horses and humans, side by side; pretraining/steps.py makes it
IMAGE_SIZE = 128  # pixels, height and width of each
# The range is 8 times the largest value seen. Of photographs of ants, bees, horses and humans no value was beyond it.
HEADROOM = 8
LIMIT = 32_767  # the largest whole number; it stands for everything from there on
EXPONENTS = (-120, 110)  # what a step may be, as a power of two: LIMIT times it is a normal number in fp32
UNUSED = -12  # of a tap that is 0 for all images
BATCH = 8


def steps_sha256(taps: Sequence[Tap]) -> str:
    """Return the hash of the names of taps and the steps of their channels, in hexadecimal."""
    lines = [f"{tap.name}\0{' '.join(map(str, tap.exponents or ()))}" for tap in taps]
    return hashlib.sha256("\0\0".join(lines).encode()).hexdigest()


def with_steps(backbone: Backbone) -> Backbone:
    """Return a backbone all of whose taps have steps: itself, or with steps measured now. Raises BackboneError."""
    if all(tap.exponents is not None for tap in backbone.taps):
        return backbone
    return measure_steps(backbone)


def measure_steps(backbone: Backbone) -> Backbone:
    """Return a backbone with the steps of its graph. Raises BackboneError where it cannot be run."""
    graph = backbone.graph if isinstance(backbone.graph, bytes) else backbone.graph.read_bytes()
    return replace(backbone, taps=taps_with_steps(graph, backbone.preprocess, backbone.taps, backbone.batch))


def taps_with_steps(graph: bytes, preprocess: Preprocess, taps: Sequence[Tap], batch: int | None) -> tuple[Tap, ...]:
    """Return taps with the exponents of their steps, measured on the images of the package.

    ``batch`` is the only batch size that the graph allows, None for any. Raises BackboneError if it cannot be run.
    """
    pixels = np.stack([preprocess(image) for image in step_images()])
    size = batch or BATCH
    largest: dict[str, NDArray[np.float32]] = {}
    try:
        session = _open_session(graph)
        for start in range(0, len(pixels), size):
            images = pixels[start : start + size]
            images = np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])
            values = session.run([tap.name for tap in taps], {"pixels": images})
            for tap, value in zip(taps, values, strict=True):
                top = np.abs(np.asarray(value, np.float32).reshape(-1, tap.channels)).max(axis=0)
                largest[tap.name] = np.maximum(largest.get(tap.name, top), top)
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise BackboneError(f"The graph cannot be run: {one_line(error)}") from None
    for name, values in largest.items():
        if not np.isfinite(values).all():
            raise BackboneError(f"The graph gives values of {name} that are not finite; its weights are damaged.")
    return tuple(replace(tap, exponents=tuple(exponents_of(largest[tap.name]).tolist())) for tap in taps)


def exponents_of(largest: NDArray[np.floating]) -> NDArray[np.int8]:
    """Return the exponents [channels] of steps, by the ``largest`` absolute value [channels] seen of each channel.

    The step is the smallest power of two with which HEADROOM times that is within LIMIT. A channel that is hardly ever
    active on these images may be on others: each is taken to reach at least the median of those that were active.

    >>> exponents_of(np.array([1.0, 2.0, 0.0, 3.0, 4096.0])).tolist()
    [-10, -10, -10, -10, 1]
    """
    active = largest[largest > 0]
    if not len(active):
        return np.full(len(largest), UNUSED, np.int8)
    reach = np.maximum(np.asarray(largest, np.float64), float(np.median(active))) * HEADROOM / LIMIT
    mantissa, exponent = np.frexp(reach)  # reach = mantissa * 2**exponent, mantissa in [0.5, 1)
    exponents: NDArray[np.int8] = np.clip(exponent - (mantissa == 0.5), *EXPONENTS).astype(np.int8)
    return exponents


@cache
def step_images() -> tuple[Image.Image, ...]:
    """Return the images that come with the package, each IMAGE_SIZE x IMAGE_SIZE RGB."""
    with resources.files("headstart.backbones").joinpath(IMAGES).open("rb") as file, Image.open(file) as opened:
        sheet = opened.convert("RGB")
    places = [(x, y) for y in range(0, sheet.height, IMAGE_SIZE) for x in range(0, sheet.width, IMAGE_SIZE)]
    return tuple(sheet.crop((x, y, x + IMAGE_SIZE, y + IMAGE_SIZE)) for x, y in places)


def tap_to_dict(tap: Tap) -> dict[str, Any]:
    """Return the JSON form of a tap; its exponents are one text, which takes a line."""
    values = {"name": tap.name, "channels": tap.channels, "depth": tap.depth, "size": tap.size}
    return values if tap.exponents is None else {**values, "exponents": " ".join(map(str, tap.exponents))}


def tap_from_dict(values: Mapping[str, Any]) -> Tap:
    """Build a tap from the form of ``tap_to_dict``; raises what values of another form raise."""
    size = tuple(values["size"]) if values["size"] else None
    channels, exponents = int(values["channels"]), None
    if "exponents" in values:
        exponents = tuple(int(text) for text in str(values["exponents"]).split())
        low, high = EXPONENTS
        if len(exponents) != channels or not all(low <= exponent <= high for exponent in exponents):
            raise ValueError(f"{values['name']} has steps that cannot be used")
    return Tap(str(values["name"]), channels, float(values["depth"]), size, exponents)


def _open_session(graph: bytes) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
