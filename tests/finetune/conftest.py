"""Fits that are fine-tuned."""

import pytest

from headstart.classifier import FitOptions, FitResult, fit_dataset
from headstart.data import open_dataset
from headstart.features import Compute


@pytest.fixture(scope="session")
def builtin_fit(photos, tmp_path_factory) -> FitResult:
    """A fit of the photos on the fast built-in backbone. Fine-tuning does not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        return fit_dataset(open_dataset(str(photos)), FitOptions("headstart-s", compute=Compute("onnxruntime")))
