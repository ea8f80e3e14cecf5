"""Headstart: a folder of images in, a trustworthy image classifier out.

>>> import headstart as hs
>>> clf = hs.ImageClassifier()            # a scikit-learn estimator
>>> clf
ImageClassifier()
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.backbones import InputOptions
    from headstart.classifier import FitOptions, FitResult, ImageClassifier, fit_dataset, fit_multi_label, load
    from headstart.data import Dataset, ReadOptions, open_dataset
    from headstart.errors import HeadstartError
    from headstart.features import Compute
    from headstart.images.standalone import preprocess
    from headstart.model import Evaluation, Predictions, Predictor
    from headstart.stats.accuracy import Accuracy

__version__ = "0.1.0"
logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent, unless the program sets up logging
_MODULES = {
    "Accuracy": "stats.accuracy",
    "Compute": "features",
    "Dataset": "data",
    "Evaluation": "model",
    "FitOptions": "classifier",
    "FitResult": "classifier",
    "HeadstartError": "errors",
    "ImageClassifier": "classifier",
    "InputOptions": "backbones",
    "Predictions": "model",
    "Predictor": "model",
    "ReadOptions": "data",
    "fit_dataset": "classifier",
    "fit_multi_label": "classifier",
    "load": "classifier",
    "open_dataset": "data",
    "preprocess": "images.standalone",
}
__all__ = [
    "Accuracy",
    "Compute",
    "Dataset",
    "Evaluation",
    "FitOptions",
    "FitResult",
    "HeadstartError",
    "ImageClassifier",
    "InputOptions",
    "Predictions",
    "Predictor",
    "ReadOptions",
    "fit_dataset",
    "fit_multi_label",
    "load",
    "open_dataset",
    "preprocess",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    return getattr(import_module(f"headstart.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
