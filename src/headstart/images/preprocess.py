"""Preprocessing: from a decoded image to the pixels that a backbone takes, with one crop and resize everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import OptionError

VERSION = 1
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
DECODINGS = ("scaled", "full")
MAX_SIZE = 4096


@dataclass(frozen=True)
class Preprocess:
    """Crop and resize that a backbone expects of its images.

    ``height`` and ``width`` are in pixels. ``resize`` "shortest" keeps the aspect ratio and crops the centre, "squash"
    does not keep it. ``crop`` in (0, 1] is the fraction of the (shorter) side that remains. ``sample_range`` holds the
    values of black and white in images of more than 8 bits (``images.samples``; None: by their type). ``decode``
    "scaled" reads a large JPEG at 1/2, 1/4 or 1/8 of its size; "full" does not, as browsers and most other libraries.
    Raises OptionError.
    """

    height: int
    width: int
    resize: Literal["shortest", "squash"] = "shortest"
    crop: float = 0.875
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    sample_range: tuple[float, float] | None = None
    decode: str = "scaled"

    def __post_init__(self) -> None:
        sizes_ok = all(type(side) is int and 1 <= side <= MAX_SIZE for side in (self.height, self.width))
        if not sizes_ok:
            raise OptionError(
                f"Input size {self.height} x {self.width} cannot be used; expected 1 to {MAX_SIZE} pixels."
            )
        if isinstance(self.crop, bool) or not isinstance(self.crop, int | float) or not 0 < self.crop <= 1:
            raise OptionError(f"Crop {self.crop!r} cannot be used; expected a fraction above 0 and at most 1.")
        if self.resize not in ("shortest", "squash"):
            raise OptionError(f"Resize mode {self.resize!r} is unknown; expected shortest or squash.")
        if self.interpolation not in tuple(FILTERS):
            raise OptionError(f"Interpolation {self.interpolation!r} is unknown; expected {' or '.join(FILTERS)}.")
        if self.decode not in DECODINGS:
            raise OptionError(f"Decoding {self.decode!r} is unknown; expected {' or '.join(DECODINGS)}.")
        if self.sample_range is not None and not _is_range(self.sample_range):
            raise OptionError(f"Sample range {self.sample_range!r} cannot be used; expected two numbers, low and high.")

    @property
    def is_scaled(self) -> bool:
        """Whether a large JPEG is decoded at a fraction of its size."""
        return self.decode == "scaled"

    @property
    def min_size(self) -> tuple[int, int]:
        """Minimum (height, width) of a decoded image, so that this resize never enlarges a JPEG decoded at a fraction.

        It is twice the region that the crop keeps: an image decoded at exactly that size would give a softer result
        than the resize of a full one.
        """
        return (round(2 * self.height / self.crop), round(2 * self.width / self.crop))

    def __call__(self, image: NDArray[np.uint8] | Image.Image) -> NDArray[np.uint8]:
        """Crop and resize an image [h, w, 3] uint8, or an RGB Image, to [height, width, 3] uint8 in one step."""
        source = image if isinstance(image, Image.Image) else Image.fromarray(image)
        box = self.box(*source.size)
        resized = source.resize((self.width, self.height), FILTERS[self.interpolation], box=box)
        return np.asarray(resized)

    def box(self, w: int, h: int) -> tuple[float, float, float, float]:
        """Return the part of an image of width ``w`` and height ``h`` that the crop keeps: left, top, right, bottom."""
        if self.resize == "squash":
            box_h, box_w = h * self.crop, w * self.crop
        else:
            scale = min(h / self.height, w / self.width) * self.crop
            box_h, box_w = self.height * scale, self.width * scale
        left, top = max(0.0, (w - box_w) / 2), max(0.0, (h - box_h) / 2)  # rounding may lead outside the image
        return left, top, min(w, left + box_w), min(h, top + box_h)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change whenever the resulting pixels could change."""
        text = json.dumps([VERSION, self.to_dict()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, for ``backbone.json`` and ``config.json``."""
        values = asdict(self)
        if self.sample_range is None:  # as in all folders of backbones, and where no image needs it
            del values["sample_range"]
        if self.decode == "scaled":
            del values["decode"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Build from the form of ``to_dict``. Raises OptionError for unknown names and values."""
        if not isinstance(values, Mapping):
            raise OptionError(f"Preprocessing {values!r} cannot be read; expected names and values.")
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown or not {"height", "width"} <= set(values):
            raise OptionError(
                f"Preprocessing {dict(values)} cannot be read; expected {', '.join(cls.__dataclass_fields__)}."
            )
        sample_range = values.get("sample_range")
        if isinstance(sample_range, list):
            values = {**values, "sample_range": tuple(sample_range)}
        return cls(**values)


def _is_range(value: object) -> bool:
    """Return whether a value is two finite numbers, the first below the second."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) and np.isfinite(end) for end in value)
    return numbers and value[0] < value[1]
