"""The page of a web export, shown on this machine until it is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from headstart.export.browser import TYPES


class _Handler(SimpleHTTPRequestHandler):
    # Browsers run no module of another type, and the registry of Windows may say that .js is text/plain.
    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def do_GET(self) -> None:  # the name is that of http.server
        """Send a file, but not to a page of another name that was resolved to this machine (DNS rebinding)."""
        assert isinstance(self.server, ThreadingHTTPServer)
        if self.headers.get("Host") == f"127.0.0.1:{self.server.server_port}":
            super().do_GET()
        else:
            self.send_error(403)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def serve_page(folder: Path, show: Callable[[str], None]) -> None:
    """Serve a folder to this machine alone, give its address to ``show``, and end when it is interrupted (Ctrl+C)."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as server:
        show(f"http://127.0.0.1:{server.server_port}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
