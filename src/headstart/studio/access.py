"""Who may ask what: the token of the printed address, and a key that only reads, for what sends no headers."""

from __future__ import annotations

import hmac
from collections.abc import Collection

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from headstart.serve.guards import check_token

READ_BY_KEY = ("/thumbnails/", "/images/")  # and what is below
READ_BY_KEY_ALONE = ("/api/events", "/report")


def check_access(app: ASGIApp, token: str, key: str, open_paths: Collection[str]) -> ASGIApp:
    """Answer requests with the token; images, events and the report also with ``?key=``; ``open_paths`` without.

    Elements that show images, and streams of events, cannot send headers. The key is no use for anything else.
    """
    with_token = check_token(app, token, open_paths)

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        is_read = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        path = scope.get("path", "")
        if is_read and (path.startswith(READ_BY_KEY) or path in READ_BY_KEY_ALONE):
            given = QueryParams(scope["query_string"]).get("key", "")
            if hmac.compare_digest(given.encode(), key.encode()):
                await app(scope, receive, send)
                return
        await with_token(scope, receive, send)

    return checked
