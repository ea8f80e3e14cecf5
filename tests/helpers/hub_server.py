"""A server with the protocol of the Hugging Face Hub: correct, slow, broken, or with wrong values."""

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from helpers.graphs import network
from helpers.servers import serving

COMMIT, LATER_COMMIT = "a" * 40, "b" * 40
PINNED = f"hf:org/net@{COMMIT}"
CONFIG = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "size": {"height": 32, "width": 32}}


@dataclass
class HubServer:
    """The repository org/net, how the server misbehaves, and the requests that it received.

    ``status`` is that of the listing, 0 for a good one; ``code`` is the hub's own error code; a file in ``announced``
    is listed with the size and hash of those bytes instead of its own; each number in ``cut_after`` ends one download
    of a graph after so many bytes, at once or after ``stall`` seconds; ``requests`` has path, range and token.
    """

    files: dict[str, bytes]
    address: str = ""
    commit: str = COMMIT
    licence: str = "apache-2.0"
    status: int = 0
    code: str = ""
    announced: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    stall: int = 0
    drips: str = ""  # "listing" or "file": sent byte by byte, without an end
    changes: dict[str, object] = field(default_factory=dict)  # of the listing
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    def listing(self) -> dict[str, object]:
        """The hub's listing of the repository."""
        siblings = []
        for name, content in self.files.items():
            content = self.announced.get(name, content)
            sibling: dict[str, object] = {
                "rfilename": name,
                "size": len(content),
                "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
            }
            if name.endswith((".onnx", "_data")):
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        return {
            "id": "org/net",
            "sha": self.commit,
            "siblings": siblings,
            "cardData": {"license": self.licence},
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "private": False,
            **self.changes,
        }


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A running server of a small network, its configuration, and a quantised graph that must not be fetched."""
    hub = HubServer(
        {
            "onnx/model.onnx": network().SerializeToString(),
            "preprocessor_config.json": json.dumps(CONFIG).encode(),
            "config.json": b'{"id2label": {"0": "cat"}}',
            "onnx/model_quantized.onnx": b"not this one",
        }
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def respond(self, status, body, **headers):
            self.send_response(status)
            self.send_header("Connection", "close")  # else the client may use it again just as it ends
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.close_connection = True
            hub.requests.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
            if not self.path.startswith("/api/models/"):
                self.send_file()
            elif hub.drips == "listing":
                self.drip()
            elif hub.status:
                self.respond(hub.status, b"{}", **({"X_Error_Code": hub.code} if hub.code else {}))
            else:
                self.respond(200, json.dumps(hub.listing()).encode(), Content_Type="application/json")

        def drip(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b" ")
                    threading.Event().wait(0.02)
            except OSError:  # the client has closed the connection
                pass

        def send_file(self):
            if hub.drips == "file":
                self.drip()
                return
            name = unquote(re.fullmatch(r"/org/net/resolve/[0-9a-f]{40}/(.*)", self.path)[1])
            content = hub.files[name]
            start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
            body = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Connection", "close")
            self.send_header("Content-Length", str(len(body)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            length = hub.cut_after.pop(0) if hub.cut_after and name.endswith(".onnx") else len(body)
            try:
                self.wfile.write(body[:length])
                self.wfile.flush()
                if length < len(body) and hub.stall:
                    threading.Event().wait(hub.stall)
            except OSError:
                pass

    with serving(Handler) as hub.address:
        yield hub
