"""``POST /predict``: the bytes of an image, or the JSON of the Hugging Face task image-classification."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from headstart.errors import HeadstartError, ImageError
from headstart.serve.answers import full, scores
from headstart.serve.engine import Engine
from headstart.serve.limits import JSONResponse
from headstart.serve.models import Models, Served

MAX_IMAGES = 64  # in one request
MAX_VALUES = 1000  # in its JSON
NO_FUNCTION = "The scores are calibrated probabilities; leave function_to_apply out."
SWITCHES = {"0": False, "1": True, "false": False, "true": True}


class RequestError(Exception):
    """A request that cannot be answered, and the status that says why."""

    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """What a request asks for: ``images``, one answer or a list of them, and what each says."""

    images: list[bytes | ImageError]
    is_list: bool = False
    top: int | None = None
    full: bool = False
    explain: bool = False
    function: str | None = None  # function_to_apply


async def predict(request: Request) -> Response:
    """Answer a request to ``/predict`` or ``/predict/NAME``."""
    models: Models = request.app.state.models
    name = request.path_params.get("name")
    served = models.get(name)
    if served is None:
        names = ", ".join(f"/predict/{other}" for other in models.served)
        raise RequestError(f"There is no model here; there is {names}.", 404)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError("A compressed body cannot be read; leave Content-Encoding out.", 415)
    asked = parse(request.headers.get("content-type", ""), request.query_params, await request.body())
    engine = served.ready
    if asked.function not in (None, "sigmoid" if engine.model.is_multi_label else "softmax"):
        raise RequestError(NO_FUNCTION)
    answers = await asyncio.gather(*(_answer(served, engine, image, asked) for image in asked.images))
    return JSONResponse(answers if asked.is_list else answers[0])


async def _answer(served: Served, engine: Engine, image: bytes | ImageError, asked: Asked) -> Any:
    """Return the answer for one image. In a list, one that cannot be read is an answer of its own."""
    try:
        if isinstance(image, ImageError):
            raise image
        answer = await served.answer(engine, image, explain=asked.explain)
    except ImageError as reason:
        if asked.is_list:
            return {"error": str(reason)}
        raise
    if asked.full:
        return full(answer, engine, asked.top, asked.explain)
    return scores(answer, asked.top)


def error(text: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error as all routes do."""
    return JSONResponse({"error": str(HeadstartError(text))}, status, headers)


def parse(content_type: str, query: Mapping[str, str], body: bytes) -> Asked:
    """Read a request. Raises RequestError."""
    switches = _query(query)
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind in ("", "application/octet-stream"):
        if not body:
            raise RequestError("The body is empty; send the bytes of an image.")
        return Asked([body], **switches)
    if kind != "application/json":
        raise RequestError(
            f"Content-Type {kind} cannot be read; send an image as image/* (curl: -H 'Content-Type: image/jpeg'), "
            "or application/json.",
            415,
        )
    inputs, top, switches["function"] = _task(body)
    if top is not None:
        switches["top"] = top
    if isinstance(inputs, str):
        return Asked([_checked(decode_base64(inputs))], **switches)
    if len(inputs) > MAX_IMAGES:
        raise RequestError(f"{len(inputs)} images are more than the limit of {MAX_IMAGES} in one request.", 413)
    return Asked([decode_base64(text) for text in inputs], is_list=True, **switches)


def _query(query: Mapping[str, str]) -> dict[str, Any]:
    """Return ``full``, ``explain`` and ``top`` from the query of an address."""
    unknown = set(query) - {"full", "explain", "top_k"}
    if unknown:
        raise RequestError(f"Unknown parameter {min(unknown)!r}; there are full, explain and top_k.")
    values: dict[str, Any] = {}
    for name in ("full", "explain"):
        if name in query:
            if query[name] not in SWITCHES:
                raise RequestError(f"{name}={query[name]} cannot be read; give 0 or 1.")
            values[name] = SWITCHES[query[name]]
    if values.get("explain") and not values.get("full"):
        raise RequestError("explain=1 is a part of the whole answer; give full=1 with it.")
    if "top_k" in query:
        values["top"] = _top(_whole_number(query["top_k"]))
    return values


def _task(body: bytes) -> tuple[str | list[str], int | None, str | None]:
    """Return ``inputs``, ``top_k`` and ``function_to_apply`` of the JSON of the task; a list alone is ``inputs``."""
    value = read_json(body)
    if isinstance(value, list):
        value = {"inputs": value}
    if not isinstance(value, dict) or "inputs" not in value:
        raise RequestError('The JSON has no "inputs"; send {"inputs": image in base64, or a list of them}.')
    unknown = set(value) - {"inputs", "parameters"}
    parameters = value.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RequestError('"parameters" cannot be read; expected names and values.')
    unknown |= set(parameters) - {"top_k", "function_to_apply"}
    if unknown:
        raise RequestError(f"Unknown {min(unknown)!r}; there are inputs, parameters, top_k and function_to_apply.")
    function = parameters.get("function_to_apply")
    if function not in (None, "softmax", "sigmoid"):
        raise RequestError(NO_FUNCTION)
    inputs = value["inputs"]
    if not isinstance(inputs, str) and not (isinstance(inputs, list) and all(isinstance(i, str) for i in inputs)):
        raise RequestError('"inputs" cannot be read; expected an image in base64, or a list of them.')
    top = parameters.get("top_k")
    return inputs, None if top is None else _top(top), function


def _whole_number(text: str) -> int | str:
    """Return a number of at most 9 digits, else the text itself: more would be an error of ``int``, or take long."""
    return int(text) if text.isdecimal() and len(text) <= 9 else text


def _top(value: object) -> int:
    if type(value) is not int or value < 1:
        raise RequestError(f"top_k={value} cannot be used; give a number from 1.")
    return value


def read_json(body: bytes, max_values: int = MAX_VALUES) -> Any:
    """Return the value of a JSON text of about ``max_values`` values at most. Raises RequestError.

    Parsing holds all other requests up, for as long as there are values.
    """
    if body.count(b",") > max_values:
        raise RequestError(f"The JSON has more than the limit of {max_values:,} values.", 413)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as reason:
        raise RequestError(f"The JSON cannot be read: {type(reason).__name__}: {str(reason)[:200]}") from None


def decode_base64(text: str) -> bytes | ImageError:
    """Return the bytes of an image in base64, or what is wrong."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ImageError("Not base64; send the bytes of an image file in base64, without an address or a prefix.")


def _checked(image: bytes | ImageError) -> bytes:
    if isinstance(image, ImageError):
        raise RequestError(str(image))
    return image
