"""Guards: what every request passes before a route sees it. Plain ASGI, each a function around an application.

A server on the loopback interface is no private one: any web page that its user visits can send requests to it, and one
whose name is pointed to 127.0.0.1 (DNS rebinding; CVE-2025-62593 of Ray) can read the answers too. So the Host header
must be a name of this server, on every route, and requests that change something must not come from another site.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.errors import shorten
from headstart.serve.limits import JSONResponse, limit_requests, limit_time, read_body
from headstart.serve.options import ServerOptions, host_name

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MAX_HEADERS = 32 * 2**10  # bytes; h11's own limit holds only for headers that come in pieces
SECURITY_HEADERS = {
    b"content-security-policy": (
        b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; "
        b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"permissions-policy": b"camera=(self), microphone=(), geolocation=()",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cache-control": b"no-store",
}


def guarded(
    app: ASGIApp,
    options: ServerOptions,
    *,
    unguarded: Collection[str] = (),
    unlimited: Collection[str] = (),
) -> ASGIApp:
    """Put all guards and limits around an application.

    The paths ``unguarded`` need no token, and answer to any Host where there is one: those that say nothing of a model
    and its images, such as health and the files of a page. The paths ``unlimited`` are answered however many requests
    are under way and however long it takes, as health and streams of events must.
    """
    app = limit_time(app, options.answer_seconds, unlimited)
    app = limit_requests(app, options.max_requests, unlimited)
    app = read_body(app, options.max_body, options.max_held)
    app = check_origin(app, options.cors_origins)
    if options.token is not None:
        app = check_token(app, options.token, unguarded)
    if options.cors_origins:
        app = CORSMiddleware(
            app, allow_origins=options.cors_origins, allow_methods=["*"], allow_headers=["authorization"]
        )
    if options.token is None:
        app = check_host(app, options.host_names)
    return add_headers(check_size_of_headers(app))


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header of a request, None where it is missing or there are several of the name."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, error: str, **headers: str) -> None:
    """Answer a request with ``{"error": ...}``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    await JSONResponse({"error": shorten(error)}, status, named)(scope, receive, send)


def check_host(app: ASGIApp, names: Collection[str]) -> ASGIApp:
    """Answer only requests whose Host is one of ``names``."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = header(scope, b"host")
            if host is None or host_name(host) not in names:
                error = f"Host {host!r} is none of this server's names; start it with --allowed-hosts to add one."
                await refuse(scope, receive, send, 403, error)
                return
        await app(scope, receive, send)

    return checked


def check_token(app: ASGIApp, token: str, unguarded: Collection[str]) -> ASGIApp:
    """Answer only requests with the token: ``Authorization: Bearer TOKEN``, or Basic with it as the password.

    A browser asks its user for the latter by itself when a page is opened, and then sends it with every request.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in unguarded:
            given = _credentials(header(scope, b"authorization") or "")
            if not hmac.compare_digest(given.encode(), token.encode()):
                opens_page = header(scope, b"sec-fetch-mode") == "navigate"
                challenge = 'Basic realm="headstart", charset="UTF-8"' if opens_page else "Bearer"
                error = "This server needs its token: Authorization: Bearer TOKEN."
                await refuse(scope, receive, send, 401, error, WWW_Authenticate=challenge)
                return
        await app(scope, receive, send)

    return checked


def _credentials(authorization: str) -> str:
    """Return the token in an Authorization header, empty where there is none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def check_origin(app: ASGIApp, allowed: Collection[str]) -> ASGIApp:
    """Refuse requests of unsafe methods that pages of other sites send; those of ``allowed`` origins may.

    The rule of Go's net/http.CrossOriginProtection (1.25): browsers send Sec-Fetch-Site, older ones at least Origin,
    which must be that of the Host; what sends neither is no browser.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS and not _is_own(scope, allowed):
            error = "This request comes from a page of another site; start the server with --cors-origins to allow it."
            await refuse(scope, receive, send, 403, error)
            return
        await app(scope, receive, send)

    return checked


def _is_own(scope: Scope, allowed: Collection[str]) -> bool:
    names = [key for key, _ in scope["headers"]]
    if names.count(b"origin") > 1 or names.count(b"sec-fetch-site") > 1:
        return False
    origin, site = header(scope, b"origin"), header(scope, b"sec-fetch-site")
    if origin is not None and origin in allowed:
        return True
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.partition("://")[2].lower() == (header(scope, b"host") or "").lower() != ""


def check_size_of_headers(app: ASGIApp) -> ASGIApp:
    """Refuse requests with more than ``MAX_HEADERS`` bytes of address and headers."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            size = sum(len(name) + len(value) for name, value in scope["headers"])
            size += len(scope.get("raw_path") or b"") + len(scope["query_string"])
            if size > MAX_HEADERS:
                error = f"The headers have {size:,} bytes, more than the limit of {MAX_HEADERS:,}."
                await refuse(scope, receive, send, 431, error)
                return
        await app(scope, receive, send)

    return checked


def add_headers(app: ASGIApp) -> ASGIApp:
    """Add ``SECURITY_HEADERS`` to every response that does not have its own of the name."""

    async def with_headers(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", []))
                names = {name.lower() for name, _ in own}
                added = [(name, value) for name, value in SECURITY_HEADERS.items() if name not in names]
                message = {**message, "headers": [*own, *added]}
            await send(message)

        if scope["type"] not in ("http", "lifespan"):  # no WebSockets
            return
        await app(scope, receive, send_with_headers if scope["type"] == "http" else send)

    return with_headers
