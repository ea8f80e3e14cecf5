"""A model folder with the data of its report."""

import pytest
from helpers.browser import start
from helpers.labels import write_labelled

from headstart import Compute, FitOptions, fit_multi_label, open_dataset
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


@pytest.fixture(scope="session")
def label_fit(tmp_path_factory):
    """The result of a fit to several labels, of which every tenth image lacks "disc", or has it, wrongly."""
    folder = tmp_path_factory.mktemp("mislabelled")
    rows = [row.split(",") for row in write_labelled(folder, 80) + write_labelled(folder, 30, 1, "validation")]
    for row in rows[::10]:
        row[1] = ";".join(sorted({"disc"} ^ {*row[1].split(";")} - {""}))
    (folder / "labels.csv").write_text("\n".join(["path,labels,split", *map(",".join, rows)]), "utf-8")
    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False, group_by="none", target_recall=0.9)
    return fit_multi_label(open_dataset(folder / "labels.csv"), options)
