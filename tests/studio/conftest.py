"""A studio that runs, and a client with its token."""

from contextlib import contextmanager

import httpx
import pytest
from helpers.http_clients import running
from helpers.labels import write_labelled
from helpers.photos import write_photos

from headstart import Compute, FitOptions
from headstart.studio.app import make_app, open_studio, server_options

TOKEN = "token-of-the-tests"
OPTIONS = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False)


class Client(httpx.Client):
    """A client of one studio; ``studio`` is what the server works on, ``port`` where it listens."""

    def __init__(self, port, studio):
        self.port, self.studio = port, studio
        super().__init__(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120, http2=False
        )

    def state(self):
        return self.get("/api/state").json()

    def ids(self):
        """The ids of all images by path."""
        return {record.path: id for id, record in self.studio.project.state.records.items()}

    def change(self, what, **body):
        """Post a change for the version that there is."""
        body.setdefault("version", self.studio.project.state.version)
        return self.post(f"/api/{what}", json=body)

    def add(self, data, label, **query):
        return self.post(
            "/api/images", params={"class": label, **query}, content=data, headers={"Content-Type": "image/jpeg"}
        )

    def wait(self):
        """Wait for the full choice of the labels as they are."""
        return self.studio.engine.wait_for_full(self.studio.project.state.version, 120)

    def wait_for_job(self, answer):
        job = answer.json()["job"]
        while job["state"] == "running":
            job = self.get(f"/api/jobs/{job['id']}").json()
        return job


@contextmanager
def running_studio(folder, multi_label=None):
    options = server_options(0)
    with (
        open_studio(folder, OPTIONS, multi_label=multi_label) as studio,
        running(make_app(studio, options, TOKEN), options) as port,
        Client(port, studio) as client,
    ):
        yield client


@pytest.fixture
def client(tmp_path):
    """A studio on a folder of two classes of six images each."""
    with running_studio(write_photos(tmp_path / "photos", 6)) as client:
        yield client


@pytest.fixture(scope="module")
def fitted_client(tmp_path_factory):
    """A studio whose full choice is made, on two classes of 12 images each, two of them labelled wrongly. Read only."""
    folder = write_photos(tmp_path_factory.mktemp("fitted") / "photos", 12)
    (folder / "disc" / "000.jpg").rename(folder / "stripes" / "wrong-a.jpg")
    (folder / "disc" / "001.jpg").rename(folder / "stripes" / "wrong-b.jpg")
    with running_studio(folder) as client:
        client.wait()
        yield client


def write_label_project(parent, count=60, cells=(), further=0):
    """Write ``photos`` and the table beside it; ``cells`` change labels by number, ``further`` images have no row."""
    rows = write_labelled(parent / "photos", count)
    lines = [row.rsplit(",", 1)[0] for row in rows]
    for number, text in dict(cells).items():
        lines[number] = f"{lines[number].split(',')[0]},{text}"
    if further:
        write_labelled(parent / "photos", further, seed=5, split="new")
    text = "\n".join(["path,labels", *(f"photos/{line}" for line in lines)])
    (parent / "photos-labels.csv").write_text(text, "utf-8")
    return parent / "photos"


@pytest.fixture
def label_client(tmp_path):
    """A studio on 24 images that may have several labels, and two that nobody has labelled."""
    with running_studio(write_label_project(tmp_path, 24, further=2)) as client:
        yield client


@pytest.fixture(scope="module")
def fitted_label_client(tmp_path_factory):
    """A studio of several labels an image whose full choice is made, of 60 images and 3 without a label. Read only."""
    folder = write_label_project(tmp_path_factory.mktemp("fitted-labels"), 60, further=3)
    with running_studio(folder) as client:
        client.wait()
        yield client
