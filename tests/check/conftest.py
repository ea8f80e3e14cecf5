"""Rendered images to check: a set without faults, and a copy of it for each test to plant faults in."""

import shutil
from pathlib import Path

import pytest

from headstart.data.rendered import render


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    """A dataset without faults. Read only."""
    folder = tmp_path_factory.mktemp("clean") / "set"
    render("horses-or-humans", folder, train=96, validation=24, seed=5)
    (folder / "README.md").unlink()
    return folder


@pytest.fixture
def photos(clean, tmp_path):
    """A copy of the dataset without faults, to change."""
    return Path(shutil.copytree(clean, tmp_path / "photos"))
