"""A model folder with the data of its report."""

import pytest
from helpers.browser import start

from headstart.model.folder import write_model
from headstart.report.storage import write_data


@pytest.fixture
def folder_with_report(fitted, fit_report, tmp_path):
    path = tmp_path / "model"
    write_model(fitted.model, path)
    write_data(fit_report, path)
    return path


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    browser = start(tmp_path_factory.mktemp("browser-profile"))
    yield browser
    browser.quit()
