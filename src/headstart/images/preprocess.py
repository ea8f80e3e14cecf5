"""From a decoded picture to the pixels a backbone takes: one resize and crop, the same everywhere."""

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
MAX_SIZE = 4096


@dataclass(frozen=True)
class Preprocess:
    """How a backbone wants its pictures.

    ``height`` and ``width`` in pixels; ``resize`` "shortest" keeps the aspect and crops the centre, "squash"
    does not; ``crop`` in (0, 1] is the share of the (shorter) side that is kept. Raises OptionError.
    """

    height: int
    width: int
    resize: Literal["shortest", "squash"] = "shortest"
    crop: float = 0.875
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        sizes_ok = all(type(v) is int and 1 <= v <= MAX_SIZE for v in (self.height, self.width))
        if not sizes_ok:
            raise OptionError(
                f"Input size {self.height} x {self.width} cannot be used; expected 1 to {MAX_SIZE} pixels."
            )
        if isinstance(self.crop, bool) or not isinstance(self.crop, int | float) or not 0 < self.crop <= 1:
            raise OptionError(f"Crop {self.crop!r} cannot be used; expected a share above 0 and at most 1.")
        if self.resize not in ("shortest", "squash"):
            raise OptionError(f"Resize mode {self.resize!r} is unknown; expected shortest or squash.")
        if self.interpolation not in tuple(FILTERS):
            raise OptionError(f"Interpolation {self.interpolation!r} is unknown; expected {' or '.join(FILTERS)}.")

    @property
    def at_least(self) -> tuple[int, int]:
        """(height, width) a decoder must keep, so that no pixel of the result is enlarged from a shrunk decode.

        Twice what is shown: a decode at exactly the size would be softer than the resize of a full one.
        """
        return (round(2 * self.height / self.crop), round(2 * self.width / self.crop))

    def __call__(self, image: NDArray[np.uint8] | Image.Image) -> NDArray[np.uint8]:
        """Pixels [height, width, 3] uint8 from an image [h, w, 3] uint8 or in RGB: crop and resize in one step."""
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        w, h = picture.size
        if self.resize == "squash":
            box_h, box_w = h * self.crop, w * self.crop
        else:
            scale = min(h / self.height, w / self.width) * self.crop
            box_h, box_w = self.height * scale, self.width * scale
        left, top = (w - box_w) / 2, (h - box_h) / 2
        box = (left, top, min(w, left + box_w), min(h, top + box_h))
        resized = picture.resize((self.width, self.height), FILTERS[self.interpolation], box=box)
        return np.asarray(resized)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when the resulting pixels could."""
        text = json.dumps([VERSION, self.to_dict()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, for ``backbone.json`` and ``config.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """The inverse of ``to_dict``. Raises OptionError for unknown names and values."""
        if not isinstance(values, Mapping):
            raise OptionError(f"Preprocessing {values!r} cannot be read; expected names and values.")
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown or not {"height", "width"} <= set(values):
            raise OptionError(
                f"Preprocessing {dict(values)} cannot be read; expected {', '.join(cls.__dataclass_fields__)}."
            )
        return cls(**values)
