"""Limits of requests: their bodies, how many are answered at a time, and for how long. Plain ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from starlette import responses
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.files import encode, json_text

RETRY_AFTER = {"Retry-After": "1"}  # seconds


class JSONResponse(responses.JSONResponse):
    """A response in which names are written as everywhere else (``json_text``), also those that are not UTF-8."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return encode(json_text(content, separators=(",", ":")))


@dataclass
class _Held:
    """The bytes of all bodies that are in memory."""

    size: int = 0


def read_body(app: ASGIApp, max_body: int, max_held: int) -> ASGIApp:
    """Give ``app`` requests whose body is there already, so that a client that sends slowly holds nothing else up.

    A body of more than ``max_body`` bytes is refused (413), and any that would make those of all requests together more
    than ``max_held`` (503). A body without a length is counted as it comes. What comes after a refusal is discarded.
    """
    held = _Held()

    async def with_body(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        length = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)  # h11: a number
        body, size = bytearray(), 0
        try:
            more = True
            while more and length <= max_body:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                held.size += len(body) - size
                size = len(body)
                more = message.get("more_body", False)
                if held.size > max_held:
                    await busy()(scope, receive, send)
                    return
                length = max(length, size)
            if length > max_body:
                text = f"The body has more than the limit of {max_body:,} bytes."
                await JSONResponse({"error": text}, 413)(scope, receive, send)
                return
            await app(scope, _replay(body, receive), send)
        finally:
            held.size -= size

    return with_body


def _replay(body: bytearray, receive: Receive) -> Receive:
    """Return what receives a whole body, then what ``receive`` does: that the client has gone."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given, data = True, bytes(body)
        body.clear()  # the application has it now, and nothing else holds it
        return {"type": "http.request", "body": data, "more_body": False}

    return replay


def limit_requests(app: ASGIApp, max_requests: int, unlimited: Collection[str]) -> ASGIApp:
    """Refuse requests (503) while ``max_requests`` others are being answered; paths in ``unlimited`` do not count."""
    count = 0

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal count
        if scope["type"] != "http" or scope["path"] in unlimited:
            await app(scope, receive, send)
            return
        if count >= max_requests:
            await busy()(scope, receive, send)
            return
        count += 1
        try:
            await app(scope, receive, send)
        finally:
            count -= 1

    return limited


def limit_time(app: ASGIApp, seconds: float, unlimited: Collection[str]) -> ASGIApp:
    """Answer 503 where ``app`` has not begun to answer within ``seconds``; paths in ``unlimited`` may take longer."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in unlimited:
            await app(scope, receive, send)
            return
        is_started = False

        async def sent(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            async with asyncio.timeout(seconds):
                await app(scope, receive, sent)
        except TimeoutError:
            if is_started:
                raise
            error = {"error": f"There is no answer after {seconds:g} seconds; try again later."}
            await JSONResponse(error, 503, RETRY_AFTER)(scope, receive, send)

    return limited


def busy() -> JSONResponse:
    """Return the answer to a request for which there is no room now."""
    return JSONResponse({"error": "The server is busy with other requests; try again in a second."}, 503, RETRY_AFTER)
