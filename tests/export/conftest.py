"""Exports of the small model, made once."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from headstart.errors import DownloadError
from headstart.export import ExportOptions, export_model, toolchain, web_runtime
from headstart.model.folder import read_model
from headstart.stats.label_thresholds import LabelThresholds


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
    return _exports_of(read_model(model_folder), tmp_path_factory)


@pytest.fixture
def copied(exports, tmp_path):
    """A function that returns a copy of an export, to be changed."""
    return lambda to, **options: shutil.copytree(exports(to, **options), tmp_path / f"copy-of-{to}")


@pytest.fixture(scope="session")
def label_model(label_model_folder):
    """The model of several labels an image, with a threshold of its own for each."""
    model = read_model(label_model_folder)
    return replace(model, label_thresholds=LabelThresholds((0.3, 0.5, 0.6), (True, True, False), "recall", 0.9))


@pytest.fixture(scope="session")
def label_exports(label_model, labelled, tmp_path_factory):
    """A function that returns the folder of an export of that model, read only, by format and options."""
    return _exports_of(label_model, tmp_path_factory)


@pytest.fixture(scope="session")
def runtime_folder(tmp_path_factory):
    """ONNX Runtime Web, fetched once; skipped where it cannot be had."""
    folder = tmp_path_factory.mktemp("onnxruntime-web")
    try:
        files = web_runtime._download()
    except DownloadError as error:
        pytest.skip(f"needs the npm registry: {error}")
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def _exports_of(model, tmp_path_factory):
    made = {}

    def get(to, **options):
        key = (to, *sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("export") / to
            export_model(model, to, folder, ExportOptions(**options))
            made[key] = folder
        return made[key]

    return get
