"""``ImageClassifier``: the scikit-learn estimator over ``fit_dataset`` and ``Predictor``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import DEFAULT_BACKBONE, InputOptions
from headstart.classifier.class_settings import ClassWeight, Costs, Thresholds
from headstart.classifier.fit import FitResult, fit_dataset
from headstart.classifier.fit_labels import MultiLabelFitResult, fit_multi_label
from headstart.classifier.options import FitOptions
from headstart.data import Dataset, ReadOptions, as_dataset
from headstart.data.label_sets import MatrixRow, label_list, label_sets
from headstart.data.labels import check_labels, class_name, labels_by_class
from headstart.errors import DataError, ModelError, NotFittedError, OptionError
from headstart.features import Compute
from headstart.features.features import Progress
from headstart.heads.mlp import MlpConfig
from headstart.model.folder import write_model
from headstart.model.golden import Verification
from headstart.model.label_predictions import MultiLabelEvaluation, MultiLabelPredictions
from headstart.model.notebook import model_html
from headstart.model.predictions import Evaluation, Predictions
from headstart.model.predictor import Predictor, check_all_read
from headstart.stats.accuracy import Accuracy

logger = logging.getLogger(__name__)


class ImageClassifier:
    """Classify images by the frozen features of a pretrained network. A scikit-learn estimator whose X are images.

    ``X`` is a dataset (path or URL of a folder, archive or table) or a list of paths, file bytes, PIL images or arrays:
    [height, width, 3], or [height, width] of grey, uint8 or floating point in 0 to 1 or 0 to 255; with a list, ``y``
    holds the label of each. The parameters are those of ``FitOptions``; ``runtime``, ``precision`` and ``workers`` are
    those of ``Compute``.

    With several labels an image ``y`` is a list of lists, or a matrix [n, k] of zeros and ones; ``classes_`` are the
    labels in the order of scikit-learn's ``MultiLabelBinarizer``, or the columns of the matrix, and ``predict`` returns
    an indicator matrix.

    After ``fit``: ``classes_``, ``model_``, and ``result_`` (a ``FitResult``, not pickled); ``accuracy_`` and ``run_``
    (the content of ``run.json``) are known of a loaded model too.
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONE,
        cut: str | Sequence[str] = "auto",
        head: str = "auto",
        dropout: float | None = None,
        group_by: str = "auto",
        validation: Dataset | str | os.PathLike[str] | float | None = None,
        coverage: float = 0.95,
        false_alarms: float = 0.05,
        runtime: str = "auto",
        precision: str = "auto",
        workers: int | None = None,
        seed: int = 0,
        input_options: InputOptions | None = None,
        cache: bool = True,
        views: int = 1,
        augmentation: str = "light",
        mlp: MlpConfig | None = None,
        class_weight: ClassWeight = None,
        costs: Costs = None,
        thresholds: Thresholds = None,
        model_version: str = "",
        author: str = "",
        decode: str = "scaled",
        target_recall: float | None = None,
        target_precision: float | None = None,
    ) -> None:
        self.backbone = backbone
        self.cut = cut
        self.head = head
        self.dropout = dropout
        self.group_by = group_by
        self.validation = validation
        self.coverage = coverage
        self.false_alarms = false_alarms
        self.runtime = runtime
        self.precision = precision
        self.workers = workers
        self.seed = seed
        self.input_options = input_options
        self.cache = cache
        self.views = views
        self.augmentation = augmentation
        self.mlp = mlp
        self.class_weight = class_weight
        self.costs = costs
        self.thresholds = thresholds
        self.model_version = model_version
        self.author = author
        self.decode = decode
        self.target_recall = target_recall
        self.target_precision = target_precision

    @property
    def options(self) -> FitOptions:
        """The parameters as the options of ``fit_dataset``."""
        compute = Compute(self.runtime, self.precision, self.workers)
        shared = {f.name: getattr(self, f.name) for f in fields(FitOptions) if f.name not in ("compute", "cut")}
        is_list = isinstance(self.cut, Iterable) and not isinstance(self.cut, str)
        return FitOptions(cut=tuple(self.cut) if is_list else self.cut, compute=compute, **shared)

    def fit(
        self,
        X: Any,
        y: Iterable[object] | None = None,
        groups: Iterable[object] | None = None,
        *,
        progress: Progress | None = None,
        log: Callable[[str], None] = logger.info,
    ) -> ImageClassifier:
        """Fit. ``groups`` name images that belong together (a scene, a patient).

        ``progress(done, total)`` counts images; ``log`` receives lines of text about the trainings of an mlp head.

        Labels ``y`` may be texts, whole numbers or booleans, all of one type; ``classes_`` and predictions have that
        type. Images that cannot be read are left out: ``result_.left_out`` names them. Raises HeadstartError.
        """
        if y is None and not isinstance(X, Dataset | str | os.PathLike):
            raise DataError(
                "ImageClassifier requires y to be passed, but the target y is None; give the label of each image, or "
                "a dataset that has them."
            )
        y = None if y is None else label_list(y)
        dataset = as_dataset(X, y, groups, ReadOptions(group_column=self.options.group_column))
        self.result_: FitResult | MultiLabelFitResult
        if dataset.is_multi_label:
            self.result_ = fit_multi_label(dataset, self.options, progress=progress)
        else:
            self.result_ = fit_dataset(dataset, self.options, progress=progress, log=log)
        self.model_ = self.result_.model
        self.classes_ = _classes(self.model_.classes, y)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class [n] of each image: the most probable one, or the one that costs or thresholds decide for.

        With several labels an image it is an indicator matrix [n, k] of 0 and 1, int64, in the order of ``classes_``.
        Raises DataError if an image cannot be read.
        """
        predictions = self.predict_dataset(X)
        check_all_read(predictions.quarantined)
        if isinstance(predictions, MultiLabelPredictions):
            return predictions.decisions.astype(np.int64)
        labels: NDArray[Any] = self.classes_[predictions.predicted]
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities [n, k] in the order of ``classes_``; rows sum to 1, but not those of several labels.

        Raises DataError if an image cannot be read.
        """
        predictions = self.predict_dataset(X)
        check_all_read(predictions.quarantined)
        return predictions.probabilities

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the features [n, d] from which the fitted head computes its scores, for a later step of a Pipeline.

        They are the vectors of the chosen taps side by side. Raises DataError if an image cannot be read.
        """
        return self._predictor().features(X)

    def fit_transform(
        self, X: Any, y: Iterable[object] | None = None, groups: Iterable[object] | None = None
    ) -> NDArray[np.float32]:
        """Fit, and return the features [n, d] of the same images. Raises HeadstartError."""
        return self.fit(X, y, groups).transform(X)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[Any]:  # noqa: ARG002  # a convention
        """Return the names [d] of the columns of ``transform``, as scikit-learn calls those of its own transformers."""
        width = len(self._predictor().model.ood.centre)
        return np.array([f"imageclassifier{i}" for i in range(width)], object)

    def score(self, X: Any, y: Iterable[object] | None = None) -> float:
        """Return the accuracy, 0 to 1, on labelled images; of several labels the share with all labels right."""
        evaluation = self.evaluate(X, y)
        if isinstance(evaluation, MultiLabelEvaluation):
            return evaluation.metrics.exact_match.value or 0.0
        return evaluation.accuracy.value

    def predict_dataset(self, X: Any, *, progress: Progress | None = None) -> Predictions:
        """Predict every readable image, with prediction set and OOD score; the others are quarantined."""
        return self._predictor().predict(X, progress=progress)

    def evaluate(
        self, X: Any, y: Iterable[object] | None = None, *, progress: Progress | None = None
    ) -> Evaluation | MultiLabelEvaluation:
        """Evaluate on labelled images that had no part in training.

        Of a dataset with splits the validation images count, or the test images where there are none. Labels ``y`` are
        matched by their value (1.0 is 1), then by name. Images that cannot be read do not count:
        ``predictions.quarantined`` of the result names them. Raises DataError where there are no labels.
        """
        predictor = self._predictor()
        if y is not None and predictor.model.is_multi_label:
            return predictor.evaluate(as_dataset(X, self._named(y)), progress=progress)
        if y is not None:
            labels = label_list(y)
            check_labels(labels)
            names = dict(zip(self.classes_.tolist(), predictor.model.classes, strict=True))
            y = [names.get(label, class_name(label)) for label in labels]
        return predictor.evaluate(as_dataset(X, y), progress=progress)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> str:
        """Write the model folder and return its path; ``overwrite`` replaces a model of other data, too.

        After ``fit`` its file ``skipped.csv`` names the images that were left out. Raises OptionError, ModelError.
        """
        model, result = self._predictor().model, getattr(self, "result_", None)
        return str(write_model(model, folder, () if result is None else result.left_out, overwrite=overwrite))

    def report(self, folder: str | os.PathLike[str]) -> str:
        """Write the report of the fit, ``report.html``, and return its path.

        ``folder`` is best that of ``save``, where ``headstart open`` finds it; it is made where it is missing. Raises
        OptionError for a loaded model, which has no images: its report is in its folder; ModelError if the folder
        or the page cannot be written.
        """
        from headstart.report import write_report  # this method alone: a fit without a report needs none of its code

        self._predictor()  # raises where nothing is fitted
        if not hasattr(self, "result_"):
            raise OptionError(
                "A loaded model has no images to report on; headstart open FOLDER shows the report in its folder."
            )
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(f"Cannot make the folder {folder}: {error.strerror or error}.") from None
        return str(write_report(self.result_, folder))

    def verify(self) -> Verification:
        """Replay the golden sample on this machine. Raises VerifyError on a difference beyond the tolerance."""
        return self._predictor().verify()

    @property
    def run_(self) -> dict[str, Any]:
        """How the model was made: the content of ``run.json``."""
        return dict(self._predictor().model.run)

    @property
    def accuracy_(self) -> dict[str, Accuracy]:
        """The accuracies of the fit by what they were measured on: "validation" and "leave_group_out"."""
        return self._predictor().model.accuracy

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002  # scikit-learn's signature
        """Return the parameters by name, as scikit-learn wants them."""
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **params: Any) -> ImageClassifier:
        """Set parameters by name. Raises ValueError for an unknown one."""
        for name, value in params.items():
            if name not in _PARAMETERS:
                raise OptionError(f"Unknown parameter {name!r}; ImageClassifier has {', '.join(_PARAMETERS)}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        default = ImageClassifier().get_params()
        # Compared as texts, as scikit-learn does: an array has no one answer.
        changed = [f"{k}={v!r}" for k, v in self.get_params().items() if repr(v) != repr(default[k])]
        return f"ImageClassifier({', '.join(changed)})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the model with its accuracy, or the parameters before ``fit``."""
        if not hasattr(self, "model_"):
            return f"<code>{escape(repr(self))}</code>"
        return model_html(self.model_)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            transformer_tags=TransformerTags(preserves_dtype=[]),
            input_tags=InputTags(two_d_array=False, string=True),
            requires_fit=True,
        )

    def _named(self, labels: Any) -> list[Any]:
        """Return several labels an image by the names of the labels of the model. Raises DataError."""
        rows, names = label_list(labels), self._predictor().model.classes
        if not any(isinstance(row, MatrixRow) for row in rows):
            return rows
        columns = rows[0].columns
        if len(columns) != len(names):
            if set(names) <= {*map(class_name, columns)}:
                return rows  # as fitted, with the columns that the fit left out
            raise DataError(f"The labels have {len(columns)} columns, the model {len(names)} labels.")
        return [MatrixRow(names, row.values) if row.columns == tuple(range(len(names))) else row for row in rows]

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels to another process: all but the images and features, whose files stay open here."""
        return {name: value for name, value in vars(self).items() if name not in ("result_", "_last_predictor")}

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def _predictor(self) -> Predictor:
        if not hasattr(self, "model_"):
            raise not_fitted("This ImageClassifier is not fitted yet; call fit first, or headstart.load a model.")
        compute = Compute(self.runtime, self.precision, self.workers)
        last: Predictor | None = getattr(self, "_last_predictor", None)
        if last is None or last.model is not self.model_ or last.compute != compute:
            last = self._last_predictor = Predictor(self.model_, compute)  # it keeps its compiled graph
        return last


def _classes(names: Sequence[str], labels: Sequence[object] | None) -> NDArray[Any]:
    """Return the classes [k] in the type of the labels that they came as."""
    if labels is None:
        return np.array(names)
    sets = label_sets(labels)
    if sets is not None:
        of_name = dict(zip(sets.names, sets.classes, strict=True))
        return np.array([of_name[name] for name in names])
    original = labels_by_class(labels)
    return np.array([original[name] for name in names])


def load(folder: str | os.PathLike[str]) -> ImageClassifier:
    """Load the classifier in a model folder. Raises ModelError for a damaged, hostile or newer one."""
    model = Predictor.load(folder).model
    classifier = ImageClassifier(backbone=model.backbone.get("id", "unknown"))
    classifier.model_ = model
    classifier.classes_ = np.array(model.classes)
    return classifier


def not_fitted(message: str) -> Exception:
    """Make scikit-learn's error for an estimator that is not fitted, or our own where scikit-learn is not installed."""
    try:
        from sklearn.exceptions import NotFittedError as SklearnNotFittedError
    except ImportError:
        return NotFittedError(message)
    error: Exception = SklearnNotFittedError(message)
    return error


_PARAMETERS = tuple(ImageClassifier.__init__.__annotations__)[:-1]
