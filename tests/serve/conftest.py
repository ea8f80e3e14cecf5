"""A server of the model of the photos."""

import time
from contextlib import contextmanager

import pytest
from helpers.http_clients import exchange, running

from headstart.features import Compute
from headstart.serve.app import make_app
from headstart.serve.models import Models
from headstart.serve.options import ServerOptions


@contextmanager
def serving(folders, options=None, *, max_batch=16, token=None):
    """Serve model folders in a thread, wait until they are ready, and yield the port and the models."""
    options = options or ServerOptions(port=0, token=token)
    models = Models.of(folders, Compute("onnxruntime", workers=2), max_batch)
    with running(make_app(models, options), options) as port:
        wait_until(lambda: exchange(port, path="/health")[0] == 200)
        yield port, models


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come to pass"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def server(model_folder):
    """The port of a server of one model."""
    with serving([model_folder]) as (port, _):
        yield port


@pytest.fixture(scope="session")
def files(photos):
    """The bytes of image files of both classes."""
    return [path.read_bytes() for path in sorted((photos / "validation").rglob("*.*"))]
