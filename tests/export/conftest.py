"""Exports of the small model, made once."""

import os
import shutil
from pathlib import Path

import pytest

from headstart.export import ExportOptions, export_model, toolchain
from headstart.model.folder import read_model


@pytest.fixture(scope="session", autouse=True)
def _toolchains():
    """Converters are kept in the folder that HEADSTART_TOOLCHAINS names: the cache of the tests is new each time."""
    with pytest.MonkeyPatch.context() as patch:
        if folder := os.environ.get("HEADSTART_TOOLCHAINS"):
            patch.setattr(toolchain, "cache_folder", lambda: Path(folder).resolve())
        yield


@pytest.fixture(scope="session")
def exports(model_folder, photos, tmp_path_factory):
    """A function that returns the folder of an export, read only, by format and options."""
    made = {}

    def get(to, **options):
        key = (to, *sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("export") / to
            export_model(read_model(model_folder), to, folder, ExportOptions(**options))
            made[key] = folder
        return made[key]

    return get


@pytest.fixture
def copied(exports, tmp_path):
    """A function that returns a copy of an export, to be changed."""
    return lambda to, **options: shutil.copytree(exports(to, **options), tmp_path / f"copy-of-{to}")
