"""Web servers on the loopback interface that run for the duration of a test."""

import functools
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@contextmanager
def serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a server whose requests are handled by ``handler``, and yield its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def serving_folder(folder: Path) -> AbstractContextManager[str]:
    """Run a server of the files in ``folder``, and yield its address."""

    class QuietHandler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    return serving(functools.partial(QuietHandler, directory=folder))


@dataclass
class FaultyServer:
    """One file on a server that misbehaves on request, and the ranges that clients requested.

    The faults are: connections closed early, stalls, wrong lengths and ranges, errors, redirects, and a file that is
    replaced by another one.
    """

    data: bytes
    tag: str = '"one"'
    supports_ranges: bool = True
    ignores_if_range: bool = False
    wrong_range: bool = False
    close_after: list[int] = field(default_factory=list)  # bytes sent on each of the first connections
    stalls: int = 0  # connections that send some bytes and then nothing
    drips: str = ""  # "body" or "headers": sent byte by byte, without an end
    length: int | str | None = None  # Content-Length instead of the true one
    statuses: list[int] = field(default_factory=list)  # of the first requests
    redirect: str = ""
    replace_after: int = 0  # connections after which the file is ``replacement`` with another tag
    replacement: bytes = b""
    requested_ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving_faults(data: bytes) -> Iterator[FaultyServer]:
    """Run a server of ``data`` at ``/data.zip``, and yield the state that decides its faults."""
    state = FaultyServer(data)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def respond_without_body(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.close_connection = True
            requested = self.headers.get("Range")
            state.requested_ranges.append(requested)
            if state.statuses:
                self.respond_without_body(state.statuses.pop(0))
            elif state.drips:
                self.drip()
            elif state.redirect:
                self.respond_without_body(302, Location=state.redirect)
            else:
                self.respond_with_data(requested)

        def drip(self) -> None:
            start = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n" + (b"\r\n" if state.drips == "body" else b"X-A: ")
            try:
                self.wfile.write(start)
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.02)
            except OSError:  # the client has closed the connection
                pass

        def respond_with_data(self, requested: str | None) -> None:
            if state.replace_after and len(state.requested_ranges) > state.replace_after:
                state.tag, state.data = '"two"', state.replacement
            start = 0
            is_same_file = state.ignores_if_range or self.headers.get("If-Range") == state.tag
            if requested and state.supports_ranges and is_same_file:
                start = int(requested.removeprefix("bytes=").rstrip("-"))
            body = state.data[start:]
            self.send_response(206 if start else 200)
            if start:
                first = start + 7 if state.wrong_range else start
                self.send_header("Content-Range", f"bytes {first}-{len(state.data) - 1}/{len(state.data)}")
            self.send_header("ETag", state.tag)
            self.send_header("Content-Length", str(len(body) if state.length is None else state.length))
            self.end_headers()
            if state.close_after:
                body = body[: state.close_after.pop(0)]
            try:
                if state.stalls:
                    state.stalls -= 1
                    self.wfile.write(body[:5000])
                    self.wfile.flush()
                    time.sleep(1.0)
                else:
                    self.wfile.write(body)
            except OSError:  # the client has closed the connection
                pass

    with serving(Handler) as address:
        state.url = f"{address}/data.zip"
        yield state
