"""``headstart fit --on``: a fit to features that several workers compute."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from headstart.classifier.embed_sharded import Where, embed_sharded
from headstart.classifier.kept_rows import check_options
from headstart.classifier.options import FitOptions
from headstart.classifier.parts import merge_parts
from headstart.classifier.refit import AnyFitResult, fit_features
from headstart.data import ReadOptions
from headstart.errors import OptionError
from headstart.scale.run import Progress

logger = logging.getLogger(__name__)


def unfinished_folder(output: Path) -> Path:
    """Return where the features of a model lie until it is written: beside it, where every worker can write."""
    return output.resolve().with_name(f".{output.resolve().name}.unfinished")


def fit_sharded(
    uri: str,
    folder: Path,
    options: FitOptions,
    reading: ReadOptions,
    where: Where,
    *,
    progress: Callable[[Progress], None] | None = None,
    log: Callable[[str], None] = logger.info,
) -> AnyFitResult:
    """Fit a classifier to the images at a path, URL or pattern of archives, whose features several workers compute.

    The features go into ``folder``, which is deleted by ``forget_unfinished``; a fit that is stopped goes on from those
    that are there. The model is the same for any number and kind of workers: that of ``fit_dataset``, or of
    ``fit_multi_label``, with ``keep_features``. ``options.validation`` is None or a share. The others are those of
    ``embed_sharded``. Raises HeadstartError, OSError.
    """
    check_options(options)
    if isinstance(options.validation, str):
        raise OptionError(
            f"--validation {options.validation} cannot be read by workers; give a share, or put the validation images "
            "into DATA as a split of their own."
        )
    start = time.perf_counter()
    embedded = embed_sharded(uri, folder, options, reading, where, progress=progress)
    features = merge_parts([folder])
    options = replace(options, decode=features.source.preprocess.decode)
    result = fit_features(features, options, start=start, log=log)
    run = {**result.model.run, "cache": {**result.model.run["cache"], "misses": embedded.rows}}
    return replace(result, model=replace(result.model, run=run))


def forget_unfinished(folder: Path) -> None:
    """Delete the features that a fit by workers has left, once its model is written."""
    shutil.rmtree(folder)
