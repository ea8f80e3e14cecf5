"""A model from statistics alone, without a row of an image: a head and an OOD detector, and nothing is measured."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones import Backbone
from headstart.classifier.make_model import rendered_golden
from headstart.classifier.options import FitOptions
from headstart.classifier.run_info import MAX_NAMED, backbone_used, versions
from headstart.data.dataset import paths_by_reason
from headstart.errors import OptionError
from headstart.features.image_rows import load_backbone
from headstart.features.statistics_folder import (
    StatisticsPart,
    is_statistics_folder,
    merge_statistics,
    read_statistics,
    said_of,
)
from headstart.heads.from_statistics import StatisticsFit, fit_statistics
from headstart.machine import single_threaded_blas
from headstart.model.compose import compose
from headstart.model.folder import write_model
from headstart.model.golden import make_golden
from headstart.model.metadata import graph_metadata
from headstart.model.model import Model, describe_backbone
from headstart.stats.conformal import NOT_MEASURED, ConformalThresholds


@dataclass(frozen=True)
class StatisticsResult:
    """Result of a fit to statistics. ``notes`` are lines that the user must see."""

    model: Model
    notes: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> str:
        """Write the model folder and return its path; ``overwrite`` replaces a model of other data, too.

        Raises OptionError, ModelError.
        """
        return str(write_model(self.model, folder, self.left_out, overwrite=overwrite))


def read_statistics_parts(paths: Sequence[Path], *, mixed: bool = False) -> StatisticsPart | None:
    """Read parts and add them up; None where none of them is a folder of statistics.

    Raises OptionError for a mix of statistics and rows, for parts that were not computed alike and for one that is
    given twice, DataError.
    """
    is_summed = [is_statistics_folder(path) for path in paths]
    if not any(is_summed):
        return None
    if not all(is_summed):
        one, other = paths[is_summed.index(True)], paths[is_summed.index(False)]
        raise OptionError(
            f"{one} has statistics alone and {other} has not: compute that with --statistics too, or {one} without."
        )
    names = [str(path) for path in paths]
    return merge_statistics((read_statistics(path) for path in paths), names, mixed=mixed)


def fit_to_statistics(part: StatisticsPart, options: FitOptions) -> StatisticsResult:
    """Fit a model to statistics. It depends on them and on the options alone.

    Of ``options`` those count that statistics can obey: the cut, the dropout rate, version and author. Raises
    OptionError for others, DataError, BackboneError.
    """
    start = time.perf_counter()
    check_options_of_statistics(options)
    source, taps = part.source, options.head_options.taps
    of_taps = part.of_taps if taps is None else part.of_taps.select(taps)
    with single_threaded_blas():
        fit = fit_statistics(of_taps, options.dropout)
    backbone, machine = load_backbone(source), source.machines[0]
    thresholds = ConformalThresholds.not_measured(options.coverage, len(part.classes), options.false_alarms)
    graph = compose(
        backbone, fit.head, fit.ood, None, graph_metadata(part.classes, backbone.preprocess, thresholds, None)
    )
    images = rendered_golden(machine.golden, (fit.head, fit.ood), backbone.preprocess, machine.runtime.precision)
    model = Model(
        part.classes,
        backbone.preprocess,
        {**describe_backbone(backbone), "id": source.backbone["id"]},
        fit.head,
        fit.ood,
        thresholds,
        graph,
        hashlib.sha256(graph).hexdigest(),
        backbone.batch,
        make_golden(graph, backbone.preprocess, backbone.batch, images),
        _run_info(part, fit, backbone, options, time.perf_counter() - start),
    )
    notes = [f"Not summed: {said_of(part.left_out)}."] if part.left_out else []
    skipped = tuple((item.path, item.reason) for item in source.skipped)
    unread = tuple((image.path, image.reason) for image in source.unread)
    return StatisticsResult(model, (*source.notes, *notes, NOT_MEASURED), (*skipped, *unread))


def check_options_of_statistics(options: FitOptions) -> None:
    """Raise OptionError for options of a fit that need more than statistics."""
    given = {
        f"--head {options.head}": options.head not in ("auto", "ridge"),
        "--validation": options.validation is not None,
        "--group-by": options.group_by != "auto",
        "--class-weight": options.class_weight is not None,
        "--costs": options.costs is not None,
        "--threshold": options.thresholds is not None,
        "--target-recall": options.target_recall is not None,
        "--target-precision": options.target_precision is not None,
        "--coverage": options.coverage != FitOptions.coverage,
        "--false-alarms": options.false_alarms != FitOptions.false_alarms,
    }
    names = [name for name, is_given in given.items() if is_given]
    if names:
        raise OptionError(
            f"{' and '.join(names)} cannot be kept by a model of statistics, from which nothing can be measured and "
            "only a ridge head be solved; leave it out, or compute the features without --statistics."
        )


def _run_info(
    part: StatisticsPart, fit: StatisticsFit, backbone: Backbone, options: FitOptions, seconds: float
) -> dict[str, Any]:
    """Return what ``run.json`` holds: how the model was made. What is not measured is None, or empty."""
    source, head = part.source, fit.head
    skipped = paths_by_reason(source.skipped)
    counts = part.of_taps.statistics.counts.tolist()
    return {
        "version": options.model_version,
        "author": options.author,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "classes": [*part.classes],
        "images": {
            "train": part.images,
            "validation": 0,
            "quarantined": [{"path": image.path, "reason": image.reason} for image in source.unread],
            "skipped": {reason: len(paths) for reason, paths in skipped.items()},
            "skipped_files": {reason: paths[:MAX_NAMED] for reason, paths in skipped.items()},
            "layout": source.layout,
            "by_class": dict(zip(part.classes, counts, strict=True)),
            "not_summed": dict(part.left_out),
        },
        "measured": False,
        "groups": {"count": None, "largest": None, "method": "not measured"},
        "backbone": backbone_used(backbone, None),
        "cut": list(head.taps),
        "head": {"kind": head.kind, **head.settings, "temperature": head.temperature},
        "runtime": source.machines[0].runtime.to_dict(),
        "accuracy": {},
        "metrics": {},
        "weak_classes": {},
        "learning_curve": None,
        "seconds": {"total": seconds, "decode": 0.0, "features": 0.0, "head": seconds},
        "cache": {"hits": 0, "misses": 0},
        "generalised_cross_validation": [
            {"penalty": penalty, "squared_error": error if np.isfinite(error) else None}
            for penalty, error in fit.criterion.items()
        ],
        "data": {
            "uri": source.uri,
            "fingerprint": f"{part.fingerprint:064x}"[-16:],
            "class_names": dict(source.class_names),
        },
        "versions": versions(),
    }
