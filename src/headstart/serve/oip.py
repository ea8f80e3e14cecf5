"""The Open Inference Protocol v2 (kserve/open-inference-protocol, specification/protocol/inference_rest.md).

A model takes ``pixels``, what its graph takes, or ``image``, encoded files that are decoded as ``predict`` does. The
version of a model is its SHA-256. Extensions: binary tensor data, and Triton's classification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headstart import __version__
from headstart.errors import ImageError
from headstart.model.label_predictions import MultiLabelPredictions
from headstart.model.model import Model
from headstart.model.predictions import Predictions
from headstart.serve.engine import Answer, Engine
from headstart.serve.limits import JSONResponse
from headstart.serve.models import NotReadyError, Served
from headstart.serve.predict import MAX_IMAGES, RequestError, read_json
from headstart.serve.tensors import (
    Given,
    Tensor,
    datatype_of,
    read_inputs,
    shape_of,
    split_body,
    to_bytes,
    to_json,
)

LENGTH = "Inference-Header-Content-Length"
MAX_VALUES = 2_000_000  # in the JSON of a request: a dozen images; as binary data there may be hundreds
MAX_OUTPUTS = 16  # in a request: each is written, also one that is named again
KINDS = ("", "application/json", "application/octet-stream", "application/vnd.sagemaker-triton.binary+json")


def routes() -> list[Route]:
    """Return the routes of the protocol."""
    model = "/v2/models/{name}"
    return [
        Route("/v2", _server),
        Route("/v2/health/live", _live),
        Route("/v2/health/ready", _ready),
        *(
            Route(f"{model}{version}{path}", endpoint, methods=[method])
            for version in ("", "/versions/{version}")
            for path, endpoint, method in (
                ("", _model, "GET"),
                ("/ready", _model_ready, "GET"),
                ("/infer", _infer, "POST"),
            )
        ),
    ]


@dataclass(frozen=True)
class Wanted:
    """An output that a request asks for: raw or as JSON, or as its largest values with the names of their classes."""

    name: str
    is_binary: bool
    classes: int = 0


async def _server(_: Request) -> Response:
    extensions = ["binary_tensor_data", "classification"]
    return JSONResponse({"name": "headstart", "version": __version__, "extensions": extensions})


async def _live(_: Request) -> Response:
    return JSONResponse({"live": True})


async def _ready(request: Request) -> Response:
    is_ready = request.app.state.models.is_ready
    return JSONResponse({"live": is_ready, "ready": is_ready}, 200 if is_ready else 503)  # the text says "live" here


async def _model(request: Request) -> Response:
    served, engine = _find(request)
    model, k = engine.model, len(engine.model.classes)
    size = [model.preprocess.height, model.preprocess.width]
    return JSONResponse(
        {
            "name": served.name,
            "versions": [model.sha256],
            "platform": "headstart_onnx",
            "inputs": [
                {"name": "pixels", "datatype": "UINT8", "shape": [-1, *size, 3]},
                {"name": "image", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": name, "datatype": datatype, "shape": [-1, k] if is_by_class else [-1]}
                for name, (datatype, is_by_class) in outputs_of(model).items()
            ],
        }
    )


async def _model_ready(request: Request) -> Response:
    try:
        served, _ = _find(request)
    except NotReadyError:
        return JSONResponse({"name": request.path_params["name"], "ready": False}, 503)
    return JSONResponse({"name": served.name, "ready": True})


def _find(request: Request) -> tuple[Served, Engine]:
    """Return the model that an address names. Raises RequestError, NotReadyError."""
    name, version = request.path_params["name"], request.path_params.get("version")
    served = request.app.state.models.get(name)
    if served is None:
        raise RequestError(f"There is no model {name!r}; /models lists those that there are.", 404)
    engine: Engine = served.ready
    if version is not None and version != engine.model.sha256:
        raise RequestError(f"Model {name} has no version {version!r}; it has {engine.model.sha256}.", 404)
    return served, engine


async def _infer(request: Request) -> Response:
    served, engine = _find(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in KINDS or request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError("Content-Type or Content-Encoding cannot be read; send JSON, or JSON and tensors.", 415)
    text, binary = split_body(await request.body(), request.headers.get(LENGTH))
    values = read_json(text, MAX_VALUES)
    if not isinstance(values, dict):
        raise RequestError("The JSON is no object with inputs.")
    wanted = _wanted(values, engine.model)
    given = read_inputs(values.get("inputs"), binary)
    answers = await _answers(given, served, engine)
    head: dict[str, Any] = {"model_name": served.name, "model_version": engine.model.sha256}
    if isinstance(values.get("id"), str):
        head["id"] = values["id"]
    return _response(head, _tensors(answers), wanted, engine.model)


async def _answers(given: list[Given], served: Served, engine: Engine) -> list[Answer]:
    """Return the answers for the one input of a request. Raises RequestError, BackboneError."""
    if len(given) != 1 or given[0].name not in ("pixels", "image"):
        names = ", ".join(tensor.name for tensor in given)
        raise RequestError(f"The inputs are {names[:200]}; give one, pixels or image.")
    (tensor,) = given
    expected = "UINT8" if tensor.name == "pixels" else "BYTES"
    if tensor.datatype != expected:
        raise RequestError(f"Input {tensor.name} is of type {tensor.datatype[:20]}; expected {expected}.")
    if tensor.name == "pixels":
        preprocess = engine.model.preprocess
        if (
            len(tensor.shape) != 4
            or tensor.shape[1:] != (preprocess.height, preprocess.width, 3)
            or not tensor.shape[0]
        ):
            expected = f"[n, {preprocess.height}, {preprocess.width}, 3]"
            raise RequestError(f"Input pixels has shape {list(tensor.shape)}; expected {expected}.")
        predictions = await asyncio.gather(*(engine.predict(image) for image in tensor.numbers()))
        answers = [Answer(one) for one in predictions]
        for answer in answers:
            served.count(answer, engine)
        return answers
    images = tensor.elements()
    if not 0 < len(images) <= MAX_IMAGES:
        raise RequestError(f"Input image has {len(images)} elements; expected 1 to {MAX_IMAGES}.")
    found = await asyncio.gather(*(served.answer(engine, image) for image in images), return_exceptions=True)
    for i, outcome in enumerate(found):
        if isinstance(outcome, ImageError):
            raise RequestError(f"Image {i} cannot be read: {outcome}")
        if isinstance(outcome, BaseException):
            raise outcome
    return [answer for answer in found if isinstance(answer, Answer)]


def _tensors(answers: list[Answer]) -> dict[str, Tensor]:
    """Return all outputs."""
    predictions = [answer.predictions for answer in answers]
    sets, rejected = (
        [value for one in predictions if (value := getattr(one, name)) is not None] for name in ("sets", "is_rejected")
    )
    promised = {"set": sets, "none_of_these": rejected}  # nothing of a model for which nothing was measured
    scores = [one.ood_scores for one in predictions if one.ood_scores is not None]
    return {
        "probabilities": np.concatenate([one.probabilities for one in predictions]).astype(np.float32),
        "distance": np.concatenate(scores).astype(np.float32),
        **_decided(predictions),
        **{name: np.concatenate(values).astype(bool) for name, values in promised.items() if values},
    }


def _decided(predictions: list[Predictions]) -> dict[str, Tensor]:
    """Return the predicted class, or which labels hold."""
    holds = [one.decisions for one in predictions if isinstance(one, MultiLabelPredictions)]
    if holds:
        return {"holds": np.concatenate(holds)}
    return {"label": [one.classes[int(one.predicted[0])] for one in predictions]}


def outputs_of(model: Model) -> dict[str, tuple[str, bool]]:
    """Return the type of each output of a model, and whether it has a value for each class."""
    decided = {"holds": ("BOOL", True)} if model.is_multi_label else {"label": ("BYTES", False)}
    promised = {"set": ("BOOL", True), "none_of_these": ("BOOL", False)} if model.thresholds.is_measured else {}
    return {"probabilities": ("FP32", True), "distance": ("FP32", False), **decided, **promised}


def _wanted(values: Mapping[str, Any], model: Model) -> list[Wanted]:
    """Return the outputs that a request asks for: all, where it names none. Raises RequestError."""
    parameters = values.get("parameters") or {}
    names = outputs_of(model)
    entries = values.get("outputs") or [{"name": name} for name in names]
    if not isinstance(parameters, dict) or not isinstance(entries, list):
        raise RequestError("parameters or outputs cannot be read.")
    if len(entries) > MAX_OUTPUTS:
        raise RequestError(f"{len(entries):,} outputs are more than the limit of {MAX_OUTPUTS}.", 413)
    is_binary = parameters.get("binary_data_output", False)
    wanted = []
    for entry in entries:
        own = (entry.get("parameters") or {}) if isinstance(entry, dict) else None
        if not isinstance(own, dict) or entry.get("name") not in list(names):
            raise RequestError(f"An output is unknown; there are {', '.join(names)}.")
        classes = own.get("classification", 0)
        if type(classes) is not int or classes < 0 or (classes and entry["name"] != "probabilities"):
            raise RequestError("classification is a number of classes, of the output probabilities.")
        wanted.append(Wanted(entry["name"], bool(own.get("binary_data", is_binary)), min(classes, len(model.classes))))
    return wanted


def _response(head: dict[str, Any], tensors: dict[str, Tensor], wanted: list[Wanted], model: Model) -> Response:
    outputs, binary = [], []
    for output in wanted:
        tensor = tensors[output.name]
        shape = shape_of(tensor)
        if output.classes and not isinstance(tensor, list):
            order = np.argsort(-tensor, axis=1, kind="stable")[:, : output.classes]
            tensor = [
                f"{row[c]:.6f}:{c}:{model.classes[c]}"
                for row, columns in zip(tensor, order, strict=True)
                for c in columns
            ]
            shape = list(order.shape)
        entry: dict[str, Any] = {"name": output.name, "shape": shape, "datatype": datatype_of(tensor)}
        if output.is_binary:
            binary.append(to_bytes(tensor))
            entry["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            entry["data"] = to_json(tensor)
        outputs.append(entry)
    answer = JSONResponse({**head, "outputs": outputs})
    if not binary:
        return answer
    headers = {LENGTH: str(len(answer.body))}
    return Response(b"".join([answer.body, *binary]), media_type="application/octet-stream", headers=headers)
