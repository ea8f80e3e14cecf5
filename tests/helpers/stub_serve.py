"""A server that speaks as `headstart serve` does to its page, with answers that a test chooses."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

from helpers.photos import ROOT

PAGE = ROOT / "src" / "headstart" / "serve" / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'"
)


@dataclass
class StubModel:
    name: str = "horses-or-humans"
    classes: tuple[str, ...] = ("horses", "humans")
    scores: tuple[float, ...] = (0.973, 0.027)
    set: tuple[str, ...] = ("horses",)
    none_of_these: bool = False
    drift: dict | None = None
    explains: bool = True
    error: str = ""  # why it is not ready
    thresholds: tuple[float, ...] = ()  # from which on labels hold, where an image may have several
    could_have: tuple[str, ...] = ()


@dataclass
class StubServer:
    """What the server answers, and what it was asked."""

    models: list[StubModel] = field(default_factory=lambda: [StubModel()])
    token: str = ""
    busy: int = 0  # requests that are answered by 503 before one is answered
    body_limit: int = 1 << 25
    requests: list[tuple[str, int]] = field(default_factory=list)  # path, bytes of the body

    def handler(self) -> type[BaseHTTPRequestHandler]:
        state = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, status, body, content_type="application/json", **headers):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {
                    "Content-Type": content_type,
                    "Content-Length": str(len(data)),
                    "Content-Security-Policy": POLICY,
                    "X-Content-Type-Options": "nosniff",
                    **headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def is_refused(self):
                if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                    self.answer(401, {"error": "the token is missing"})
                    return True
                return False

            def do_GET(self):
                path = urlsplit(self.path).path
                if "." in path or path == "/":
                    file = PAGE / (Path(path).name or "index.html")
                    self.answer(200, file.read_bytes(), TYPES[file.suffix])
                elif path == "/models" and not self.is_refused():
                    limits = {"body_bytes": state.body_limit}
                    models = [about(model) for model in state.models]
                    self.answer(200, {"models": models, "limits": limits, "needs_token": bool(state.token)})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.is_refused():
                    return
                path = urlsplit(self.path)
                state.requests.append((self.path, len(body)))
                if state.busy:
                    state.busy -= 1
                    self.answer(503, {"error": "busy"}, **{"Retry-After": "0"})
                elif not body.startswith((b"\xff\xd8", b"\x89PNG")):
                    self.answer(422, {"error": "the body is no image that can be read"})
                else:
                    name = unquote(path.path.removeprefix("/predict").removeprefix("/"))
                    model = next((m for m in state.models if m.name == name), state.models[0])
                    self.answer(200, prediction(model))

        return Handler


def about(model):
    if model.error:
        return {"name": model.name, "ready": False, "error": model.error}
    keys = {"name": model.name, "classes": list(model.classes), "explains": model.explains, "drift": model.drift}
    if model.thresholds:
        keys["label_thresholds"] = {"thresholds": list(model.thresholds)}
    return {**keys, "sha256": "5f" * 32, "version": None, "coverage": 0.95, "reject_rate": 0.05, "ready": True}


def prediction(model):
    pairs = sorted(zip(model.classes, model.scores, strict=True), key=lambda pair: -pair[1])
    values = [[(3 - abs(x - 3)) * (2 - abs(y - 2)) - 1.0 for x in range(7)] for y in range(5)]
    activation = {"box": [0.1, 0.05, 0.8, 0.9], "values": values, "positive": pairs[0][0], "negative": pairs[1][0]}
    several = {"activation": activation if model.explains else None}
    predictions = [{"label": label, "score": score} for label, score in pairs]
    if model.thresholds:
        least = dict(zip(model.classes, model.thresholds, strict=True))
        for entry in predictions:
            threshold = least[entry["label"]]
            entry |= {"threshold": threshold, "holds": entry["score"] >= threshold}
        labels = [entry["label"] for entry in predictions if entry["holds"]]
        maps = [{**activation, "positive": label, "negative": None} for label in labels if model.explains]
        several = {"labels": labels, "could_have": list(model.could_have), "activations": maps}
    return {
        "predictions": predictions,
        "set": list(model.set),
        "none_of_these": model.none_of_these,
        "distance": 0.8,
        "reject_threshold": 1.2,
        "model": "5f" * 32,
        "coverage": 0.95,
        **several,
    }
