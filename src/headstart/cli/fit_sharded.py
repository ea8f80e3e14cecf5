"""headstart fit, where several workers compute the features"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from headstart.cli.fit_labels import print_refit, refit_summary, with_sources
from headstart.cli.options import CONDITION_FAILED, Messages
from headstart.cli.terminal import line, print_json, print_notes, print_quarantined
from headstart.errors import OptionError
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.classifier import FitOptions
    from headstart.classifier.embed_sharded import Where
    from headstart.cli.fit import DataFlags, FitFlags, FitRunOptions


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
    from headstart.classifier.fit_sharded import fit_sharded, forget_unfinished, unfinished_folder
    from headstart.model.folder_files import check_keeps_none, check_output_folder
    from headstart.scale.addresses import has_braces

    start = time.perf_counter()
    if flags.open_page:
        raise OptionError(
            "There is no report of a fit by several workers, who alone read the images; leave out --open."
        )
    if flags.output is None and has_braces(data):
        raise OptionError(f"A model of {data} needs a name; give one: -o MODEL.")
    output = flags.output_for(data)
    check_output_folder(output)
    if not (reading.keep_features or run.overwrite):
        check_keeps_none(output)
    unfinished = unfinished_folder(output)
    with quiet_frameworks(), messages.bar("Reading features") as bar:
        told = None if bar is None else lambda progress: bar(progress.images, progress.expected_images)
        read_options = reading.read_options(options.group_by)
        result = fit_sharded(data, unfinished, options, read_options, where, progress=told, log=messages.log)
    kept = result.kept if reading.keep_features else None
    result = replace(result, model=with_sources(result.model), kept=kept)
    folder = result.save(output, overwrite=run.overwrite)
    forget_unfinished(unfinished)
    quarantined = result.model.run["images"]["quarantined"]
    if flags.as_json:
        print_json(refit_summary(result, folder))
    else:
        print_refit(result, folder, time.perf_counter() - start, by_default=flags.backbone is None)
        if flags.report:
            print(line("Report      none: the images are read by the workers alone"))
    print_notes(result.notes)
    print_quarantined(quarantined)
    if run.strict and quarantined:
        raise typer.Exit(CONDITION_FAILED)
