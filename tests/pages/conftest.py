"""A Chromium with a camera that shows a test pattern, and what the pages of serve and studio are checked for."""

from __future__ import annotations

import pytest
from helpers import browser as helper

FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """The browser. See ``quiet``."""
    started = helper.start(tmp_path_factory.mktemp("pages-profile"), arguments=FAKE_CAMERA)
    yield started
    started.quit()


@pytest.fixture
def quiet(driver):
    """The browser, whose log must hold no error at the end of the test; those that it provokes, it takes out."""
    driver.get_log("browser")
    yield driver
    messages = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    messages = [message for message in messages if "favicon.ico" not in message]  # of what is no page of ours
    driver.get("about:blank")
    assert messages == []
