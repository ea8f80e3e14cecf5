"""The golden sample: does this machine, with its libraries, answer as the one did where the model was made?"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.bundle.model import Golden, Model
from headstart.errors import ModelError, VerifyError
from headstart.images import decode
from headstart.runtime import RuntimeInfo, describe, load_graph, pad_batch

TOLERANCE = {"fp32": 0.002, "bf16": 0.05}  # at least


def make_golden(
    model: Model, pictures: Sequence[NDArray[np.uint8]], answers: NDArray[np.floating], precision: str
) -> Golden:
    """A golden sample of preprocessed ``pictures`` [height, width, 3], answered by ONNX Runtime in fp32.

    That is the reference: every machine has it, and the model is a plain ONNX graph. ``answers`` [n, k] are those
    at the ``precision`` of the fit: how far they are off sets what that precision may differ by elsewhere, since
    the same rounding moves a sharp model's probabilities more than a blunt one's.

    The pictures are also kept as JPEG, so that decoding is proved along with the graph. Nothing but the shrunk
    pixels of a picture (no place, no camera) is kept.
    """
    files, decoded = [], []
    for picture in pictures:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=92)
        files.append(stream.getvalue())
        decoded.append(model.preprocess(decode(files[-1])))
    batch = np.stack(pictures)
    reference = _answers(model, batch, describe("onnxruntime"))
    off = float(np.abs(answers - reference).max())
    tolerance = {**TOLERANCE, precision: max(TOLERANCE[precision], 2 * off)}
    return Golden(tuple(files), np.stack(decoded), batch, reference, "fp32", tolerance)


@dataclass(frozen=True)
class Verified:
    """What ``verify`` found: how many pictures, the largest difference in a probability, and what was allowed.

    ``changed`` counts pictures so near the border that within the tolerance they got another class.
    """

    pictures: int
    difference: float
    tolerance: float
    changed: int
    runtime: RuntimeInfo


def verify(model: Model, runtime: RuntimeInfo) -> Verified:
    """Replay the golden sample on ``runtime``. Raises VerifyError on a difference beyond the tolerance."""
    golden = model.golden
    if golden is None:
        raise ModelError("The model has no golden sample; fit it again with this version.")
    for number, file in enumerate(golden.files):
        pixels = model.preprocess(decode(file))
        if not np.array_equal(pixels, golden.decoded[number]):
            worst = int(np.abs(pixels.astype(np.int16) - golden.decoded[number]).max())
            raise VerifyError(
                f"Golden picture {number} decodes to other pixels here (by up to {worst} of 255); "
                "install the versions of pillow and simplejpeg that run.json names."
            )
    answers = _answers(model, golden.pixels, runtime)
    difference = float(np.abs(answers - golden.probabilities).max())
    tolerance = max(golden.tolerance.get(p, 0.0) for p in (golden.precision, runtime.precision))
    if not difference <= tolerance:
        raise VerifyError(
            f"The golden sample differs by {difference:.4f} in a probability with {runtime.key} {runtime.version}, "
            f"more than the {tolerance:g} allowed; try --runtime onnxruntime or --precision fp32."
        )
    changed = int((answers.argmax(axis=1) != golden.probabilities.argmax(axis=1)).sum())
    return Verified(len(golden.files), difference, tolerance, changed, runtime)


def _answers(model: Model, pixels: NDArray[np.uint8], runtime: RuntimeInfo) -> NDArray[np.float32]:
    graph = load_graph(model.graph, runtime=runtime.name, precision=runtime.precision, workers=1)
    return pad_batch(graph, pixels, model.batch)["probabilities"]
