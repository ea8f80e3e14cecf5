"""Fixtures of all tests: the reference data, a temporary cache, and a small fit."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.labels import write_labelled
from helpers.photos import ROOT, write_photos

if TYPE_CHECKING:
    from headstart import FitResult, MultiLabelFitResult
    from headstart.report.data import Report

# selenium brings trio, whose plugin for Hypothesis warns as it is loaded, which here is an error.
os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights; tests that need it are skipped where it is missing."""
    folder = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the reference data; there is none in {folder} (set HEADSTART_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def _temporary_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with train and validation of two classes, 14 and 6 images each. Read only."""
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder / "train", 14)
    write_photos(folder / "validation", 6, seed=1)
    return folder


@pytest.fixture(scope="session")
def model_folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the photos on the fast built-in backbone, as ``fit`` writes it. Read only."""
    from headstart import ImageClassifier

    folder = tmp_path_factory.mktemp("model") / "model"
    ImageClassifier("headstart-s", cache=False).fit(photos).save(folder)
    return folder


@pytest.fixture(scope="session")
def fitted(photos: Path) -> "FitResult":
    """The result of a fit to the photos, on the fast built-in backbone."""
    from headstart import Compute, FitOptions, fit_dataset, open_dataset

    return fit_dataset(open_dataset(photos), FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False))


@pytest.fixture(scope="session")
def fit_report(fitted: "FitResult") -> "Report":
    """The report of that fit."""
    from headstart.report.gather import gather

    return gather(fitted)


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 80 training and 30 validation images with several labels, or none. Read only."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = [*write_labelled(folder, 80), *write_labelled(folder, 30, seed=1, split="validation")]
    (folder / "labels.csv").write_text("\n".join(["path,labels,split", *rows]), "utf-8")
    return folder / "labels.csv"


@pytest.fixture(scope="session")
def label_fit(labelled: Path) -> "MultiLabelFitResult":
    """The result of a fit to those images, on the fast built-in backbone."""
    from headstart import Compute, FitOptions, fit_multi_label, open_dataset

    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False, group_by="none", target_recall=0.9)
    return fit_multi_label(open_dataset(labelled), options)


@pytest.fixture(scope="session")
def label_model_folder(label_fit: "MultiLabelFitResult", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of that fit, as ``fit`` writes it without a report. Read only."""
    folder = tmp_path_factory.mktemp("label_model") / "model"
    label_fit.save(folder)
    return folder
