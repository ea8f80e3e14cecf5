"""The application of ``headstart serve``: its routes, within the guards."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from headstart.errors import BackboneError, ImageError
from headstart.serve import metrics as prometheus
from headstart.serve import oip
from headstart.serve.api import api_page, openapi
from headstart.serve.engine import MAX_PIXELS
from headstart.serve.guards import guarded
from headstart.serve.limits import RETRY_AFTER, JSONResponse
from headstart.serve.metrics import Metrics
from headstart.serve.models import Models, NotReadyError
from headstart.serve.options import ServerOptions
from headstart.serve.predict import RequestError, error, predict
from headstart.serve.static import page_files, page_paths, page_routes

HEALTH = frozenset({"/health", "/v2/health/live", "/v2/health/ready"})  # they say nothing of a model
STATUSES: dict[type[Exception], int] = {NotReadyError: 503, ImageError: 422, BackboneError: 500}


def make_app(models: Models, options: ServerOptions) -> ASGIApp:
    """Return the whole application: guarded, limited and counted."""
    files = page_files("headstart.serve")
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with models.loaded():
            yield

    routes = [
        Route("/predict", predict, methods=["POST"]),
        Route("/predict/{name}", predict, methods=["POST"]),
        Route("/models", _models),
        Route("/health", _health),
        Route("/metrics", _metrics),
        Route("/openapi.json", _openapi),
        Route("/docs", _docs),
        *oip.routes(),
        *page_routes(files),
    ]
    handlers = {HTTPException: _http_error, Exception: _bug, **dict.fromkeys((RequestError, *STATUSES), _refused)}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.state.models, app.state.metrics, app.state.options = models, metrics, options
    app.router.redirect_slashes = False
    inner = guarded(app, options, unguarded=HEALTH, unlimited=HEALTH)
    return prometheus.counted(inner, metrics, _route_names(page_paths(files)))


def _route_names(page: frozenset[str]) -> Callable[[str], str]:
    """Return what names the route of a path in metrics: of names that clients make up there is no end."""

    def route_of(path: str) -> str:
        if path in ("/predict", "/models", "/metrics", "/openapi.json", "/docs") or path in HEALTH:
            return path
        if path in page:
            return "page"
        for route, pattern in (("/predict", r"/predict/[^/]+"), ("/v2 infer", r"/v2/.*/infer"), ("/v2", r"/v2(/.*)?")):
            if re.fullmatch(pattern, path):
                return route
        return "other"

    return route_of


async def _http_error(_: Request, reason: Exception) -> Response:
    assert isinstance(reason, HTTPException)
    return error(f"{reason.detail}; /docs lists what there is.", reason.status_code, reason.headers)


async def _refused(_: Request, reason: Exception) -> Response:
    if isinstance(reason, RequestError):
        status = reason.status
    else:
        status = next(status for kind, status in STATUSES.items() if isinstance(reason, kind))
    return error(str(reason), status, RETRY_AFTER if isinstance(reason, NotReadyError) else None)


async def _bug(_: Request, __: Exception) -> Response:
    return error("The server failed; its standard error says where.", 500)


async def _health(request: Request) -> Response:
    is_ready = request.app.state.models.is_ready
    return JSONResponse({"live": True, "ready": is_ready}, 200 if is_ready else 503)


async def _models(request: Request) -> Response:
    options: ServerOptions = request.app.state.options
    limits = {"body_bytes": options.max_body, "pixels": MAX_PIXELS}
    models = [served.to_dict() for served in request.app.state.models.served.values()]
    return JSONResponse({"models": models, "limits": limits, "needs_token": options.token is not None})


async def _metrics(request: Request) -> Response:
    text = prometheus.text(request.app.state.metrics, request.app.state.models)
    return PlainTextResponse(text, media_type=prometheus.MEDIA_TYPE)


async def _openapi(request: Request) -> Response:
    return JSONResponse(openapi(list(request.app.state.models.served)))


async def _docs(request: Request) -> Response:
    description = openapi(list(request.app.state.models.served))
    needs_token = request.app.state.options.token is not None
    return HTMLResponse(api_page(description, f"{request.url.scheme}://{request.url.netloc}", needs_token))
