"""The studio as an ASGI application behind the guards of ``headstart.serve``."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from headstart.classifier import FitOptions
from headstart.serve.guards import guarded
from headstart.serve.limits import JSONResponse
from headstart.serve.options import MIB, ServerOptions
from headstart.serve.static import page_files, page_paths, page_routes
from headstart.studio import api_changes, api_reads
from headstart.studio.access import check_access
from headstart.studio.engine import Engine
from headstart.studio.events import Events
from headstart.studio.jobs import Jobs
from headstart.studio.project import Project
from headstart.studio.requests import Studio, http_error
from headstart.studio.tries import Tries

UNLIMITED = ("/health", "/api/events", "/api/import", "/api/compare")
MAX_BODY = 256 * MIB  # of an archive; images and JSON have limits of their own
STOP_SECONDS = 3.0  # for requests that are under way; streams of events are ended
SHARED = "/shared"  # the modules that both pages use


def server_options(port: int) -> ServerOptions:
    """Return where the studio listens, the loopback interface alone, and its limits."""
    return ServerOptions(port=port, max_body=MAX_BODY, max_held=2 * MAX_BODY, stop_seconds=STOP_SECONDS)


@contextmanager
def open_studio(folder: str | Path, options: FitOptions, *, multi_label: bool | None = None) -> Iterator[Studio]:
    """Open a project and begin the work in the background; both end with the context.

    ``multi_label`` is that of ``opening.check_folder``. Raises OptionError, DataError, OSError.
    """
    project = Project(
        folder, version=int(time()), multi_label=multi_label
    )  # so that a page of an earlier run is told that it is stale
    events = Events()
    engine, jobs = Engine(project, options, events), Jobs(events)
    engine.start()
    try:
        yield Studio(project, engine, Tries(engine), jobs, secrets.token_urlsafe(24))
    finally:
        events.close()
        jobs.stop()
        engine.stop()
        project.close()


def make_app(studio: Studio, options: ServerOptions, token: str) -> ASGIApp:
    """Return the application, with its guards. ``options`` have no token: the Host is checked, and the token too."""
    own, shared = page_files("headstart.studio"), page_files("headstart.serve")
    pages: list[BaseRoute] = [*page_routes(own), Mount("/page", routes=page_routes(own))]
    pages.append(Mount(SHARED, routes=page_routes(shared)))
    app = Starlette(
        routes=[Route("/health", _health), *api_reads.ROUTES, *api_changes.ROUTES, *pages],
        exception_handlers={HTTPException: http_error},
    )
    app.state.studio = studio
    open_paths = {"/health", *page_paths(own)}
    open_paths |= {f"/page{path}" for path in page_paths(own)} | {f"{SHARED}{path}" for path in page_paths(shared)}
    return guarded(check_access(app, token, studio.key, open_paths), options, unlimited=UNLIMITED)


async def _health(request: Request) -> Response:  # noqa: ARG001
    return JSONResponse({"status": "ok"})
