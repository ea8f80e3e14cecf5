"""headstart update"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.fit_labels import print_refit, refit_summary
from headstart.cli.options import (
    CONDITION_FAILED,
    DataArgument,
    JsonOption,
    Messages,
    ModelArgument,
    ReadFlags,
    StrictOption,
    common,
    run_option,
    save_memory,
)
from headstart.cli.terminal import line, print_json, print_notes, print_quarantined
from headstart.machine import quiet_frameworks


def update(
    model: ModelArgument,
    data: DataArgument,
    output: Annotated[
        Path | None,
        common("-o", "--output", metavar="NEW", help="Model folder to write; without it MODEL is replaced."),
    ] = None,
    mixed: Annotated[
        bool,
        common("--mixed", help="Allow another runtime, version or instruction set than that of the kept features."),
    ] = False,
    reading: ReadFlags = ReadFlags(),
    workers: Annotated[
        int | None, run_option(min=1, metavar="N", help="Number of threads; one per core by default.")
    ] = None,
    cache: Annotated[
        bool, run_option("--cache/--no-cache", help="Keep features on disk, and read those that are kept.")
    ] = True,
    as_json: JsonOption = False,
    strict: StrictOption = False,
    messages: Messages = Messages(),
) -> None:
    """Make the model that always had further images."""
    from contextlib import nullcontext

    from headstart.classifier.parts import open_kept
    from headstart.classifier.update import update_model
    from headstart.data import open_dataset
    from headstart.features import FeatureCache
    from headstart.model.folder_files import check_output_folder

    start = time.perf_counter()
    check_output_folder(model if output is None else output)
    kept = open_kept(Path(model))
    options = kept.run.get("options") or {}
    read = reading.read_options(str(options.get("group_by", "auto")))
    dataset = open_dataset(data, replace(read, multi_label=kept.features.source.is_multi_label or None))
    save_memory(len(dataset))
    with (
        quiet_frameworks(),
        messages.bar("Reading features") as bar,
        FeatureCache() if cache else nullcontext() as opened,
    ):
        done = update_model(Path(model), dataset, output, mixed=mixed, cache=opened, workers=workers, progress=bar)
    new = {item.path for item in dataset.items}
    unread = [image for image in done.result.model.run["images"]["quarantined"] if image["path"] in new]
    if as_json:
        print_json({**refit_summary(done.result, done.folder), "added": done.added})
    else:
        print(line(f"Added       {done.added:,} images"))
        print_refit(done.result, done.folder, time.perf_counter() - start)
    print_notes((*done.result.notes, *done.notes))
    print_quarantined(unread)
    if strict and unread:
        raise typer.Exit(CONDITION_FAILED)
