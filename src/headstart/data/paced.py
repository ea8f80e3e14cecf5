"""Connections that must send a minimum of bytes a second, so that a download comes to an end whatever the server does.

A time limit on silence is not enough: a server that sends a byte now and then, within the headers too, is never silent.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
import urllib.request
from typing import Any

MIN_RATE = 1024  # bytes a second
GRACE = 2.0  # timeouts for a connection to begin


class PacedHTTPHandler(urllib.request.HTTPHandler):
    """urllib's handler of HTTP with such connections."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open a connection."""
        return self.do_open(_HTTPConnection, req)


class PacedHTTPSHandler(urllib.request.HTTPSHandler):
    """urllib's handler of HTTPS with such connections; certificates and host names are verified."""

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open a connection."""
        return self.do_open(_HTTPSConnection, req, context=ssl.create_default_context())


class _HTTPConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        self.sock: Any = _PacedSocket(self.sock)


class _HTTPSConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock: Any = _PacedSocket(self.sock)


class _PacedSocket:
    """A socket as http.client uses it: it sends as before, and what it receives comes through a ``_PacedReader``."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a stream of what is received."""
        timeout = self._socket.gettimeout() or 0.0
        return io.BufferedReader(_PacedReader(self._socket.makefile(mode, buffering=0), GRACE * timeout))  # type: ignore[call-overload]


class _PacedReader(io.RawIOBase):
    """Received bytes; TimeoutError as soon as there were fewer than MIN_RATE a second behind the first ``grace``."""

    def __init__(self, raw: io.RawIOBase, grace: float) -> None:
        self._raw = raw
        self._start = time.monotonic() + grace
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count: int | None = self._raw.readinto(buffer)
        self._received += count or 0
        if count and time.monotonic() - self._start > self._received / MIN_RATE:
            raise TimeoutError(f"the server sends less than {MIN_RATE:,} bytes a second")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
