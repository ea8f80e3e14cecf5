"""A model folder with the data of its report."""

import pytest

from headstart.model.folder import write_model
from headstart.report.storage import write_data


@pytest.fixture
def folder_with_report(fitted, fit_report, tmp_path):
    path = tmp_path / "model"
    write_model(fitted.model, path)
    write_data(fit_report, path)
    return path
