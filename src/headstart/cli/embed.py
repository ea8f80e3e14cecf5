"""headstart embed"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.fit import DecodeFlags
from headstart.cli.fit_sharded import forget_where_complete, naming_unfinished
from headstart.cli.input_flags import InputFlags
from headstart.cli.options import (
    BACKBONE_HELP,
    CONDITION_FAILED,
    DEFAULT_BACKBONE,
    CachedRunOptions,
    DataArgument,
    JsonOption,
    Messages,
    StrictOption,
    common,
    save_memory,
)
from headstart.cli.terminal import counted, line, print_json, print_notes, print_quarantined
from headstart.cli.worker_flags import WorkerFlags
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.classifier import FitOptions
    from headstart.data import Dataset


def embed(
    data: DataArgument,
    output: Annotated[Path, common("-o", "--output", metavar="FOLDER", help="Folder of features to write.")],
    backbone: Annotated[str, common(metavar="ID", help=BACKBONE_HELP)] = DEFAULT_BACKBONE,
    cut: Annotated[
        str, common(metavar="TAPS", help="Further taps, with commas; auto: those of the backbone.")
    ] = "auto",
    group_by: Annotated[str, common(metavar="COLUMN", help="Column of a table that names groups to keep.")] = "auto",
    statistics: Annotated[
        bool,
        common("--statistics", help="Write sums over the images, no features of any single one; of the deepest tap."),
    ] = False,
    reading: DecodeFlags = DecodeFlags(),
    input_flags: InputFlags = InputFlags(),
    as_json: JsonOption = False,
    strict: StrictOption = False,
    run: CachedRunOptions = CachedRunOptions(),
    sharing: WorkerFlags = WorkerFlags(),
    messages: Messages = Messages(),
) -> None:
    """Write the features of images, to fit later without them."""
    from headstart.classifier import FitOptions
    from headstart.classifier.embed_folder import EmbeddedFolder, embed_to_folder
    from headstart.classifier.embed_sharded import embed_sharded
    from headstart.data import open_dataset

    options = FitOptions(
        backbone=backbone,
        input_options=input_flags.input_options,
        cut=cut,
        group_by=group_by,
        compute=run.compute,
        cache=run.cache,
        decode=reading.decode,
    )
    result: EmbeddedFolder
    where = sharing.where(data, run.workers)
    rows = _place_of_rows(output) if statistics else output
    check = _require_one_label if statistics else None
    if where is not None:
        with quiet_frameworks(), messages.bar("Reading features") as bar:
            told = None if bar is None else lambda progress: bar(progress.images, progress.expected_images)
            result = embed_sharded(
                data, rows, options, reading.read_options(group_by), where, check=check, progress=told
            )
    else:
        dataset = open_dataset(data, reading.read_options(group_by))
        if check is not None:
            check(dataset)
        save_memory(len(dataset))
        with quiet_frameworks(), messages.bar("Reading features") as bar:
            result = embed_to_folder(dataset, rows, options, progress=bar)
    unread = [{"path": image.path, "reason": image.reason} for image in result.source.unread]
    summed = _sum(rows, output, options) if statistics else None
    if as_json and summed is not None:
        print_json({"statistics": str(output), **summed, "quarantined": unread})
    elif summed is not None:
        what = f"{counted(summed['images'], 'image')} in {len(summed['classes'])} classes"
        print(line(f"Statistics  {what}, {summed['bytes'] / 1e6:.1f} MB: {output}"))
        print(line(f"To fit:     headstart merge {output} -o MODEL"))
    elif as_json:
        value = {"images": result.rows, "bytes": result.bytes, "shards": result.shards, "found": result.found}
        source = {"backbone": dict(result.source.backbone), "taps": result.source.channels}
        print_json({"features": str(output), **value, **source, "quarantined": unread})
    else:
        found = f", {result.found} of them there before" if result.found else ""
        shards = f"{counted(result.shards, 'shard')}{found}"
        print(line(f"Features    {result.rows:,} images in {shards}, {result.bytes / 1e6:.1f} MB: {output}"))
        print(line(f"To fit:     headstart merge {output} -o MODEL"))
    print_notes(result.notes)
    if statistics:
        forget_where_complete(rows, result.missing)
    print_quarantined(unread)
    if strict and unread:
        raise typer.Exit(CONDITION_FAILED)


def _require_one_label(images: Dataset, _: bool = True) -> None:
    """Raise DataError for images of several labels, of which nothing is summed."""
    images.require_one_label("--statistics")


def _place_of_rows(output: Path) -> Path:
    """Return where features lie until they are summed: beside the statistics. Raises OptionError."""
    from headstart.classifier.fit_sharded import unfinished_folder
    from headstart.features.statistics_folder import check_replaceable

    check_replaceable(output)
    return unfinished_folder(output)


def _sum(rows: Path, output: Path, options: FitOptions) -> dict[str, Any]:
    """Sum the rows in a folder and write the statistics. Raises HeadstartError, OSError."""
    from headstart.features.statistics_folder import sum_folder, write_statistics

    with naming_unfinished(rows):
        part = sum_folder(rows, options.head_options.taps)
        size = write_statistics(output, part)
    counts = dict(zip(part.classes, part.of_taps.statistics.counts.tolist(), strict=True))
    taps = {tap: len(exponents) for tap, exponents in part.of_taps.taps.items()}
    about = {"images": part.images, "bytes": size, "classes": counts, "not_summed": dict(part.left_out)}
    return {**about, "backbone": dict(part.source.backbone), "taps": taps}
