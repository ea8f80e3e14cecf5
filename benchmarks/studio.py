"""What a click in the studio costs, beside the same figures from scratch; and an empty folder to a saved model.

    python benchmarks/studio.py [--images 2000] [--clicks 30]

1. With so many images of ants and bees, repeated under small changes where there are too few: seconds from a click
   (another label, a deletion) to the figures after it, at the HTTP API and in the algebra alone; beside them, in turns
   in the same run, the same heads with a new eigenbasis and new statistics of all images ("from scratch", taps and
   penalties given), and the whole selection. The next full choice is held off meanwhile.
2. 60 images in two classes, added one by one as bursts of a camera are, up to a model that is saved: the number of
   requests, of what a person does, and seconds.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from measure import print_table, shared
from PIL import Image

from headstart import FitOptions
from headstart.heads.live import LiveHead
from headstart.heads.selection import select_head
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas
from headstart.serve.run import listen, make_server
from headstart.studio import engine as engine_module
from headstart.studio.app import make_app, open_studio, server_options
from headstart.studio.engine import labels_of
from headstart.studio.requests import Studio

TOKEN = "token-of-the-benchmark"
CLASSES = ("ants", "bees")
BURST = 10  # frames of one hold of the camera's button


def photos(label: str) -> list[bytes]:
    """Return the photos of a class of ants and bees, training and validation."""
    folder = shared() / "data" / "ants-bees"
    return [path.read_bytes() for path in sorted(folder.glob(f"*/{label}/*.jpg"))]


def variant(data: bytes, number: int) -> bytes:
    """Return a photo cropped and toned at random, so that it is another one."""
    rng = np.random.default_rng(number)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    left, top = int(rng.uniform(0, 0.25) * width), int(rng.uniform(0, 0.25) * height)
    image = image.crop((left, top, int(width * rng.uniform(0.75, 1)), int(height * rng.uniform(0.75, 1))))
    image = image.point([int(min(255, value * rng.uniform(0.9, 1.1))) for value in range(256)] * 3)
    stream = io.BytesIO()
    image.resize((320, 240)).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def write_folder(folder: Path, count: int) -> None:
    """Write ``count`` images of two classes."""
    for label in CLASSES:
        originals = photos(label)
        (folder / label).mkdir(parents=True)
        for i in range(count // len(CLASSES)):
            (folder / label / f"{i:05}.jpg").write_bytes(variant(originals[i % len(originals)], i))


@contextmanager
def running(folder: Path) -> Iterator[tuple[Studio, httpx.Client]]:
    """Run a studio and a client of it."""
    options = server_options(0)
    with open_studio(folder, FitOptions()) as studio:
        listener = listen(options)
        server = make_server(make_app(studio, options, TOKEN), options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=600) as client:
                yield studio, client
        finally:
            server.should_exit = True
            thread.join()
            listener.close()


def scratch(studio: Studio, *, select: bool) -> np.ndarray:
    """Return held-out probabilities for the labels as they are, from the features, without anything that is held."""
    live, images, state = studio.engine.live, studio.engine.images, studio.project.state
    assert live is not None
    assert images is not None
    assert images.features is not None
    labels = labels_of(live, state)
    present = np.flatnonzero(labels >= 0)
    rows = np.array([images.rows[live.ids[i]] for i in present])
    values = images.features.vectors(rows)
    training_set = TrainingSet.of(values, labels[present], live.groups[present])
    with single_threaded_blas():
        if select:
            return select_head(training_set).probabilities
        candidates = [part.candidate for part in live.head.parts]
        head = LiveHead.of(training_set, candidates, live.head.temperature)
        assert head is not None
        found = head.held_out(labels[present], live.groups[present])
    assert found is not None
    return found.probabilities


def clicks(folder: Path, count: int) -> None:
    """Time clicks and the same from scratch in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ("click", "algebra", "scratch", "selection")}
    differences = []
    with running(folder) as (studio, client):
        engine = studio.engine
        engine.wait_for_full(studio.project.state.version, 3600)
        engine_module.QUIET_SECONDS = 1e6  # what is timed is not to share the cores with the next choice
        parts = engine.live.head.parts if engine.live else ()
        print("held:", "; ".join(f"{p.candidate.kind} on {'+'.join(p.candidate.taps)}" for p in parts))
        rng = np.random.default_rng(0)
        for number in range(count):
            ids = list(studio.project.state.records)
            id, version = ids[int(rng.integers(len(ids)))], studio.project.state.version
            what, body = "relabel", {"label": CLASSES[int(rng.integers(2))]}
            if number % 3 == 2:
                what, body = "delete", {}
            start = time.perf_counter()
            client.post(f"/api/{what}", json={"version": version, "ids": [id], **body}).raise_for_status()
            seconds["click"].append(time.perf_counter() - start)
            live = engine.live
            assert live is not None
            labels = labels_of(live, studio.project.state)
            with single_threaded_blas():
                start = time.perf_counter()
                found = live.head.held_out(labels, live.groups)
            seconds["algebra"].append(time.perf_counter() - start)
            start = time.perf_counter()
            anew = scratch(studio, select=False)
            seconds["scratch"].append(time.perf_counter() - start)
            assert found is not None
            differences.append(float(np.abs(found.probabilities - anew).max()))
            if number % 8 == 0:
                start = time.perf_counter()
                scratch(studio, select=True)
                seconds["selection"].append(time.perf_counter() - start)
    middle = {name: float(np.median(values)) for name, values in seconds.items()}
    print_table(
        [
            {
                "": name,
                "median ms": f"{1000 * value:.0f}",
                "least ms": f"{1000 * min(seconds[name]):.0f}",
                "times a click": f"{value / middle['click']:.1f}",
            }
            for name, value in middle.items()
        ]
    )
    print(f"largest difference of a probability from scratch: {max(differences):.1e}")


def from_nothing(folder: Path) -> None:
    """Add two bursts of 30 images to an empty project and save the model."""
    frames = {label: [variant(data, i) for i, data in enumerate(photos(label)[:30])] for label in CLASSES}
    requests, start = 0, time.perf_counter()
    with running(folder) as (studio, client):
        for label in CLASSES:
            version = studio.project.state.version
            client.post("/api/classes", json={"version": version, "name": label}).raise_for_status()
            for i, frame in enumerate(frames[label]):
                headers = {"Content-Type": "image/jpeg"}
                query = {"class": label, "group": f"{label}-{i // BURST}"}
                client.post("/api/images", params=query, content=frame, headers=headers).raise_for_status()
            requests += 1 + len(frames[label])
        added = time.perf_counter() - start
        job = client.post("/api/save", json={"version": studio.project.state.version}).json()["job"]
        while job["state"] == "running":
            time.sleep(0.02)
            job = client.get(f"/api/jobs/{job['id']}").json()
        total = time.perf_counter() - start
        assert job["result"]["saved"], job
        accuracy = client.get("/api/state").json()["evaluation"]["accuracy"]
    holds = sum(-(-len(frames[label]) // BURST) for label in CLASSES)
    print(f"60 images: {requests + 1} requests, {added:.2f} s to add them, {total:.2f} s to the saved model")
    print(f"a person names {len(CLASSES)} classes, opens the camera, holds its button {holds} times, saves: ", end="")
    print(f"{len(CLASSES) + 1 + holds + 1} actions; accuracy held out {accuracy:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--only-clicks", action="store_true")
    parser.add_argument("--clicks", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if not arguments.only_clicks:
            from_nothing(Path(temporary) / "empty" / "photos")
        folder = Path(temporary) / "many" / "photos"
        write_folder(folder, arguments.images)
        clicks(folder, arguments.clicks)


if __name__ == "__main__":
    main()
