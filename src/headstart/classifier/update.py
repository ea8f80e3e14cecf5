"""Add images: a model that keeps features becomes the one of a fit that always had some more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from headstart.classifier.embedded import check_has_labels
from headstart.classifier.kept_rows import describe_source, with_dataset
from headstart.classifier.options import FitOptions
from headstart.classifier.parts import KeptModel, open_kept, refit, save_anew
from headstart.classifier.refit import AnyFitResult
from headstart.classifier.rendered_golden import rendered_features
from headstart.data import Dataset
from headstart.data.class_names import with_class_names
from headstart.errors import DataError, OptionError
from headstart.features import Compute, FeatureCache, Features, embed
from headstart.features.features import Progress
from headstart.features.image_rows import load_backbone, rows_of, unread_of
from headstart.features.rows import FeatureRows, merge
from headstart.images.samples import measure_sample_range


@dataclass(frozen=True)
class Updated:
    """What ``update_model`` did: the new model, how many images it did not have before, and lines for the user."""

    result: AnyFitResult
    folder: str
    added: int
    notes: tuple[str, ...]


def update_model(
    folder: Path,
    dataset: Dataset,
    output: Path | None = None,
    *,
    mixed: bool = False,
    cache: FeatureCache | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Updated:
    """Fit a model anew with further labelled images, by its own backbone, runtime and options.

    The model is replaced in one step, or left where it is and written to ``output``. With ``mixed`` the new features
    may come from another machine than those that are kept. ``progress(done, total)`` counts new images. Raises
    OptionError for a model that keeps no features, and for images that need another preparation; HeadstartError.
    """
    model = open_kept(folder, workers)
    _check_validation(model, dataset)
    if not model.features.source.is_multi_label:
        check_has_labels(dataset)
    elif not dataset.is_multi_label:
        raise DataError(f"{folder} has several labels an image, {dataset.uri} one class; give a table of labels.")
    dataset = with_class_names(dataset, dict(model.features.source.class_names))
    new, computed = _embed(model, dataset, cache, workers, progress)
    merged = merge([model.features, new], [str(folder), dataset.uri], mixed=mixed)
    result = refit(model, merged, forgotten=model.forgotten if model.forgotten["images"] else None)
    run = {**result.model.run, "cache": {"hits": computed.hits, "misses": computed.misses}}
    result = replace(result, model=replace(result.model, run=run))
    saved = save_anew(model, result, output)
    added = len({*new.rows.hashes} - {*model.features.rows.hashes})
    notes = []
    for name in result.model.classes:
        if name not in model.classes:
            count = sum(name in (item.labels or (item.label,)) for item in dataset.items)
            what = "label" if dataset.is_multi_label else "class"
            notes.append(f"{name} is a new {what}, of {count:,} images.")
    if known := len({*new.rows.hashes}) - added:
        notes.append(f"{known:,} of the images were part of the model before.")
    if model.has_report:
        notes.append("The new model has no report, which would need all images.")
    return Updated(result, saved, added, tuple(notes))


def _check_validation(model: KeptModel, dataset: Dataset) -> None:
    """Raise OptionError for validation images of a model that holds out a share of its training images instead."""
    options = model.run.get("options")
    share = options.get("validation") if isinstance(options, dict) else None
    count = sum(item.split == "validation" for item in dataset.items)
    if share is not None and count:
        raise OptionError(
            f"{dataset.uri} has {count} validation images, and {model.folder} was fitted with a share to hold out of "
            f"its training images instead, --validation {share}; give the training images alone, or fit all images "
            "again."
        )


def _embed(
    model: KeptModel, dataset: Dataset, cache: FeatureCache | None, workers: int | None, progress: Progress | None
) -> tuple[FeatureRows, Features]:
    """Compute the features of new images as those of the model were computed, and make rows of them."""
    source = model.features.source
    training = dataset.split("train")
    found, _ = measure_sample_range([item.path for item in training.items], training.read)
    known = source.preprocess.sample_range
    if found is not None and not (known is not None and known[0] <= found[0] and found[1] <= known[1]):
        raise OptionError(
            f"{dataset.uri} has images of more than 8 bits with values from {found[0]:g} to {found[1]:g}, for which "
            f"{model.folder} has {'no range' if known is None else f'the range {known[0]:g} to {known[1]:g}'}; fit all "
            "images again."
        )
    runtime = source.machines[0].runtime
    compute = Compute(runtime.name, runtime.precision, workers)
    backbone = load_backbone(source)
    features = embed(dataset, backbone, compute, cache=cache, progress=progress)
    golden = rendered_features(backbone, compute, embed)
    options = FitOptions(source.backbone["id"], source.input_options, compute=compute)
    own = describe_source(backbone, options, features.runtime, golden)
    own = with_dataset(own, dataset, (*dataset.notes, *features.notes), unread_of(features, dataset))
    own = replace(own, backbone=source.backbone, class_names=source.class_names)
    return FeatureRows(own, rows_of(features, dataset, own)), features
