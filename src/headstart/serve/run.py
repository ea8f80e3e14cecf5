"""Listening, serving, and stopping without a lost request."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import uvicorn
from starlette.types import ASGIApp

from headstart.errors import OptionError, one_line
from headstart.serve.options import ServerOptions
from headstart.serve.protocol import limited_protocol

SIGNALS = (signal.SIGINT, signal.SIGTERM)
KEPT_FILES = 64  # descriptors that a process needs for other things than connections
BACKLOG = 2048  # connections that wait to be accepted
KEEP_ALIVE = 5  # seconds that a connection may wait for its next request


def listen(options: ServerOptions) -> socket.socket:
    """Return a socket that listens where the options say. Raises OptionError."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as on_error:
            listener = on_error.enter_context(socket.socket(family, kind, number))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            on_error.pop_all()
    except OSError as error:
        raise OptionError(
            f"The server cannot listen on port {options.port} of {options.host}: {error.strerror or one_line(error)}; "
            "give another --port (0: any free one) or --host."
        ) from None
    return listener


def address(options: ServerOptions, listener: socket.socket) -> str:
    """Return the address of the page."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"http://{host}:{listener.getsockname()[1]}"


class _Server(uvicorn.Server):
    """uvicorn's server, which ends by itself after SIGTERM or an interrupt, instead of by the signal."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def make_server(app: ASGIApp, options: ServerOptions, on_stop: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """Return a uvicorn server of a guarded application; setting ``should_exit`` stops it as a signal does."""
    limits = replace(options, max_connections=min(options.max_connections, _max_files() - KEPT_FILES))
    return _Server(
        uvicorn.Config(
            app,
            http=limited_protocol(limits),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(options.stop_seconds),
        ),
        on_stop,
    )


def run(
    app: ASGIApp, options: ServerOptions, listener: socket.socket, on_stop: Callable[[], None] = lambda: None
) -> None:
    """Serve a guarded application until SIGTERM or an interrupt, then finish what was begun and return."""
    with listener:
        make_server(app, options, on_stop).run(sockets=[listener])


def _max_files() -> int:
    """Return how many files this process may open."""
    try:
        import resource
    except ImportError:  # Windows
        return 512
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else max(soft, 2 * KEPT_FILES)
