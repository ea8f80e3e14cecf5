"""The first step of a fit, which needs the images: which ones take part, the backbone for them, and their features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.classifier.options import FitOptions
from headstart.classifier.precision import PrecisionChoice, choose_precision
from headstart.classifier.rendered_golden import rendered_features
from headstart.data import Dataset, ReadOptions, concatenate, open_dataset
from headstart.data.class_names import with_class_names
from headstart.errors import DataError, OptionError
from headstart.features import Compute, FeatureCache, Features
from headstart.features.features import Extract, Progress
from headstart.features.input_scaling import InputScaling, open_backbone
from headstart.heads.integers import AnyVectors, stack_rows, take_rows
from headstart.images.augment import views
from headstart.images.samples import SampleRange, measure_sample_range


@dataclass(frozen=True)
class EmbeddedImages:
    """All that a fit takes from images: with it the rest of the fit reads none of them, nor runs the backbone on one.

    ``dataset`` holds the images for training and validation; its reader is not needed. ``options`` are those of the fit
    with the id and the input of the backbone as it was opened. ``views`` are the features of further views of the n
    images of the split "train" that could be read, in the order of ``features``. ``golden`` are features by tap of the
    images of the golden sample, where those are rendered (``rendered_golden``). ``notes`` are lines that the user must
    see; ``scaling`` is that of the backbone where it was open; ``precision_choice`` is None where "auto" had none to
    make.
    """

    dataset: Dataset
    options: FitOptions
    backbone: Backbone
    features: Features
    views: tuple[Features, ...] = ()
    notes: tuple[str, ...] = ()
    scaling: InputScaling | None = None
    precision_choice: PrecisionChoice | None = None
    golden: Mapping[str, NDArray[np.float32]] | None = None

    @property
    def training_rows(self) -> NDArray[np.int64]:
        """The rows [n] of the features of images of the split "train"."""
        items = self.dataset.items
        return np.array([i for i, k in enumerate(self.features.index) if items[k].split == "train"], np.int64)

    def training_values(self, rows: NDArray[np.int64]) -> Mapping[str, AnyVectors]:
        """Return vectors by tap of the training images ``rows`` [m], then of each view: [m * (1 + views), channels]."""
        values = self.features.vectors(rows)
        if not self.views:
            return values
        places = np.searchsorted(self.training_rows, rows)
        return {
            tap: stack_rows([value, *(take_rows(view.values[tap], places) for view in self.views)])
            for tap, value in values.items()
        }


def embed_images(
    images: Dataset,
    options: FitOptions,
    extract: Extract,
    *,
    thumbnails: bool = False,
    rendered: bool = False,
    progress: Progress | None = None,
) -> EmbeddedImages:
    """Open the backbone for the training images and compute the features of all ``images``.

    The parameters are those of ``fit_dataset``; ``images`` are those of ``training_and_validation_images``. With
    ``rendered`` the golden sample is of rendered images, and precision "auto" takes no int8, which would depend on the
    images. Raises HeadstartError.
    """
    with options.open_cache(thumbnails=thumbnails) as cache:
        opened = open_images(images, options)
        if not rendered:
            opened = opened.with_precision(images, extract, cache)
        options, backbone, compute = opened.options, opened.backbone, opened.compute
        features = extract(images, backbone, compute, cache=cache, by_content=True, progress=progress)
        features = features.by_content(images)  # where ``extract`` has not ordered them
        golden = rendered_features(backbone, compute, extract) if rendered else None
        embedded = EmbeddedImages(images, options, backbone, features, (), (), opened.scaling, opened.choice, golden)
        training = images.select([int(i) for i in features.index[embedded.training_rows]])
        view_features = tuple(
            extract(training, backbone, compute, cache=cache, view=view, progress=progress)
            for view in views(options.augmentation, options.views)
        )
        cache_notes = [] if cache is None else list(cache.notes)
    notes = (*images.notes, *opened.notes, *features.notes, *cache_notes)
    return replace(embedded, views=view_features, notes=notes)


@dataclass(frozen=True)
class OpenedImages:
    """What computes the features of images: the backbone and what runs it, and the options with the backbone's input.

    ``notes`` are lines about them that the user must see; the rest is that of ``EmbeddedImages``.
    """

    options: FitOptions
    backbone: Backbone
    compute: Compute
    notes: tuple[str, ...]
    scaling: InputScaling | None
    choice: PrecisionChoice | None = None

    def with_precision(self, images: Dataset, extract: Extract, cache: FeatureCache | None) -> OpenedImages:
        """Return the same in int8 where the precision is open, and int8 pays."""
        backbone, compute, choice = choose_precision(images, self.backbone, self.options, extract, cache)
        notes = (*self.notes, *(() if choice is None else choice.notes))
        return replace(self, backbone=backbone, compute=compute, notes=notes, choice=choice)


def open_images(images: Dataset, options: FitOptions) -> OpenedImages:
    """Open the backbone for the training images among ``images``. Raises HeadstartError."""
    training = images.split("train")
    sample_range, sample_notes = _sample_range(training)
    opened = open_backbone(
        options.backbone,
        options.input_options,
        options.head_options.taps or (),
        training,
        sample_range,
        precision=options.compute.precision,
    )
    options = replace(options, backbone=opened.id, input_options=opened.options)
    preprocess = replace(opened.backbone.preprocess, sample_range=sample_range, decode=options.decode)
    backbone = replace(opened.backbone, preprocess=preprocess)
    if opened.scaling is not None:
        sample_notes = [opened.scaling.note, *sample_notes]
    return OpenedImages(options, backbone, options.compute, (*backbone.notes, *sample_notes), opened.scaling)


def check_has_labels(dataset: Dataset) -> None:
    """Raise DataError for a dataset of unlabelled images, and for one of several labels an image."""
    dataset.require_one_label("this kind of fit")
    if not len(dataset):
        raise DataError("There are no images to learn from; give some of each class.")
    if not dataset.classes:
        mend = "; ".join(dataset.notes) or "put the images in one folder per class"
        raise DataError(f"{dataset.uri} has no labels to learn from; {mend.rstrip('.')}.")


def check_validation_share(dataset: Dataset, options: FitOptions) -> None:
    """Raise OptionError for a share to hold out of a dataset that has validation images."""
    count = sum(item.split == "validation" for item in dataset.items)
    if isinstance(options.validation, float | int) and count:
        raise OptionError(
            f"{dataset.uri} has {count} validation images of its own; leave out the share --validation "
            f"{options.validation}, or give the training images alone."
        )


def training_and_validation_images(dataset: Dataset, options: FitOptions) -> Dataset:
    """Return the training images and behind them the validation images, by the splits "train" and "validation".

    Raises DataError, OptionError.
    """
    train = dataset.split("train")
    if not len(train):
        raise DataError(f"{dataset.uri} has no training images; expected class folders, or train/ with them.")
    validation = options.validation
    if validation is None or isinstance(validation, float | int):
        validation_images = dataset.split("validation")
        check_validation_share(dataset, options)
    else:
        if isinstance(validation, Dataset):
            validation_images = validation
        else:  # its classes have the names that those of the training images had
            read_options = ReadOptions(multi_label=True) if dataset.is_multi_label else None
            validation_images = with_class_names(open_dataset(validation, read_options), dict(dataset.class_names))
        if not dataset.is_multi_label:
            validation_images.require_one_label("the validation of a model of one class an image")
        elif not validation_images.is_multi_label:
            raise DataError(
                f"{validation_images.uri} has one class an image, the training images several labels; give a table "
                "with the labels of each validation image."
            )
        if "validation" in validation_images.splits:
            validation_images = validation_images.split("validation")
    is_multi_label = dataset.is_multi_label
    unlabelled = sum((item.labels if is_multi_label else item.label) is None for item in validation_images.items)
    if unlabelled:
        raise DataError(
            f"{validation_images.uri} has {unlabelled} validation images without a label, which measure nothing; put "
            "them in one folder per class."
        )
    return concatenate(train, validation_images.with_split("validation")) if len(validation_images) else train


def _sample_range(training: Dataset) -> tuple[SampleRange | None, list[str]]:
    """Return the range of training images of more than 8 bits, and a note about it."""
    sample_range, count = measure_sample_range([item.path for item in training.items], training.read)
    if sample_range is None:
        return None, []
    low, high = sample_range
    note = (
        f"{count} training images have more than 8 bits: their values from {low:,g} to {high:,g} become black to "
        "white, here and in predictions."
    )
    return sample_range, [note]
