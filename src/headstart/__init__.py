"""Headstart: a folder of pictures in, a trustworthy image classifier out.

>>> import headstart as hs
>>> clf = hs.ImageClassifier()            # a scikit-learn estimator
>>> clf
ImageClassifier()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.backbones import InputOptions
    from headstart.classifier import ImageClassifier, load
    from headstart.data import Dataset, open_dataset
    from headstart.errors import HeadstartError
    from headstart.model.predictions import Evaluation, Prediction
    from headstart.stats.accuracy import Accuracy

__version__ = "0.1.0"
_WHERE = {
    "Accuracy": "stats.accuracy",
    "Dataset": "data",
    "Evaluation": "model.predictions",
    "HeadstartError": "errors",
    "ImageClassifier": "classifier",
    "InputOptions": "backbones",
    "Prediction": "model.predictions",
    "load": "classifier",
    "open_dataset": "data",
}
__all__ = [
    "Accuracy",
    "Dataset",
    "Evaluation",
    "HeadstartError",
    "ImageClassifier",
    "InputOptions",
    "Prediction",
    "load",
    "open_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    return getattr(import_module(f"headstart.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
