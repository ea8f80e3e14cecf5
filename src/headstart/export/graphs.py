"""The ONNX graph that is exported, and how graphs are run on processors here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from headstart import backbones
from headstart.backbones.onnx.graph import rename_tensors
from headstart.backbones.onnx.limits import BATCH
from headstart.errors import HeadstartError, ModelError, OptionError
from headstart.export.about import MAX_FILE_BYTES, About
from headstart.export.answers import Answers
from headstart.export.formats import Pixels, Run
from headstart.features.runtime import Compute, Graph, load_graph, run_padded
from headstart.images.preprocess import Preprocess
from headstart.model.compose import compose
from headstart.model.graph_check import check_graph
from headstart.model.metadata import graph_metadata, model_api_texts
from headstart.model.model import Model

ANY_SIZE = (1600, 1200)  # pixels of an image for which a graph that takes any size is checked


def graph_to_export(model: Model, precision: str) -> bytes:
    """Return the graph of a model in a precision, of prepared images, with what the model folder says as metadata.

    Raises OptionError where the backbone has no int8 version.
    """
    metadata = metadata_of(model)
    if precision == "int8" and model.precision != "int8":
        return compose(_int8_backbone(model), model.head, model.ood, model.rule, metadata)
    graph = onnx.load_model_from_string(model.graph)
    helper.set_model_props(graph, metadata)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def metadata_of(model: Model, preprocess: Preprocess | None = None) -> dict[str, str]:
    """Return what the model folder says as texts by key; ``preprocess`` where images are prepared in another way."""
    return graph_metadata(
        model.classes, preprocess or model.preprocess, model.thresholds, model.rule, model.label_thresholds
    )


def for_model_api(content: bytes, model: Model) -> tuple[bytes, Mapping[str, str]]:
    """Return the graph of an export that Intel's Model API takes, and its metadata.

    Of several labels, Model API takes a sigmoid of the first output itself: that are the scores, ``logits``.
    """
    metadata = metadata_of(model)
    if model.label_thresholds is None:
        return content, metadata
    metadata |= model_api_texts(model.classes, model.preprocess, model.label_thresholds)
    graph = onnx.load_model_from_string(content)
    rename_tensors(graph.graph, {"logits": "headstart.backbone.logits"})
    rename_tensors(graph.graph, {"head.scores": "logits"})
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(model.classes)])
    graph.graph.output.insert(0, logits)
    helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    return graph.SerializeToString(deterministic=True), metadata


def _int8_backbone(model: Model) -> backbones.Backbone:
    """Return the int8 version of a model's backbone, if it is still that backbone. Raises OptionError."""
    id = model.backbone.get("id", "")
    mend = "fit it again with --precision int8"
    try:
        backbone = backbones.load(id, taps=model.head.taps if id.startswith("onnx:") else ())
        if backbone.sha256 != model.backbone.get("sha256"):
            raise OptionError(
                f"The model's backbone is not the {id} of this machine, such as after fine-tuning; {mend}."
            )
        return backbones.load(id, taps=model.head.taps if id.startswith("onnx:") else (), precision="int8")
    except HeadstartError as error:
        raise OptionError(f"There is no int8 version to export: {str(error).rstrip('.')}; {mend}.") from None


def reference(graph: bytes, about: About) -> Run:
    """Return what answers prepared images by ONNX Runtime, which is what every target is compared with."""
    precision = "int8" if about.precision == "int8" else "fp32"
    return runner(load_graph(graph, Compute("onnxruntime", precision, workers=1)), about.batch)


def runner(graph: Graph, batch: int | None) -> Run:
    """Return what answers images [n, height, width, 3] by a loaded graph, ``batch`` or BATCH at a time."""

    def run(pixels: Pixels) -> Answers:
        step = batch or BATCH
        parts = [run_padded(graph, pixels[start : start + step], batch) for start in range(0, len(pixels), step)]
        probabilities = np.concatenate([part["probabilities"] for part in parts]).astype(np.float64)
        return Answers(
            probabilities, np.concatenate([part["distance"].reshape(-1) for part in parts]).astype(np.float64)
        )

    return run


def read_onnx(path: Path, about: About, input: str = "pixels") -> bytes:
    """Read the ONNX file of an export, of which nothing is believed, in one piece.

    ``input`` is "pixels", NHWC, or that of the Hub, NCHW. Raises ModelError for a file that is too large, is none,
    refers to others, has other operators than networks for images, or takes too much memory or arithmetic.
    """
    if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise ModelError(f"{path} is missing or larger than {MAX_FILE_BYTES:,} bytes; export the model again.")
    content = path.read_bytes()
    size = ANY_SIZE if about.any_size else (about.preprocess.height, about.preprocess.width)
    check_graph(content, hashlib.sha256(content).hexdigest(), size, about.batch, str(path), input)
    return content
