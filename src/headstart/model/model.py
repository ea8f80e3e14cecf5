"""What a finished classifier consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, Tap
from headstart.heads import Familiar, Head
from headstart.images.preprocess import Preprocess
from headstart.stats import ConformalThresholds


@dataclass(frozen=True)
class Golden:
    """Pictures with the answers they had where the model was made.

    ``files`` are encoded pictures, ``decoded`` [n, height, width, 3] uint8 what they decode to, ``pixels`` (the
    same shape) those they were made of, ``probabilities`` [n, k] and ``distances`` [n] float32 the answers to
    ``pixels``; ``precision`` is that machine's, and ``tolerance`` maps a precision to the largest difference in a
    probability that it may show, ``distance_tolerance`` in a distance. A model of format 1 has no distances.
    """

    files: tuple[bytes, ...]
    decoded: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    precision: str
    tolerance: Mapping[str, float]
    distances: NDArray[np.float32] | None = None
    distance_tolerance: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A finished classifier. ``graph`` is ``model.onnx``'s bytes; ``run`` tells how it came about.

    ``familiar`` and ``promises`` are both there or both None, in a folder of format 1.
    """

    classes: tuple[str, ...]
    preprocess: Preprocess
    backbone: Mapping[str, str]
    head: Head
    graph: bytes = field(repr=False)
    sha256: str
    batch: int | None
    golden: Golden | None = field(default=None, repr=False)
    run: Mapping[str, Any] = field(default_factory=dict, repr=False)
    folder: Path | None = None
    familiar: Familiar | None = field(default=None, repr=False)
    promises: ConformalThresholds | None = None

    def as_backbone(self) -> Backbone:
        """The whole model as a graph whose taps are its answers, so that pictures take the same path."""
        taps = [Tap("probabilities", len(self.classes), 1.0, None)]
        if self.familiar is not None:
            taps.append(Tap("distance", 1, 1.0, None))
        return Backbone("model", self.graph, self.sha256, self.preprocess, tuple(taps), "", "", (), self.batch)
