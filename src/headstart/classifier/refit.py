"""Fit to kept rows, and record the options, so that the fit can be repeated with other rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.classifier.class_settings import ClassSettings
from headstart.classifier.embedded import EmbeddedImages
from headstart.classifier.fit import FitResult, fit_rows
from headstart.classifier.fit_labels import MultiLabelFitResult, fit_label_rows
from headstart.classifier.kept_rows import embedded_from, keep_rows
from headstart.classifier.options import FitOptions
from headstart.errors import ImageError, ModelError, OptionError, untrusted
from headstart.features import Compute
from headstart.features.rows import FeatureRows

logger = logging.getLogger(__name__)

# Of FitOptions: what is not here is known from the rows, or changes nothing in a fit to them.
RECORDED = (
    "cut",
    "head",
    "dropout",
    "group_by",
    "coverage",
    "false_alarms",
    "seed",
    "model_version",
    "author",
    "decode",
)
OF_LABELS = ("target_recall", "target_precision")  # recorded where images have several labels
AnyFitResult = FitResult | MultiLabelFitResult


def fit_features(
    features: FeatureRows,
    options: FitOptions,
    settings: ClassSettings | None = None,
    *,
    embedded: EmbeddedImages | None = None,
    start: float | None = None,
    log: Callable[[str], None] = logger.info,
) -> AnyFitResult:
    """Fit a classifier to kept rows, which the result keeps as well. No image is needed.

    The rows are in the order of ``Rows.in_order``, and the result depends on them and on the options alone. ``options``
    are those of ``fit_dataset``; those that say how features are computed are not used. ``settings`` are what is set
    for the classes (None: what the options say); ``embedded`` is what ``embedded_from`` returns, where it is known.
    Raises HeadstartError.
    """
    is_multi_label = features.source.is_multi_label
    if is_multi_label:
        options.require_multi_label_options()
        settings = ClassSettings()
    else:
        options.require_single_label_options()
    embedded = embedded_from(features, options) if embedded is None else embedded
    settings = options.class_settings(embedded.dataset) if settings is None else settings
    result: AnyFitResult
    if is_multi_label:
        result = fit_label_rows(embedded, start=start)
    else:
        result = fit_rows(embedded, settings, start=start, log=log)
    recorded = options_to_dict(options, settings)
    if is_multi_label:
        recorded |= {name: getattr(options, name) for name in OF_LABELS}
    run = {**result.model.run, "options": recorded}
    return replace(result, model=replace(result.model, run=run), kept=features)


def fit_and_keep(
    embedded: EmbeddedImages,
    settings: ClassSettings | None,
    *,
    start: float,
    log: Callable[[str], None] = logger.info,
) -> AnyFitResult:
    """Fit to images as ``fit_features`` does to their rows, which the result keeps. Raises HeadstartError."""
    features, images, dataset = keep_rows(embedded), embedded.features, embedded.dataset
    places = {(bytes(images.content_hashes[n]), dataset.items[i].path): int(i) for n, i in enumerate(images.index)}
    rows = features.rows
    # The last one is of images that could not be read.
    of_row = [places[content_hash, path] for content_hash, path in zip(rows.hashes, rows.paths, strict=True)] + [-1]

    def read(key: int) -> bytes | NDArray[np.uint8]:
        if of_row[key] < 0:
            raise ImageError("It could not be read when its features were computed.")
        return dataset.read(of_row[key])

    kept = embedded_from(features, embedded.options, embedded.backbone, read)
    measured = replace(kept.features, hits=images.hits, misses=images.misses, seconds=images.seconds)
    kept = replace(
        kept,
        dataset=replace(kept.dataset, folder=dataset.folder),
        features=measured,
        scaling=embedded.scaling,
        precision_choice=embedded.precision_choice,
    )
    return fit_features(features, embedded.options, settings, embedded=kept, start=start, log=log)


def options_to_dict(options: FitOptions, settings: ClassSettings) -> dict[str, Any]:
    """Return what ``run.json`` holds of the options of a fit, to repeat it with other rows."""
    share = options.validation if isinstance(options.validation, float | int) else None
    return {
        **{name: getattr(options, name) for name in RECORDED},
        "cut": options.cut if isinstance(options.cut, str) else list(options.cut),
        "validation": share,
        "class_weight": settings.weights,
        "costs": settings.costs,
        "thresholds": settings.thresholds,
        "costs_source": settings.source,
    }


def options_from_dict(
    value: Mapping[str, Any], classes: Collection[str], compute: Compute
) -> tuple[FitOptions, ClassSettings]:
    """Return the options of a fit from the form of ``options_to_dict``, which may come from anyone.

    What was set for classes that are not among ``classes`` is left out. Raises ModelError.
    """
    with untrusted("run.json: options", ModelError):
        given = {name: value[name] for name in (*RECORDED, "validation")}
        given |= {name: value.get(name) for name in OF_LABELS}
        if not isinstance(given["cut"], str):
            given["cut"] = tuple(map(str, given["cut"]))
        weights, costs, thresholds = value["class_weight"], value["costs"], value["thresholds"]
        if isinstance(weights, dict):
            weights = {name: weight for name, weight in weights.items() if name in classes}
        elif weights not in (None, "balanced"):
            raise ValueError(f"class_weight is {str(weights)[:40]!r}")
        if costs is not None:
            costs = {
                t: {p: cost for p, cost in row.items() if p in classes} for t, row in costs.items() if t in classes
            }
        if thresholds is not None:
            thresholds = {name: number for name, number in thresholds.items() if name in classes} or None
        try:
            options = FitOptions(**given, compute=compute)
            settings = ClassSettings.of(weights, costs, thresholds, classes)
        except OptionError as error:
            raise ModelError(f"run.json: the options of the fit cannot be used: {error}") from None
        return options, replace(settings, source=str(value["costs_source"]))
