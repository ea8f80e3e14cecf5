"""The golden sample: proof that a machine, with its libraries, computes what the one did where the model was made."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import ModelError, VerifyError
from headstart.features.extractor import load_backbone_graph, run_backbone
from headstart.features.runtime import Compute, Outputs, RuntimeInfo, load_graph, run_padded
from headstart.images.decoding import decode
from headstart.images.preprocess import Preprocess
from headstart.model.model import GoldenSample, Model

MIN_TOLERANCE = {"fp32": 0.002, "bf16": 0.05, "int8": 0.1}


@dataclass(frozen=True)
class GoldenImages:
    """Preprocessed images [n, height, width, 3] and the predictions of the fit at its ``precision`` for them."""

    pixels: Sequence[NDArray[np.uint8]]
    probabilities: NDArray[np.floating]
    ood_scores: NDArray[np.floating]
    precision: str


def make_golden(graph: bytes, preprocess: Preprocess, batch: int | None, images: GoldenImages) -> GoldenSample:
    """Make a golden sample of ``images``, predicted by ONNX Runtime in fp32, or in int8 where the graph is quantised.

    That is the reference: every machine has it, and the model is a plain ONNX graph. How far the predictions of the fit
    differ from the reference sets what its precision may differ by elsewhere, since the same rounding moves a confident
    model's probabilities more than another's.

    The images are also kept as JPEG, so that decoding is verified along with the graph. Nothing but the shrunk pixels
    of an image (no place, no camera) is kept.
    """
    files, decoded = [], []
    for pixels in images.pixels:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=92)
        files.append(stream.getvalue())
        decoded.append(preprocess(decode(files[-1])))
    stacked = np.stack(images.pixels)
    precision = "int8" if images.precision == "int8" else "fp32"
    outputs = _predict(graph, batch, stacked, Compute("onnxruntime", precision).resolve())
    return GoldenSample(
        tuple(files),
        np.stack(decoded),
        stacked,
        outputs["probabilities"],
        outputs["distance"],
        precision,
        _tolerance(images.probabilities, outputs["probabilities"], images.precision),
        _tolerance(images.ood_scores, outputs["distance"], images.precision),
    )


def _tolerance(values: NDArray[np.floating], reference: NDArray[np.floating], precision: str) -> dict[str, float]:
    """Return tolerances by precision; that of the fit may differ by twice what it differed there.

    A quantised graph is in int8 wherever it runs, and another graph nowhere.
    """
    difference = float(np.abs(values - reference).max())
    least = {name: value for name, value in MIN_TOLERANCE.items() if (name == "int8") == (precision == "int8")}
    return {**least, precision: max(MIN_TOLERANCE[precision], 2 * difference)}


@dataclass(frozen=True)
class Verification:
    """Result of ``verify``: how many images, the largest difference in a probability, and what was allowed.

    ``ood_difference`` is the largest difference in an OOD score. ``changed`` counts images so near to a decision
    boundary that within the tolerance they got another class.
    """

    images: int
    difference: float
    tolerance: float
    ood_difference: float
    changed: int
    runtime: RuntimeInfo


def verify(model: Model, runtime: RuntimeInfo) -> Verification:
    """Replay the golden sample on ``runtime``. Raises VerifyError on a difference beyond the tolerance."""
    golden = model.golden
    if golden is None:
        raise ModelError("The model has no golden sample; fit it again.")
    for number, file in enumerate(golden.files):
        pixels = model.preprocess(decode(file))
        if not np.array_equal(pixels, golden.decoded[number]):
            worst = int(np.abs(pixels.astype(np.int16) - golden.decoded[number]).max())
            raise VerifyError(
                f"Golden image {number} decodes to other pixels here (by up to {worst} of 255); "
                "install the versions of pillow and simplejpeg that run.json names."
            )
    compute = Compute(runtime.name, runtime.precision, workers=1)
    outputs = run_backbone(load_backbone_graph(model.as_backbone(), compute), model.as_backbone(), golden.pixels)
    probabilities = outputs["probabilities"]
    tolerance = _allowed(golden.tolerance, golden.precision, runtime)
    ood_tolerance = _allowed(golden.ood_tolerance, golden.precision, runtime)
    return Verification(
        len(golden.files),
        _difference(probabilities, golden.probabilities, tolerance, "a probability", runtime),
        tolerance,
        _difference(outputs["distance"][:, 0], golden.ood_scores, ood_tolerance, "an OOD score", runtime),
        model.count_changed(probabilities, golden.probabilities),
        runtime,
    )


def _allowed(tolerance: Mapping[str, float], golden_precision: str, runtime: RuntimeInfo) -> float:
    return max(tolerance.get(precision, 0.0) for precision in (golden_precision, runtime.precision))


def _difference(
    values: NDArray[np.float32], expected: NDArray[np.float32], allowed: float, what: str, runtime: RuntimeInfo
) -> float:
    difference = float(np.abs(values - expected).max())
    if not difference <= allowed:
        raise VerifyError(
            f"The golden sample differs by {difference:.4f} in {what} with {runtime.key} {runtime.version}, "
            f"more than the {allowed:g} allowed; try --runtime onnxruntime or --precision fp32."
        )
    return difference


def _predict(graph: bytes, batch: int | None, pixels: NDArray[np.uint8], runtime: RuntimeInfo) -> Outputs:
    loaded = load_graph(graph, Compute(runtime.name, runtime.precision, workers=1))
    return run_padded(loaded, pixels, batch)
