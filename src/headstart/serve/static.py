"""The files of a page, from memory: what is not among them does not exist, so that no path leads elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".ico": "image/vnd.microsoft.icon",
    ".woff2": "font/woff2",
}
INDEX = "index.html"


def page_files(package: str, folder: str = "page") -> dict[str, bytes]:
    """Return the files of a page in a package, by their paths below the folder. Only those of a type in ``TYPES``."""
    return dict(_walk(resources.files(package) / folder, PurePosixPath()))


def _walk(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, path / entry.name)
        elif PurePosixPath(entry.name).suffix in TYPES:
            yield str(path / entry.name), entry.read_bytes()


def page_routes(files: Mapping[str, bytes]) -> list[Route]:
    """Return a route for each file; ``index.html`` is at ``/``."""
    return [_route("/" if name == INDEX else f"/{name}", name, data) for name, data in files.items()]


def page_paths(files: Mapping[str, bytes]) -> frozenset[str]:
    """Return the paths of the routes."""
    return frozenset(route.path for route in page_routes(files))


def _route(path: str, name: str, data: bytes) -> Route:
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    media_type = TYPES[PurePosixPath(name).suffix]

    async def endpoint(request: Request) -> Response:
        if tag in [value.strip() for value in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=media_type, headers=headers)

    return Route(path, endpoint, methods=["GET"])
