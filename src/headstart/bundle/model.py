"""What a finished classifier consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, Tap
from headstart.heads import Head
from headstart.preprocess import Preprocess


@dataclass(frozen=True)
class Golden:
    """Pictures with the answers they had where the model was made.

    ``files`` are encoded pictures, ``decoded`` [n, height, width, 3] uint8 what they decode to, ``pixels`` (the
    same shape) those they were made of, ``probabilities`` [n, k] float32 the answers to ``pixels``; ``precision`` is
    that machine's, and ``tolerance`` maps a precision to the largest difference in a probability that it may show.
    """

    files: tuple[bytes, ...]
    decoded: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    precision: str
    tolerance: Mapping[str, float]


@dataclass(frozen=True)
class Model:
    """A finished classifier. ``graph`` is ``model.onnx``'s bytes; ``run`` tells how it came about."""

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

    def as_backbone(self) -> Backbone:
        """The whole model as a graph with one tap, ``probabilities``, so that pictures take the same path."""
        tap = Tap("probabilities", len(self.classes), 1.0, None)
        return Backbone("model", self.graph, self.sha256, self.preprocess, (tap,), "", "", (), self.batch)
