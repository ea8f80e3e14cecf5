"""What the routes share: bodies within limits, and errors as JSON with the status that says what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from headstart.errors import DataError, HeadstartError, ImageError, OptionError, shorten
from headstart.export.registry import FORMATS
from headstart.files import unescape_name
from headstart.serve.limits import JSONResponse
from headstart.studio.engine import Engine, evaluation
from headstart.studio.image_files import MAX_UPLOAD
from headstart.studio.jobs import Jobs, TooManyJobsError
from headstart.studio.label_sets import KEEP, STATES
from headstart.studio.project import Project
from headstart.studio.records import MAX_CLASSES, ClassExistsError
from headstart.studio.state import NotFoundError, NothingToUndoError, StaleVersionError
from headstart.studio.tries import Tries

MAX_JSON = 4 * 2**20  # bytes: the ids of all images of a project
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Studio:
    """All that the routes work on. ``key`` lets its holder read images and events."""

    project: Project
    engine: Engine
    tries: Tries
    jobs: Jobs
    key: str


class NotReadyError(Exception):
    """There is no model yet that could answer."""


def answering(work: Callable[[Studio, Request, Any], Any], *, body: str = "none", status: int = 200) -> Endpoint:
    """Make a route of a function that runs in a thread and returns JSON, or a Response.

    It gets the studio, the request and its body: "none", "json" (a dict), "image" or "zip" (bytes).
    """

    async def endpoint(request: Request) -> Response:
        studio: Studio = request.app.state.studio
        try:
            given = await _READERS[body](request)
            answer = await run_in_threadpool(work, studio, request, given)
        except Exception as error:
            return _error(error, studio)
        if isinstance(answer, Response):
            return answer
        return JSONResponse(answer, status)

    return endpoint


def changed(studio: Studio, what: str, **values: object) -> dict[str, object]:
    """Follow a change, and return the answer to it."""
    studio.engine.changed(what)
    return {"version": studio.project.state.version, **values, "evaluation": evaluation(studio.engine)}


def version_of(body: dict[str, Any]) -> int:
    """Return the version that the client has seen. Raises HTTPException."""
    version = body.get("version")
    if version is None:
        raise HTTPException(428, "The request needs the version that the page shows.")
    if type(version) is not int:
        raise HTTPException(400, "version must be a whole number.")
    return version


def text_of(body: dict[str, Any], name: str) -> str:
    """Return a text of the body, a name as ``escape_name`` wrote it. Raises HTTPException."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise HTTPException(400, f"{name} must be a text.")
    return unescape_name(value)


def names_of(body: dict[str, Any], name: str) -> list[str]:
    """Return a list of texts of the body, names as ``escape_name`` wrote them. Raises HTTPException."""
    value = body.get(name)
    if not isinstance(value, list) or len(value) > MAX_CLASSES or not all(isinstance(text, str) for text in value):
        raise HTTPException(400, f"{name} must be a list of at most {MAX_CLASSES:,} texts.")
    return [unescape_name(text) for text in value]


def states_of(studio: Studio, body: dict[str, Any]) -> tuple[dict[str, str], str]:
    """Return what labels are to be by name, and what all others are. Raises HTTPException, NotFoundError."""
    labels, others = body.get("labels", {}), body.get("others", KEEP)
    known = ", ".join(STATES)
    if not isinstance(labels, dict) or len(labels) > MAX_CLASSES or any(v not in STATES for v in labels.values()):
        raise HTTPException(400, f"labels must be an object of labels and what they are: {known}.")
    if others not in (KEEP, *STATES):
        raise HTTPException(400, f"others must be {KEEP}, or one of {known}.")
    return {class_of(studio, unescape_name(name)): state for name, state in labels.items()}, others


def class_asked(request: Request) -> str | None:
    """Return the class that the query names, if it names one."""
    name = request.query_params.get("class")
    return None if name is None else unescape_name(name)


def ids_of(studio: Studio, body: dict[str, Any]) -> list[str]:
    """Return the image ids of the body. Raises HTTPException, NotFoundError."""
    ids = body.get("ids")
    if not isinstance(ids, list) or not ids or not all(isinstance(id, str) for id in ids):
        raise HTTPException(400, "ids must be a list of image ids.")
    for id in ids:
        if id not in studio.project.state.records:
            raise NotFoundError(f"image {id}")
    return ids


def class_of(studio: Studio, name: str) -> str:
    """Return the name of a class that there is. Raises NotFoundError."""
    if name not in studio.project.state.classes:
        raise NotFoundError(f"{studio.project.word} {name}")
    return name


def formats_of(studio: Studio) -> list[str]:
    """Return the formats that the model can be exported to; the Hub has none of several labels an image."""
    return [name for name in FORMATS if name != "hub" or not studio.project.multi_label]


def number_of(request: Request, name: str, default: int, most: int) -> int:
    """Return a number of the query, from 0 to ``most``. Raises HTTPException."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise HTTPException(400, f"{name} must be a number from 0 to {most}.")
    return min(int(text), most)


async def http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001  # Starlette's signature
    """Answer what Starlette itself refuses."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _read_none(request: Request) -> None:  # noqa: ARG001
    return None


async def _read_json(request: Request) -> dict[str, Any]:
    _check_type(request, ("application/json",))
    data = await request.body()
    if len(data) > MAX_JSON:
        raise HTTPException(413, f"The body has more than {MAX_JSON:,} bytes.")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body is no JSON.") from None
    if not isinstance(value, dict):
        raise HTTPException(400, "The body must be a JSON object.")
    return value


async def _read_image(request: Request) -> bytes:
    _check_type(request, ("image/", "application/octet-stream"))
    data = await request.body()
    if len(data) > MAX_UPLOAD:
        raise HTTPException(413, f"The image has more than {MAX_UPLOAD:,} bytes; make it smaller.")
    return data


async def _read_zip(request: Request) -> bytes:
    _check_type(request, ("application/zip", "application/octet-stream", "application/x-zip-compressed"))
    return await request.body()


def _check_type(request: Request, types: tuple[str, ...]) -> None:
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if not given.startswith(types):
        raise HTTPException(415, f"The Content-Type is {given or 'missing'}; expected {types[0]}.")


_READERS: dict[str, Callable[[Request], Awaitable[Any]]] = {
    "none": _read_none,
    "json": _read_json,
    "image": _read_image,
    "zip": _read_zip,
}


def _error(error: Exception, studio: Studio) -> Response:
    """Return the answer that says what went wrong; raises what is an error of the program."""
    values: dict[str, object] = {}
    match error:
        case HTTPException():
            status, text = error.status_code, error.detail
        case StaleVersionError():
            status, text = 409, "The labels have changed since; look at them again."
            values = {"version": studio.project.state.version, "reason": "stale"}
        case NothingToUndoError():
            status, text, values = 409, "There is nothing to undo.", {"reason": "nothing_to_undo"}
        case NotReadyError():
            status, text, values = 409, f"There is no model yet. {error}".strip(), {"reason": "not_ready"}
        case ClassExistsError():
            status, text, values = 409, str(error), {"reason": "exists"}
        case TooManyJobsError():
            status, text = 503, "Several jobs are under way; try again later."
        case NotFoundError():
            status, text = 404, f"There is no {error.args[0]}."
        case ImageError() | DataError():
            status, text = 422, str(error)
        case OptionError():
            status, text = 400, str(error)
        case HeadstartError():
            status, text = 500, str(error)
        case FileNotFoundError(filename=str() | os.PathLike() as path) if Path(path).is_relative_to(
            studio.project.folder
        ):
            name = Path(path).relative_to(studio.project.folder)
            status, text = 409, f"{name} is not there any more; start the studio again, which looks what is there."
            values = {"reason": "gone"}
        case OSError():
            status, text = 500, f"The disk refused: {error.strerror or error}."
        case _:
            raise error
    return JSONResponse({"error": shorten(text), **values}, status)
