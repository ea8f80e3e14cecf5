"""Fit a classifier.

kept_rows.py       rows that are kept in the place of images, and what a fit needs from them
embed_folder.py    embed_to_folder: the rows of a dataset as a folder, shard by shard
embed_statistics.py sum_dataset, sum_sharded: sums over a dataset, shard by shard, and no rows
shown_images.py    the images behind rows of workers, read again for a report
parts.py           reading folders of features and models that keep theirs, and fitting those anew
update.py          update_model: the same model with further images
forget.py          forget_images: the same model without some images, and the cache too
refit.py           fit_features: a fit to kept rows, which records its options to be repeated
rendered_golden.py the golden images of such a model, which are nobody's
options.py         FitOptions: how a classifier is fitted
fit.py             fit_dataset: a dataset and FitOptions in, a FitResult out; fit_rows, its step that needs no image
embedded.py        embed_images, the step before that needs them: backbone and features of the images of a fit
fit_labels.py      fit_multi_label: the same for several labels an image
precision.py       what --precision auto takes: int8 where it pays
class_settings.py  class weights, costs and thresholds, checked against the classes
make_model.py      the model of a fit, and its golden images
preview.py         preview: how a fit would read a dataset, and about what it would take
notes.py           lines about a fit that the user must see
run_info.py        what run.json holds: how a model was made
estimator.py       ImageClassifier, a scikit-learn estimator; load, for a model folder
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.classifier.estimator import ImageClassifier, load
    from headstart.classifier.fit import FitResult, fit_dataset
    from headstart.classifier.fit_labels import MultiLabelFitResult, fit_multi_label
    from headstart.classifier.options import FitOptions

_MODULES = {  # each imported where it is used: a fit to one label needs neither several labels nor the estimator
    "FitOptions": "options",
    "FitResult": "fit",
    "ImageClassifier": "estimator",
    "MultiLabelFitResult": "fit_labels",
    "fit_dataset": "fit",
    "fit_multi_label": "fit_labels",
    "load": "estimator",
}
__all__ = [
    "FitOptions",
    "FitResult",
    "ImageClassifier",
    "MultiLabelFitResult",
    "fit_dataset",
    "fit_multi_label",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'headstart.classifier' has no attribute {name!r}")
    return getattr(import_module(f"headstart.classifier.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
