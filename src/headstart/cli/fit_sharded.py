"""headstart fit, where several workers compute the features"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cli.fit_labels import finish_fit, print_refit, refit_summary, with_sources
from headstart.cli.options import Messages
from headstart.cli.terminal import print_notes
from headstart.errors import HeadstartError, OptionError, shell_word
from headstart.machine import one_at_a_time, quiet_frameworks

if TYPE_CHECKING:
    from headstart.classifier import FitOptions
    from headstart.classifier.embed_sharded import Where
    from headstart.cli.fit import DataFlags, FitFlags, FitRunOptions
    from headstart.data import Dataset


def check_holds_images(data: str) -> None:
    """Raise OptionError for a folder of features, of which a model is made by ``merge``."""
    from headstart.features.rows_folder import is_rows_folder

    if is_rows_folder(Path(data)):
        raise OptionError(
            f"{data} holds features, not images; make a model of it: headstart merge {shell_word(data)} -o MODEL"
        )


def check_classes(output: Path, images: Dataset) -> None:
    """Raise OptionError where a folder holds a model of other classes than images have."""
    from headstart.model.folder_files import check_same_classes

    classes = images.label_names or {str(item.label) for item in images.split("train").items}
    check_same_classes(output, {*classes}, are_final=False)


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make a folder for what is computed, in which one process at a time works.

    Where the work fails, empty folders in it are removed. Raises OptionError where another process works
    there, or where nothing can be written, OSError.
    """
    from headstart.classifier.embed_folder import make_folder

    new = [path for path in (folder, *folder.absolute().parents) if not os.path.lexists(path)]
    make_folder(folder)
    with one_at_a_time(folder):
        try:
            yield
        except BaseException:
            for path in (*sorted(folder.rglob("*"), reverse=True), *new):
                with suppress(OSError):  # it is a file, or not empty
                    path.rmdir()
            raise


@contextmanager
def naming_unfinished(folder: Path) -> Iterator[None]:
    """Say where that lies which was computed, when the work behind it fails."""
    try:
        yield
    except (HeadstartError, OSError):
        if any(path.is_file() for path in folder.rglob("*")):
            print_notes([f"What was computed is in {folder}; the corrected command goes on there, or delete it."])
        raise


def forget_where_complete(folder: Path, missing: int, forget: Callable[[Path], None]) -> None:
    """Delete what was computed behind what was made of it, but where shards are missing, say that it is kept."""
    if missing:
        print_notes([f"What was computed is kept in {folder} until all shards are there; or delete it."])
    else:
        forget(folder)
        if os.path.lexists(folder):
            print_notes([f"{folder} stays, since it holds files that no fit has written; move them elsewhere."])


def fit_by_workers(
    data: str,
    reading: DataFlags,
    options: FitOptions,
    flags: FitFlags,
    messages: Messages,
    run: FitRunOptions,
    where: Where,
) -> None:
    """Fit to features that workers compute, write the model, and print what was found. Raises HeadstartError."""
    from headstart.classifier.fit_sharded import check_unfinished, fit_sharded, forget_unfinished, unfinished_folder
    from headstart.classifier.shown_images import NOT_AGAIN, is_fetched
    from headstart.model.folder_files import check_keeps_none, check_output_folder
    from headstart.scale.addresses import has_braces

    start = time.perf_counter()
    check_holds_images(data)
    if flags.output is None and has_braces(data):
        raise OptionError(f"A model of {data} needs a name; give one: -o MODEL.")
    output = flags.output_for(data)
    check_output_folder(output)
    if not (reading.keep_features or run.overwrite):
        check_keeps_none(output)
    unfinished = unfinished_folder(output)
    check_unfinished(unfinished)  # before what names it as a place of ours

    def check(images: Dataset, are_all: bool) -> None:
        if are_all and not run.overwrite:
            check_classes(output, images)

    with working_in(unfinished):
        with naming_unfinished(unfinished):
            with quiet_frameworks(), messages.bar("Reading features") as bar:
                told = None if bar is None else lambda progress: bar(progress.images, progress.expected_images)
                read_options = reading.read_options(options.group_by)
                result, embedded = fit_sharded(
                    data, unfinished, options, read_options, where, check=check, progress=told, log=messages.log
                )
            kept = result.kept if reading.keep_features else None
            result = replace(result, model=with_sources(result.model), kept=kept)
            folder = result.save(output, overwrite=run.overwrite)
        forget_where_complete(unfinished, embedded.missing, forget_unfinished)
    if not flags.as_json:
        print_refit(result, folder, time.perf_counter() - start, by_default=flags.backbone is None)
    if flags.report and has_braces(data) and is_fetched(data):
        print_notes([NOT_AGAIN])
    # Workers have no cache, and the report of what they computed fills none.
    finish_fit(result, refit_summary(result, folder), replace(options, cache=False), flags, run)
