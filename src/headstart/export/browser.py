"""A page in headless Chromium that answers images: how a web export is proven.

Only the program of this package is run in it; of the export come the model, its description and a runtime whose hashes
are known.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from headstart.errors import MissingExtraError, ModelError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TYPES = {  # of the files of a page: what the system says of an ending may be wrong
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
ARGUMENTS = ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions")
WAIT_SECONDS = 10.0  # that a request for work is held open
START_SECONDS = 120.0  # until the first answer to a single image, with the model loaded
SECONDS_PER_IMAGE = 60.0
MAX_ANSWER_BYTES = 256 * 2**20


def find_chromium() -> str:
    """Return the path of Chromium. Raises MissingExtraError."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise MissingExtraError("Chromium is not installed, in which the page is proven.")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Print nothing: a browser that ends leaves requests unanswered."""


class Browser:
    """Chromium with one page, served by a server on this machine alone, which asks for images until it is closed."""

    def __init__(self, files: Mapping[str, bytes], page: str) -> None:
        """``files`` are served by name, ``page`` is one of them. Raises MissingExtraError."""
        self._jobs: queue.Queue[int] = queue.Queue()
        self._work: dict[int, tuple[Sequence[bytes], bool]] = {}
        self._answers: queue.Queue[list[Any]] = queue.Queue()
        self._is_closed = False
        chromium = find_chromium()
        self._server = _Server(("127.0.0.1", 0), _handler(self, files))
        Thread(target=self._server.serve_forever, daemon=True).start()
        self._profile = tempfile.TemporaryDirectory(prefix="headstart-browser-", ignore_cleanup_errors=True)
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # root has none
        url = f"http://127.0.0.1:{self._server.server_port}/{page}"
        self._process = subprocess.Popen(
            [chromium, *ARGUMENTS, *sandbox, f"--user-data-dir={self._profile.name}", url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def answer(self, images: Sequence[bytes], *, are_pixels: bool) -> list[Any]:
        """Return what the page says of each image. Raises ModelError where it says nothing in time."""
        number = len(self._work)
        self._work[number] = (images, are_pixels)
        self._jobs.put(number)
        try:
            return self._answers.get(timeout=START_SECONDS + SECONDS_PER_IMAGE * len(images))
        except queue.Empty:
            raise ModelError("The page in Chromium did not answer in time; look at it in a browser.") from None

    def close(self) -> None:
        """End Chromium and the server."""
        self._is_closed = True
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._server.shutdown()
        self._server.server_close()
        self._profile.cleanup()

    def next_job(self) -> dict[str, Any]:
        """Return the next job for the page, after a while that there is none, or that there will be none."""
        if self._is_closed:
            return {"done": True}
        try:
            number = self._jobs.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            return {"wait": True}
        images, are_pixels = self._work[number]
        return {"job": number, "count": len(images), "pixels": are_pixels}

    def image(self, job: int, index: int) -> bytes:
        """Return one image of a job."""
        return self._work[job][0][index]

    def receive(self, job: int, answers: list[Any]) -> None:
        """Take the answers of the page to a job."""
        self._work[job] = ((), False)
        self._answers.put(answers)


def _handler(browser: Browser, files: Mapping[str, bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the names are those of http.server
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts == ["next"]:
                self._send(json.dumps(browser.next_job()).encode(), "application/json")
            elif parts[0] == "job":
                self._send(browser.image(int(parts[1]), int(parts[2])), "application/octet-stream")
            elif "/".join(parts) in files:
                suffix = os.path.splitext(parts[-1])[1]  # noqa: PTH122
                self._send(files["/".join(parts)], TYPES.get(suffix, "application/octet-stream"))
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            answers = json.loads(self.rfile.read(min(length, MAX_ANSWER_BYTES)))
            browser.receive(int(self.path.rsplit("/", 1)[1]), answers)
            self._send(b"{}", "application/json")

        def _send(self, data: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
