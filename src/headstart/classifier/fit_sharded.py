"""``headstart fit --on``: a fit to features that several workers compute."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from headstart.classifier.embed_folder import EmbeddedFolder
from headstart.classifier.embed_sharded import Where, embed_sharded
from headstart.classifier.embedded import check_has_labels, check_validation_share
from headstart.classifier.kept_rows import check_options, embedded_from
from headstart.classifier.options import FitOptions
from headstart.classifier.parts import merge_parts
from headstart.classifier.refit import AnyFitResult, fit_features
from headstart.classifier.shown_images import shown_images
from headstart.data import Dataset, ReadOptions
from headstart.data.class_values import read_costs, read_weights
from headstart.errors import OptionError
from headstart.features.rows_folder import foreign_to_rows
from headstart.scale.run import Progress

logger = logging.getLogger(__name__)


def unfinished_folder(output: Path) -> Path:
    """Return where the features of a model lie until it is written: beside it, where every worker can write."""
    return output.resolve().with_name(f".{output.resolve().name}.unfinished")


def check_unfinished(folder: Path) -> None:
    """Raise OptionError where the folder of the features has anything else, which would not be ours to delete."""
    others = foreign_to_rows(folder) if os.path.lexists(folder) else []
    if others:
        what = "is something else" if others == [folder] else f"holds something else ({others[0].name})"
        raise OptionError(
            f"{folder} is for the features of a fit that is not finished, and {what}; move that elsewhere, or give "
            "another name for the model."
        )


def fit_sharded(
    uri: str,
    folder: Path,
    options: FitOptions,
    reading: ReadOptions,
    where: Where,
    *,
    check: Callable[[Dataset, bool], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
    log: Callable[[str], None] = logger.info,
) -> tuple[AnyFitResult, EmbeddedFolder]:
    """Fit a classifier to the images at a path, URL or pattern of archives, and say what workers have computed for it.

    The features go into ``folder``, which is deleted by ``forget_unfinished``; a fit that is stopped goes on from those
    that are there. The model is the same for any number and kind of workers: that of ``fit_dataset``, or of
    ``fit_multi_label``, with ``keep_features``; a report of it reads those images that it shows (``shown_images``).
    ``options.validation`` is None or a share. The others are those of
    ``embed_sharded``; options that do not suit the data are refused before the work, as ``check`` may refuse these.
    Raises HeadstartError, OSError.
    """
    check_options(options)
    if isinstance(options.validation, str):
        raise OptionError(
            f"--validation {options.validation} cannot be read by workers; give a share, or put the validation images "
            "into DATA as a split of their own."
        )

    listed: Dataset | None = None

    def check_all(images: Dataset, are_all: bool) -> None:
        nonlocal listed
        listed = images if are_all else None
        _check(images, are_all, options)
        if check is not None:
            check(images, are_all)

    start = time.perf_counter()
    embedded = embed_sharded(uri, folder, options, reading, where, check=check_all, progress=progress)
    features = merge_parts([folder])
    options = replace(options, decode=features.source.preprocess.decode)
    images = embedded_from(features, options, reader=shown_images(uri, reading, listed, features.rows))
    result = fit_features(features, options, embedded=images, start=start, log=log)
    found = embedded.found_rows
    run = {**result.model.run, "cache": {"hits": found, "misses": embedded.rows - found}}
    return replace(result, model=replace(result.model, run=run)), embedded


def _check(images: Dataset, are_all: bool, options: FitOptions) -> None:
    """Raise OptionError, DataError where the options do not suit the images, as far as these are known."""
    check_validation_share(images, options)
    if images.is_multi_label:
        options.require_multi_label_options()
    else:
        options.require_single_label_options()
        for file, read in ((options.costs, read_costs), (options.class_weight, read_weights)):
            if isinstance(file, str | os.PathLike) and file != "balanced":
                read(os.fspath(file))  # of a pattern the classes are not known yet
        if are_all:
            check_has_labels(images)
            options.class_settings(images.select(i for i, item in enumerate(images.items) if item.label is not None))


def forget_unfinished(folder: Path) -> None:
    """Delete the features of a fit by workers, once its model is written, and nothing that others have put there."""
    others = foreign_to_rows(folder)
    for path in {*folder.iterdir()}.difference(others):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # it is not empty
        folder.rmdir()
