"""Bounds on connections, and deadlines for clients that send or read slowly, which uvicorn has not.

A client that sends a byte a second would otherwise hold a connection for as long as it likes, and a thousand that send
nothing would hold all that there are.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from headstart.serve.options import ServerOptions

BUSY = b"HTTP/1.1 503 Service Unavailable\r\n"
SLOW = b"HTTP/1.1 408 Request Timeout\r\n"
REST = b"Retry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
CLOSING_SECONDS = 5.0  # to take what was written before the end, or to send a body to a server that stops


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol with deadlines. One object for each connection.

    Where there are ``max_connections``, the one that has waited longest for its client is closed for a new one; where
    all are being answered, the new one is refused.
    """

    def __init__(self, *args: Any, limits: ServerOptions, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits = limits
        self.since = self.loop.time()
        self._receiving: asyncio.TimerHandle | None = None
        self._phase = ""
        self._writing: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the client is to send something: no request, or one whose body is not here yet, is being answered."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or refuse it where there are too many."""
        others = [other for other in self.connections if isinstance(other, LimitedProtocol)]
        super().connection_made(transport)
        if len(others) >= self.limits.max_connections:
            waiting = [other for other in others if other.is_waiting]
            if not waiting:
                self._end(BUSY)
                return
            min(waiting, key=lambda other: other.since).transport.abort()
        self._await("headers", self.limits.header_seconds)

    def data_received(self, data: bytes) -> None:
        """Receive bytes, and set the deadline of what is still to come."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._update_deadline()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self.since = self.loop.time()
        super().on_response_complete()
        self._update_deadline()

    def shutdown(self) -> None:
        """Close the connection, or let what was begun be answered; the rest of a body has to come within seconds."""
        super().shutdown()
        if self._phase == "body":
            self._stop_waiting()
            self._await("body", min(CLOSING_SECONDS, self.limits.body_seconds))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give a client that does not read a deadline."""
        super().pause_writing()
        self._writing = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def _update_deadline(self) -> None:
        """Set the deadline: absolute for the headers and for the body, so that no trickle of bytes extends it."""
        state = self.conn.their_state
        if self.transport.is_closing() or state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_waiting()
        elif state is h11.SEND_BODY:
            self._await("body", self.limits.body_seconds)
        elif self.conn.trailing_data[0] or self._phase == "headers":
            self._await("headers", self.limits.header_seconds)
        else:
            self._stop_waiting()  # kept alive between two requests: uvicorn's own deadline holds

    def _await(self, phase: str, seconds: float) -> None:
        if phase != self._phase or self._receiving is None:
            self._stop_waiting()
            self._phase = phase
            self._receiving = self.loop.call_later(seconds, self._expire)

    def _stop_waiting(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
        self._receiving, self._phase = None, ""

    def _expire(self) -> None:
        has_sent = self._phase == "body" or bool(self.conn.trailing_data[0])
        self._stop_waiting()
        is_answered = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        self._end(SLOW if has_sent and not is_answered else b"")

    def _end(self, status: bytes) -> None:
        """Close the connection, with a response of ``status`` before where there is one."""
        if self.transport.is_closing():
            return
        if status:
            self.transport.write(status + REST)
        self.transport.close()
        self.loop.call_later(CLOSING_SECONDS, self.transport.abort)


def limited_protocol(limits: ServerOptions) -> Any:
    """Return the protocol as uvicorn takes it."""
    return partial(LimitedProtocol, limits=limits)
