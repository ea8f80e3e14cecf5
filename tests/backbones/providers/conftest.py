"""What the tests of hf: share."""

import pytest
from helpers.hub_server import hub_server
from huggingface_hub import constants, file_download


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub with the repository org/net, to which the environment leads."""
    with hub_server() as hub:
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # what is lost at most when a connection breaks
        yield hub
