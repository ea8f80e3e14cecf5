"""A server that speaks as `headstart studio` does to its page: labels are kept in memory, figures follow simple rules.

The truth of an image is the colour of its middle: red is the first class, green the second, blue the third. What an
image is taken for is its truth, so that every wrong label is a label issue.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import queue
import threading
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from PIL import Image

from helpers.photos import ROOT
from helpers.stub_serve import POLICY, TYPES

PAGES = {"page": ROOT / "src/headstart/studio/page", "shared": ROOT / "src/headstart/serve/page"}
TOKEN, KEY = "stub-token", "stub-key"
COLUMNS = "id label folder_label group suspicion uncertainty predicted probability status accepted name split"


class Refused(Exception):
    def __init__(self, status, error, **more):
        super().__init__(error)
        self.status, self.body = status, {"error": error, **more}


@dataclass
class Picture:
    id: str
    label: int
    folder_label: int
    group: str | None
    truth: int
    name: str
    data: bytes
    accepted: bool = False


@dataclass
class StubStudio:
    classes: list[str] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)
    version: int = 0
    undos: list[tuple[str, list[str], dict[str, Picture]]] = field(default_factory=list)
    streams: list[queue.Queue] = field(default_factory=list)
    saved: dict | None = None
    error: str | None = None  # of a full choice that failed
    comparison: dict | None = None
    jobs: list[dict] = field(default_factory=list)
    tried: dict[str, bytes] = field(default_factory=dict)
    none_of_these: bool = False
    requests: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    # -- what tests set and look at

    def add(self, data, label, group=None, name="", truth=None):
        id = hashlib.sha256(data).hexdigest()[:24]
        truth = truth_of(data, len(self.classes)) if truth is None else truth
        self.pictures[id] = Picture(id, label, label, group, truth, name or f"{id[:6]}.jpg", data)
        return id

    def labels(self):
        return {picture.name: self.classes[picture.label] for picture in self.pictures.values()}

    # -- the model: right about everything

    def predicted(self, picture):
        return picture.truth if self.is_ready() else None

    def is_ready(self):
        return not self.error and len({picture.label for picture in self.pictures.values()}) >= 2

    def suspicion(self, picture):
        if picture.label < 0:
            return None
        is_wrong = self.is_ready() and picture.truth != picture.label and not picture.accepted
        return 0.9 if is_wrong else 0.0

    def evaluation(self):
        if not self.is_ready():
            return None
        right = sum(picture.truth == picture.label for picture in self.pictures.values())
        share = right / len(self.pictures)
        groups = len({picture.group or picture.id for picture in self.pictures.values()})
        interval = [max(0, share - 0.05), min(1, share + 0.02)]
        return {
            "accuracy": share,
            "interval": interval,
            "images": len(self.pictures),
            "groups": groups,
            "shows": "live",
        }

    # -- routes

    def state(self):
        counts = [sum(p.label == i for p in self.pictures.values()) for i in range(len(self.classes))]
        pairs = zip(self.classes, counts, strict=True)
        total = len(self.pictures)
        return {
            "version": self.version,
            "key": KEY,
            "project": "photos",
            "folder": "/home/a/photos",
            "table": "/home/a/photos-labels.csv",
            "classes": [{"name": name, "images": count, "folder": True} for name, count in pairs],
            "images": total,
            "trash": 0,
            "changes": sum(p.label != p.folder_label for p in self.pictures.values()),
            "undo": self.undos[-1][0] if self.undos else None,
            "embedding": {"done": 0 if self.error else total, "total": total, "failed": 0},
            "full": {
                "state": "failed" if self.error else "done" if self.is_ready() else "none",
                "version": self.version,
                "error": self.error,
                "seconds": 2.1,
                "why": "" if self.is_ready() or self.error else "Two classes with images of several scenes are needed.",
            },
            "shows": "live" if self.is_ready() else "none",
            "evaluation": self.evaluation(),
            "saved": self.saved,
            "label_issues": sum((self.suspicion(p) or 0) > 0 for p in self.pictures.values()),
            "formats": ["onnx", "web"],
            "jobs": self.jobs,
            "notes": [],
        }

    def images(self, offset, limit):
        rows = []
        for i, p in enumerate(list(self.pictures.values())[offset : offset + limit]):
            predicted = self.predicted(p)
            probability = None if predicted is None else 0.93 - 0.4 * (i % 7) / 7
            uncertainty = None if predicted is None else round(2 - 2 * probability, 3)
            state = [self.suspicion(p), uncertainty, predicted, probability, "ready", p.accepted, p.name, "train"]
            rows.append([p.id, p.label, p.folder_label, p.group, *state])
        head = {"version": self.version, "shows": "live", "total": len(self.pictures), "offset": offset}
        return {**head, "classes": self.classes, "columns": COLUMNS.split(), "rows": rows}

    def change(self, body, what, act):
        """Make a change of labels unless the version is stale, and tell all streams."""
        with self.lock:
            if body is not None and body.get("version") != self.version:
                raise Refused(409, "The labels have changed.", version=self.version, reason="stale")
            before = list(self.classes), {id: deepcopy(p) for id, p in self.pictures.items()}
            result = act() or {}
            if what:
                self.undos.append((what, *before))
            self.version += 1
            self.tell("version", {"version": self.version, "what": what or "Undone"})
            return {"version": self.version, "evaluation": self.evaluation(), **result}

    def tell(self, name, data):
        for stream in self.streams:
            stream.put((name, data))

    def relabel(self, ids, label):
        for id in ids:
            self.pictures[id].label = self.classes.index(label)
        return {"changed": len(ids)}

    def accept(self, ids):
        labelled = [self.pictures[id] for id in ids if self.pictures[id].label >= 0]
        for found in labelled:
            found.accepted = True
        return {"changed": len(labelled)}

    def delete(self, ids):
        for id in ids:
            del self.pictures[id]
        return {"changed": len(ids)}

    def undo(self):
        if not self.undos:
            raise Refused(409, "There is nothing to undo.", reason="nothing_to_undo")
        what, self.classes, self.pictures = self.undos.pop()
        return {"undone": what}

    def apply(self):
        moved = [p for p in self.pictures.values() if p.label != p.folder_label]
        for picture in moved:
            picture.folder_label = picture.label
        return {"moved": len(moved), "kept": []}

    def add_class(self, name):
        if name in self.classes:
            raise Refused(409, f"There is a class {name}.", reason="exists")
        self.classes.append(name)
        return {"name": name}

    def rename(self, name, to):
        self.classes[self.classes.index(name)] = to
        return {"changed": 1}

    def receive(self, data, label, group):
        if not data.startswith((b"\xff\xd8", b"\x89PNG")):
            raise Refused(422, "The bytes are no image that can be read.")
        if label not in self.classes:
            raise Refused(404, f"There is no class {label}.")
        id = hashlib.sha256(data).hexdigest()[:24]
        if id in self.pictures:
            known = self.pictures[id]
            where = self.classes[known.label]
            return {"added": False, "id": id, "label": where, "reason": f"is in {where}", "version": self.version}
        act = lambda: {"added": True, "id": self.add(data, self.classes.index(label), group), "label": label}  # noqa: E731
        return self.change(None, f"Added an image to {label}", act)

    def try_image(self, data):
        truth = truth_of(data, len(self.classes))
        scores = [0.91 if i == truth else 0.09 / max(1, len(self.classes) - 1) for i in range(len(self.classes))]
        pairs = sorted(zip(self.classes, scores, strict=True), key=lambda pair: -pair[1])
        id = hashlib.sha256(data).hexdigest()[:12]
        self.tried[id] = data
        stream = io.BytesIO()
        Image.new("RGB", (64, 64), (0, 90, 200)).save(stream, "PNG")
        return {
            "try": id,
            "probabilities": [{"label": label, "score": score} for label, score in pairs],
            "predicted": pairs[0][0],
            "set": [pairs[0][0]],
            "coverage": 0.9,
            "none_of_these": self.none_of_these,
            "ood_score": 12.3,
            "ood_threshold": 20.1,
            "map": f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}",
            "model_version": self.version,
            "seconds": 0.03,
        }

    def job(self, what, result):
        job = {"id": len(self.jobs) + 1, "what": what, "state": "running", "result": None, "error": None}
        self.jobs.append(job)
        done = {**job, "state": "done", "result": result}
        self.jobs[-1] = done
        threading.Timer(0.3, self.tell, ("job", done)).start()
        return {"job": job}

    def save(self, anyway):
        comparison = self.comparison or {"verdict": "no_saved_model", "saved": None, "why": None}
        folder = "/home/a/photos-model"
        if comparison["verdict"] == "worse" and not anyway:
            return self.job("save", {"saved": False, "comparison": comparison, "why": "The saved one was kept."})
        self.saved = {"folder": folder, "at": "2026-11-27T07:01:02Z", "version": self.version, "sha256": "5f" * 32}
        return self.job("save", {"saved": True, "folder": folder, "comparison": comparison})

    def get(self, path, query):
        pictures = self.pictures.values()
        head = {"version": self.version, "shows": "live"}
        if path == "/api/state":
            return self.state()
        if path == "/api/images":
            return self.images(int(query["offset"]), int(query["limit"]))
        if path == "/api/evaluation" and self.evaluation() is None:
            return {**head, "accuracy": None, "why": "Two classes are needed."}
        if path == "/api/evaluation":
            n = len(self.classes)
            confusion = [[sum(p.label == i and p.truth == j for p in pictures) for j in range(n)] for i in range(n)]
            by_class = [
                {
                    "name": name,
                    "images": sum(row),
                    "recall": row[i] / max(1, sum(row)),
                    "precision": 1,
                    "interval": [0, 1],
                }
                for i, (name, row) in enumerate(zip(self.classes, confusion, strict=True))
            ]
            return {**head, **self.evaluation(), "classes": self.classes, "confusion": confusion, "by_class": by_class}
        if path == "/api/label-issues":
            names = self.classes
            wrong = [p for p in pictures if (self.suspicion(p) or 0) > 0]
            issues = [
                {
                    "id": p.id,
                    "label": names[p.label],
                    "suggested": names[p.truth],
                    "probability": 0.95,
                    "confidence": 0.9,
                    "certainty": "likely",
                }
                | {"why": f"Its probability of {names[p.label]} is low."}
                for p in wrong[: int(query["limit"])]
            ]
            return {**head, "issues": issues, "total": len(wrong)}
        if path == "/api/uncertain":
            keys = [(p.id, self.classes[p.label], self.classes[p.truth], 0.53, 0.94) for p in list(pictures)[:8]]
            names = ("id", "label", "predicted", "probability", "uncertainty")
            return {**head, "images": [dict(zip(names, key, strict=True)) for key in keys]}
        if path == "/api/learning-curve":
            points = [{"images": n, "recall": r, "interval": [r - 0.06, r + 0.03]} for n, r in ((20, 0.8), (40, 0.9))]
            expected = {"images": 60, "recall": 0.93, "interval": [0.9, 0.95], "gain": 0.03}
            check = {"removed": 20, "predicted": [0.86, 0.94], "was": 0.9, "holds": True}
            keys = {"class": query["class"], "images": 40, "recall": 0.9, "more": 20}
            return {**head, **keys, "points": points, "expected": expected, "check": check, "why": ""}
        if path == "/api/compare":
            return self.comparison or {"saved": None, "verdict": "no_saved_model", "why": None}
        if path.startswith("/api/images/"):
            p = self.pictures[path.split("/")[-1]]
            scores = [0.91 if i == p.truth else 0.09 / max(1, len(self.classes) - 1) for i in range(len(self.classes))]
            pairs = sorted(zip(self.classes, scores, strict=True), key=lambda pair: -pair[1])
            keys = {"id": p.id, "name": p.name, "label": self.classes[p.label], "group": p.group, "status": "ready"}
            probabilities = [{"label": label, "score": score} for label, score in pairs]
            return {**keys, "probabilities": probabilities, "error": None, "issue": None, "accepted": p.accepted}
        raise Refused(404, "There is no such route.")

    def post(self, path, query, data):
        if path == "/api/images":
            return self.receive(data, query["class"], query.get("group"))
        if path == "/api/try":
            return self.try_image(data)
        if path == "/api/import":
            return self.change(None, "Imported", lambda: {"added": 0, "already": 0, "classes": [], "refused": []})
        body = json.loads(data)
        if path.startswith("/api/try/"):
            return self.receive(self.tried[path.split("/")[3]], body["class"], None)
        acts = {
            "/api/relabel": (lambda: self.relabel(body["ids"], body["label"]), "Relabelled"),
            "/api/accept": (lambda: self.accept(body["ids"]), "Accepted"),
            "/api/delete": (lambda: self.delete(body["ids"]), "Deleted"),
            "/api/undo": (self.undo, ""),
            "/api/apply": (self.apply, "Moved files"),
            "/api/classes": (lambda: self.add_class(body["name"]), "Added a class"),
            "/api/classes/rename": (lambda: self.rename(body["name"], body["to"]), "Renamed a class"),
        }
        if path in acts:
            act, what = acts[path]
            n = len(body.get("ids", []))
            return self.change(body, what and (f"{what} {n} image{'s' * (n != 1)}" if n else what), act)
        if body.get("version") != self.version:
            raise Refused(409, "The labels have changed.", version=self.version, reason="stale")
        if path == "/api/save":
            return self.save(body["anyway"])
        if path == "/api/report":
            return self.job("report", {"url": f"/report?key={KEY}", "folder": "/home/a/photos-model"})
        if path == "/api/export":
            return self.job("export", {"folder": "/home/a/photos-model-web", "proof": "12 of 12 answers are the same."})
        raise Refused(404, "There is no such route.")

    def handler(self):
        state = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def send(self, status, body, content_type="application/json"):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                headers = {"Content-Type": content_type, "Content-Length": len(data), "Content-Security-Policy": POLICY}
                for name, value in headers.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(data)

            def answer(self, act):
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self.send(401, {"error": "The token is missing."})
                    return
                try:
                    with state.lock:
                        self.send(200, act())
                except Refused as refused:
                    self.send(refused.status, refused.body)

            def do_GET(self):
                url = urlsplit(self.path)
                path, query = url.path, dict(parse_qsl(url.query))
                parts = path.strip("/").split("/")
                state.requests.append(path)
                if path == "/" or parts[0] in PAGES:
                    file = PAGES.get(parts[0], PAGES["page"]) / (parts[-1] or "index.html")
                    self.send(200, file.read_bytes(), TYPES[file.suffix])
                elif parts[0] in ("thumbnails", "images") and query.get("key") == KEY:
                    self.send(200, state.pictures[parts[1]].data, "image/jpeg")
                elif path == "/api/events" and query.get("key") == KEY:
                    self.stream()
                else:
                    self.answer(lambda: state.get(path, query))

            def stream(self):
                events = queue.Queue()
                state.streams.append(events)
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                try:
                    while True:
                        try:
                            name, data = events.get(timeout=0.2)
                            self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
                        except queue.Empty:
                            self.wfile.write(b": alive\n\n")
                        self.wfile.flush()
                except OSError:  # the page was left
                    state.streams.remove(events)

            def do_POST(self):
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(lambda: state.post(url.path, dict(parse_qsl(url.query)), body))

        return Handler


def picture(truth, seed, size=64):
    """A JPEG whose middle is red, green or blue."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (size, size, 3))
    pixels[16:48, 16:48, truth] = 230
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def truth_of(data, classes):
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
    return int(middle.argmax()) % max(1, classes)


def filled(count=24, wrong=(), classes=("ants", "bees")):
    """A project of ``count`` images, classes in turn; those at ``wrong`` have the label of the next class."""
    studio = StubStudio(classes=list(classes))
    for i in range(count):
        truth = i % len(classes)
        label = (truth + 1) % len(classes) if i in wrong else truth
        studio.add(picture(truth, i), label, name=f"{classes[label]}/{i:05}.jpg", truth=truth)
    return studio
