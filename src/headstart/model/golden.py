"""The golden sample: does this machine, with its libraries, answer as the one did where the model was made?"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import ModelError, VerifyError
from headstart.features.runtime import Outputs, RuntimeInfo, load_graph, resolve_runtime, run_padded
from headstart.images.decode import decode
from headstart.model.model import Golden, Model

TOLERANCE = {"fp32": 0.002, "bf16": 0.05}  # at least


def make_golden(
    model: Model,
    pictures: Sequence[NDArray[np.uint8]],
    answers: NDArray[np.floating],
    precision: str,
    distances: NDArray[np.floating] | None = None,
) -> Golden:
    """A golden sample of preprocessed ``pictures`` [height, width, 3], answered by ONNX Runtime in fp32.

    That is the reference: every machine has it, and the model is a plain ONNX graph. ``answers`` [n, k] and
    ``distances`` [n] are those at the ``precision`` of the fit: how far they are off sets what that precision may
    differ by elsewhere, since the same rounding moves a sharp model's probabilities more than a blunt one's.

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
    outputs = _answers(model, batch, resolve_runtime("onnxruntime"))
    reference = outputs["probabilities"]
    tolerance = _tolerance(answers, reference, precision)
    golden = Golden(tuple(files), np.stack(decoded), batch, reference, "fp32", tolerance)
    if distances is None:
        return golden
    further = _tolerance(distances, outputs["distance"], precision)
    return replace(golden, distances=outputs["distance"], distance_tolerance=further)


def _tolerance(answers: NDArray[np.floating], reference: NDArray[np.floating], precision: str) -> dict[str, float]:
    """By precision; that of the fit may be off by twice what it was off there."""
    return {**TOLERANCE, precision: max(TOLERANCE[precision], 2 * float(np.abs(answers - reference).max()))}


@dataclass(frozen=True)
class Verified:
    """What ``verify`` found: how many pictures, the largest difference in a probability, and what was allowed.

    ``distance`` is the largest difference in a distance, None for a model without any. ``changed`` counts pictures so
    near the border that within the tolerance they got another class.
    """

    pictures: int
    difference: float
    tolerance: float
    changed: int
    runtime: RuntimeInfo
    distance: float | None = None


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
    outputs = _answers(model, golden.pixels, runtime)
    answers = outputs["probabilities"]
    difference = _difference(answers, golden.probabilities, golden.tolerance, "probability", golden, runtime)
    tolerance = _allowed(golden.tolerance, golden, runtime)
    distance = None
    if golden.distances is not None:
        distance = _difference(
            outputs["distance"], golden.distances, golden.distance_tolerance, "distance", golden, runtime
        )
    changed = int((answers.argmax(axis=1) != golden.probabilities.argmax(axis=1)).sum())
    return Verified(len(golden.files), difference, tolerance, changed, runtime, distance)


def _allowed(tolerance: Mapping[str, float], golden: Golden, runtime: RuntimeInfo) -> float:
    return max(tolerance.get(p, 0.0) for p in (golden.precision, runtime.precision))


def _difference(
    answers: NDArray[np.float32], expected: NDArray[np.float32], tolerance: Mapping[str, float], what: str,
    golden: Golden, runtime: RuntimeInfo,
) -> float:  # fmt: skip
    difference, allowed = float(np.abs(answers - expected).max()), _allowed(tolerance, golden, runtime)
    if not difference <= allowed:
        raise VerifyError(
            f"The golden sample differs by {difference:.4f} in a {what} with {runtime.key} {runtime.version}, "
            f"more than the {allowed:g} allowed; try --runtime onnxruntime or --precision fp32."
        )
    return difference


def _answers(model: Model, pixels: NDArray[np.uint8], runtime: RuntimeInfo) -> Outputs:
    graph = load_graph(model.graph, runtime=runtime.name, precision=runtime.precision, workers=1)
    return run_padded(graph, pixels, model.batch)
