"""``ImageClassifier``: fit, predict, evaluate, save, load. A scikit-learn estimator whose X are pictures."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from importlib import import_module
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import backbones
from headstart.backbones import Backbone, InputOptions
from headstart.data import Dataset, concatenate, from_images, open_dataset
from headstart.errors import DataError, OptionError
from headstart.features.cache import FeatureCache
from headstart.features.features import Features, embed, with_views
from headstart.features.runtime import RuntimeInfo, resolve_runtime
from headstart.heads import Choice, Training, select
from headstart.heads.learning_curve import learning_curve
from headstart.images.augment import views
from headstart.images.decode import decode
from headstart.model import Model, compose, make_golden, read, verify, write
from headstart.model.predictions import Evaluation, Prediction, judge, labelled_part
from headstart.model.run_info import record
from headstart.splits.split import Learned, Partition
from headstart.stats import ConformalThresholds, check_targets, fit_thresholds, groups_needed
from headstart.stats.accuracy import Accuracy, disjoint, held_out_accuracy, leave_one_group_out_accuracy

Progress = Callable[[int, int], None]
GOLDEN = 8  # pictures that a model carries to prove itself elsewhere


class ImageClassifier:
    """Learn to tell pictures apart on the frozen features of a pretrained network.

    ``X`` is a data set (path or URL of a folder, archive or table) or a list of paths, file bytes or uint8
    arrays [height, width, 3]; with a list, ``y`` holds a label each. Parameters are those of
    ``headstart fit``: ``backbone`` an id, ``cut`` "auto", a tap or several, ``head`` "auto", "ridge", "lda",
    "centroid", "logistic" or "mlp", ``dropout`` a rate in [0, 1) or None, ``group_by`` "auto", "none" or a column,
    ``validation`` a data set or a share in (0, 1), ``coverage`` the share of pictures whose prediction set holds
    their class, ``false_alarms`` the share that may be taken for none of the classes although they are one,
    ``runtime`` and ``precision`` of inference, ``workers`` threads, ``seed``, ``input_options`` how an ``onnx:``
    graph wants its pictures, ``cache`` whether features are kept on disk, ``views`` how many views of each training
    picture to learn from (1: the picture alone), ``augmentation`` how they differ: "flip", "light" or "lesson";
    ``training`` how an "mlp" head is trained.

    After ``fit``: ``classes_``, ``model_``, ``choice_``, ``run_`` (what ``run.json`` holds), ``notes_``,
    ``accuracy_``, ``learning_curve_`` (None where there are too few groups for one), ``quarantined_``, ``learned_``.
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        backbone: str = "headstart-s",
        cut: str | Sequence[str] = "auto",
        head: str = "auto",
        dropout: float | None = None,
        group_by: str = "auto",
        validation: str | float | None = None,
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
        training: Training | None = None,
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
        self.training = training

    def fit(
        self, X: Any, y: Sequence[object] | None = None, groups: Sequence[object] | None = None,
        *, report: bool = False, progress: Progress | None = None,
    ) -> ImageClassifier:  # fmt: skip
        """Learn. ``groups`` name pictures that belong together (a scene, a patient). Raises HeadstartError.

        ``report`` says that one will be made: what it shows of a picture is kept as that is decoded, not decoded again.
        """
        started = time.perf_counter()
        check_targets(self.coverage, self.false_alarms)
        Thread(target=_import_ahead, args=(resolve_runtime(self.runtime, self.precision),), daemon=True).start()
        dataset = self._open(X, y, groups)
        if not dataset.classes:
            raise DataError(f"{dataset.uri} has no labels to learn from; put the pictures in one folder a class.")
        cuts, further = self._cuts(), views(self.augmentation, self.views)
        backbone = backbones.load(self.backbone, options=self.input_options, taps=cuts or ())
        train, validation = dataset.split("train"), self._validation_set(dataset)
        if not len(train):
            raise DataError(f"{dataset.uri} has no training pictures; expected class folders, or train/ with them.")
        with FeatureCache() if self.cache else nullcontext() as cache:
            everything = train if validation is None else concatenate(train, validation)
            features = embed(
                everything, backbone, cache=cache, runtime=self.runtime, precision=self.precision,
                workers=self.workers, squares=report, progress=progress,
            )  # fmt: skip
            seconds = time.perf_counter()
            split = Partition.of(features, everything, len(train), self.group_by, self.validation, self.seed)
            values = with_views(
                features, split.train, further, everything, backbone, cache=cache, runtime=self.runtime,
                precision=self.precision, workers=self.workers, progress=progress,
            )  # fmt: skip
            cache_notes = list(cache.notes) if cache is not None else []
        choice = select(
            values, np.tile(split.labels, self.views), np.tile(split.groups.index, self.views), cut=cuts or "auto",
            kind=self.head, dropout=self.dropout, seed=self.seed, judged=len(split.labels), training=self._training(),
        )  # fmt: skip
        promises = fit_thresholds(
            choice.probabilities, split.labels, split.groups.index, choice.distances,
            coverage=self.coverage, false_alarms=self.false_alarms,
        )  # fmt: skip
        with ThreadPoolExecutor(1) as beside:  # only now: two threads of small steps wait for each other
            sample = beside.submit(_sample, backbone, features, everything, split.train)
            curve = beside.submit(learning_curve, choice, split.labels, split.groups.index, seed=self.seed)
            accuracies = beside.submit(_accuracies, choice, split, features, everything)
            model = _proved(_model(split.classes, backbone, choice, promises), features, *sample.result())
        choice = replace(choice, chosen=replace(choice.chosen, basis=None))  # it holds all features
        self.learning_curve_ = curve.result()
        seconds = time.perf_counter() - seconds
        accuracy = accuracies.result()
        quarantined = (*dataset.quarantined, *features.quarantined)
        self.run_ = record(
            dataset, split, backbone, choice, features, accuracy, self.learning_curve_,
            seconds={"total": time.perf_counter() - started, "head": seconds}, seed=self.seed,
            views={"count": self.views, "augmentation": self.augmentation if further else None},
        )  # fmt: skip
        self.model_ = replace(model, run=self.run_)
        self.classes_ = np.array(split.classes)
        self.choice_, self.accuracy_, self.quarantined_ = choice, accuracy, quarantined
        self.learned_ = Learned(everything, features, split, backbone)
        self.notes_ = [
            *backbone.notes, *cache_notes, *split.notes, *_unpromised(promises, split.groups.count), *_apart(accuracy)
        ]  # fmt: skip
        return self

    def adopt(self, learned: Learned, choice: Choice) -> None:
        """Become the model of another network and head that learned from the same pictures (fine-tuning)."""
        split, features = learned.partition, learned.features
        promises = fit_thresholds(
            choice.probabilities, split.labels, split.groups.index, choice.distances,
            coverage=self.coverage, false_alarms=self.false_alarms,
        )  # fmt: skip
        shown, pictures = _sample(learned.backbone, features, learned.dataset, split.train)
        self.model_ = _proved(_model(split.classes, learned.backbone, choice, promises), features, shown, pictures)
        stay = [note for note in self.notes_ if note not in _apart(self.accuracy_)]
        self.accuracy_ = _accuracies(choice, split, features, learned.dataset)
        self.notes_ = [*stay, *_apart(self.accuracy_)]
        self.choice_, self.learned_, self.learning_curve_ = choice, learned, None

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each picture [n]. Raises DataError if one cannot be read."""
        answers: NDArray[Any] = self._fitted_classes()[self.predict_proba(X).argmax(axis=1)]
        return answers

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities [n, k] in the order of ``classes_``; rows sum to 1. Raises DataError if one cannot be read."""
        found = self.answer(self._open(X, None, None))
        if found.quarantined:
            first = found.quarantined[0]
            raise DataError(f"{len(found.quarantined)} pictures cannot be read, first {first.path}: {first.reason}")
        return found.probabilities

    def score(self, X: Any, y: Sequence[object] | None = None) -> float:
        """Accuracy, 0 to 1, on labelled pictures."""
        return self.evaluate(X, y).accuracy.value

    def answer(self, dataset: Dataset, *, progress: Progress | None = None) -> Prediction:
        """Probabilities for every readable picture of a data set; the others are quarantined."""
        model = self._fitted()
        features = embed(
            dataset, model.as_backbone(), runtime=self.runtime, precision=self.precision,
            workers=self.workers, exact=True, progress=progress,
        )  # fmt: skip
        values = features.values["probabilities"].astype(np.float64).reshape(-1, len(model.classes))
        probabilities = values / values.sum(axis=1, keepdims=True)
        paths = tuple(dataset.items[i].path for i in features.index)
        found = Prediction(model.classes, paths, probabilities, (*dataset.quarantined, *features.quarantined))
        if model.promises is None:
            return found
        distances = features.values["distance"].astype(np.float64).reshape(-1)
        return replace(
            found, promises=model.promises, sets=model.promises.sets(probabilities), distances=distances,
            none_of_these=model.promises.none_of_these(distances),
        )  # fmt: skip

    def evaluate(self, X: Any, y: Sequence[object] | None = None, *, progress: Progress | None = None) -> Evaluation:
        """Accuracy with its interval, and the confusion, on pictures that had no part in training.

        Of a data set with splits the validation pictures count, or the test pictures where there are none.
        Classes are matched by name. Raises DataError when there are no labels.
        """
        dataset = labelled_part(self._open(X, y, None))
        return judge(self.answer(dataset, progress=progress), dataset)

    def save(self, folder: str | os.PathLike[str]) -> str:
        """Write the model folder and return its path."""
        return str(write(self._fitted(), folder))

    def verify(self) -> Any:
        """Replay the golden sample on this machine. Raises VerifyError on a difference beyond the tolerance."""
        return verify(self._fitted(), resolve_runtime(self.runtime, self.precision))

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002  # scikit-learn's signature
        """The parameters by name, as scikit-learn wants them."""
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
        given = [f"{k}={v!r}" for k, v in self.get_params().items() if v != default[k]]
        return f"ImageClassifier({', '.join(given)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, string=True),
            requires_fit=True,
        )

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: all but the pictures and their features, whose files stay open here."""
        return {name: value for name, value in vars(self).items() if name != "learned_"}

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def _fitted(self) -> Model:
        if not hasattr(self, "model_"):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError("This ImageClassifier is not fitted yet; call fit first, or headstart.load a model.")
        return self.model_

    def _fitted_classes(self) -> NDArray[Any]:
        self._fitted()
        return self.classes_

    def _open(self, X: Any, y: Sequence[object] | None, groups: Sequence[object] | None) -> Dataset:
        if isinstance(X, Dataset):
            return X
        if isinstance(X, str | os.PathLike):
            return open_dataset(X, group_column=None if self.group_by in ("auto", "none") else self.group_by)
        return from_images(list(X), None if y is None else list(y), None if groups is None else list(groups))

    def _cuts(self) -> tuple[str, ...] | None:
        if isinstance(self.cut, str):
            return None if self.cut == "auto" else tuple(part.strip() for part in self.cut.split(","))
        return tuple(self.cut)

    def _training(self) -> Training:
        how = self.training or Training()
        return how if self.dropout is None else replace(how, dropout=self.dropout)

    def _validation_set(self, dataset: Dataset) -> Dataset | None:
        if self.validation is None or isinstance(self.validation, float | int):
            return dataset.split("validation") if "validation" in dataset.splits else None
        other = open_dataset(self.validation)
        return other.split("validation") if "validation" in other.splits else other


def _model(classes: tuple[str, ...], backbone: Backbone, choice: Choice, promises: ConformalThresholds) -> Model:
    graph = compose(backbone, choice.head, choice.familiar)
    described = {
        "id": backbone.id,
        "sha256": backbone.sha256,
        "licence": backbone.licence,
        "source": backbone.source,
    }
    return Model(
        classes, backbone.preprocess, described, choice.head, graph, hashlib.sha256(graph).hexdigest(),
        backbone.batch, familiar=choice.familiar, promises=promises,
    )  # fmt: skip


def _sample(
    backbone: Backbone, features: Features, dataset: Dataset, train: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[NDArray[np.uint8]]]:
    """Rows [m] of ``features``, spread over the training pictures, and their pixels as the backbone takes them."""
    shown = train[np.linspace(0, len(train) - 1, min(GOLDEN, len(train))).astype(int)]
    pictures = []
    for i in features.index[shown]:
        pictures.append(backbone.preprocess(decode(dataset.read(int(i)), at_least=backbone.preprocess.at_least)))
    return shown, pictures


def _proved(model: Model, features: Features, shown: NDArray[np.int64], pictures: Sequence[NDArray[np.uint8]]) -> Model:
    """The model with its golden sample, taken from the rows ``shown`` of ``features``."""
    assert model.familiar is not None
    vectors = features.matrix(model.head.taps, shown)
    answers, distances = model.head.probabilities(vectors), model.familiar.distances(vectors)
    return replace(model, golden=make_golden(model, pictures, answers, features.runtime.precision, distances))


def _import_ahead(runtime: RuntimeInfo) -> None:
    """What is needed for the features and after them, imported while the data set and the network are opened."""
    for name in (runtime.name, "onnxruntime"):
        with suppress(Exception):  # what cannot be imported is told where it is needed
            import_module(name)


def load(folder: str | os.PathLike[str]) -> ImageClassifier:
    """The classifier in a model folder. Raises ModelError for a damaged, hostile or newer one."""
    model = read(folder)
    classifier = ImageClassifier(backbone=model.backbone.get("id", "unknown"))
    classifier.model_ = model
    classifier.classes_ = np.array(model.classes)
    classifier.run_ = dict(model.run)
    return classifier


def _accuracies(choice: Choice, split: Partition, features: Features, dataset: Dataset) -> dict[str, Accuracy]:
    found = {}
    if len(split.validation):
        probabilities = choice.head.probabilities(features.matrix(choice.head.taps, split.validation))
        names = [str(dataset.items[features.index[i]].label) for i in split.validation]
        answers = [split.classes[i] for i in probabilities.argmax(axis=1)]
        found["validation"] = held_out_accuracy(np.array([a == b for a, b in zip(answers, names, strict=True)]))
    right = choice.probabilities.argmax(axis=1) == split.labels
    found["leave_group_out"] = leave_one_group_out_accuracy(right, split.groups.index)
    return found


def _apart(accuracy: Mapping[str, Accuracy]) -> list[str]:
    """What a fit must say where its two accuracies contradict each other."""
    left_out, held_out = accuracy["leave_group_out"], accuracy.get("validation")
    if held_out is None or not disjoint(left_out.interval, held_out.interval):
        return []
    if held_out.value > left_out.value:
        return ["Held-out pictures are recognised better than groups left out: they may be easier, or copies."]
    return [
        "Held-out pictures are recognised worse than groups left out: expect what they say. They may differ from all "
        "training pictures, or pictures that belong together were not found: name them in a column (--group-by)."
    ]


def _unpromised(promises: ConformalThresholds, groups: int) -> list[str]:
    """What a fit must say of promises that its groups are too few for."""
    notes = []
    if not any(promises.set_thresholds):
        notes.append(
            f"{groups} groups of pictures are too few to promise {promises.coverage:.0%} coverage: every prediction "
            f"set holds every class; {groups_needed(promises.coverage)} groups are needed."
        )
    if promises.false_alarms and np.isinf(promises.reject_threshold):
        notes.append(
            f"{groups} groups of pictures are too few to promise {promises.false_alarms:.0%} false alarms: no picture "
            f"is taken for none of the classes; {groups_needed(1 - promises.false_alarms)} groups are needed."
        )
    return notes


_PARAMETERS = tuple(ImageClassifier.__init__.__annotations__)[:-1]
