"""Fixtures of the tests of datasets."""

from collections.abc import Iterator

import pytest
from helpers.downloads import GOOD
from helpers.servers import FaultyServer, serving_faults

from headstart.data import download


@pytest.fixture
def faulty_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A server of the small public dataset, read in small blocks."""
    monkeypatch.setattr(download, "CHUNK", 4096)
    with serving_faults(GOOD) as server:
        yield server
