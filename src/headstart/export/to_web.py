"""``--to web``: a folder for any static host, with one page that answers on the visitor's device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import ModelError
from headstart.export.about import About
from headstart.export.answers import Answers
from headstart.export.browser import Browser
from headstart.export.formats import ExportOptions, Format, Pixels, Target
from headstart.export.graphs import metadata_of, read_onnx
from headstart.export.web_runtime import FILES, MAX_BYTES, VERSION, is_runtime_file, runtime_files
from headstart.model.metadata import KEY
from headstart.model.model import Model

PAGE = ("index.html", "style.css", "icon.svg", "manifest.webmanifest", "app.js", "model.js", "preprocess.js", "sw.js")
PROGRAM = ("verify.html", "verify.js", "model.js", "preprocess.js")  # of the proof; from this package, never an export
ABOUT = "about.json"
MODEL = "model.onnx"
BATCH = 32  # images that are sent to the browser at a time


def write(graph: bytes, about: About, model: Model, options: ExportOptions, folder: Path) -> None:
    """Write the page, the runtime, the model and its description. Raises OptionError, DownloadError."""
    files = runtime_files(options.runtime_folder)
    texts = metadata_of(model, about.preprocess)
    files |= {ABOUT: texts[KEY].encode("utf-8"), MODEL: graph}
    files |= _page(hashlib.sha256(b"".join(files.values())).hexdigest())
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _page(version: str) -> dict[str, bytes]:
    """Return the files of the page; the service worker keeps them under a name that changes with the ``version``."""
    page = {name: _own(name) for name in PAGE}
    whole = hashlib.sha256(b"".join([version.encode(), *page.values()])).hexdigest()[:16]
    return page | {"sw.js": page["sw.js"].replace(b"headstart-VERSION", f"headstart-{whole}".encode())}


def _own(name: str) -> bytes:
    return (resources.files("headstart.export") / "web" / name).read_bytes()


def load(folder: Path, about: About) -> Target:
    """Open the page of the proof in headless Chromium, with the model of an export. Raises MissingExtraError."""
    runtime = {name: _read(folder, name) for name in FILES}
    foreign = [name for name, data in runtime.items() if not is_runtime_file(name, data)]
    if foreign:
        raise ModelError(f"{folder}: {', '.join(foreign)} is not of onnxruntime-web {VERSION}; it was not run.")
    description = _read(folder, ABOUT)
    files = {
        **runtime,
        ABOUT: description,
        MODEL: read_onnx(folder / MODEL, about),
        **{name: _own(name) for name in PROGRAM},
    }
    expected = _page(hashlib.sha256(b"".join([*runtime.values(), description, files[MODEL]])).hexdigest())
    problems = [
        f"{name} is not the one that Headstart writes; it was not run"
        for name, data in expected.items()
        if _read(folder, name) != data
    ]
    said = json.loads(description)
    if said["preprocess"] != about.preprocess.to_dict():
        problems.append(f"{ABOUT} prepares images in another way than the export was made with")
    if said.get("label_thresholds") != about.to_dict().get("label_thresholds"):
        problems.append(f"{ABOUT} decides by other thresholds than the export was made with")
    browser = Browser(files, "verify.html")
    answer = partial(_answer, browser, len(about.classes))

    def on_pixels(pixels: Pixels) -> Answers:
        return answer([image.tobytes() for image in pixels], are_pixels=True)

    def on_files(images: Sequence[bytes]) -> Answers:
        return answer(images, are_pixels=False)

    return Target("onnxruntime-web in Chromium", VERSION, on_pixels, on_files, tuple(problems), browser.close)


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if not path.is_file() or path.is_symlink() or path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{folder}: {name} is missing or cannot be read; export the model again.")
    return path.read_bytes()


def _answer(browser: Browser, classes: int, images: Sequence[bytes], *, are_pixels: bool) -> Answers:
    rows: list[Any] = []
    for start in range(0, len(images), BATCH):
        rows += browser.answer(images[start : start + BATCH], are_pixels=are_pixels)
    if any("error" not in row and len(row["probabilities"]) != classes for row in rows):
        raise ModelError(f"The model in the browser gives other than {classes} probabilities; export it again.")
    unread = {i: str(row["error"])[:300] for i, row in enumerate(rows) if "error" in row}
    probabilities = [[np.nan] * classes if i in unread else row["probabilities"] for i, row in enumerate(rows)]
    distances = [np.nan if i in unread else row["distance"] for i, row in enumerate(rows)]
    return Answers(np.array(probabilities, np.float64), np.array(distances, np.float64), unread)


def use(about: About) -> str:  # noqa: ARG001
    """Return how it is used."""
    return (
        "python -m http.server --directory .  # then open http://localhost:8000\n"
        "# Or put this folder on any static host. Images stay on the visitor's device; after the first visit the page\n"
        "# works offline, and on a phone it can be put on the home screen. Browsers allow the camera on https alone."
    )


WEB = Format(
    "web",
    ("fp32", "int8"),
    False,
    False,
    write,
    load,
    use,
    "install Chromium",
    one_image=True,
    cannot_read=(".tif",),  # no browser but Safari reads TIFF
)
