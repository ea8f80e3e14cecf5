"""headstart embed"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.fit import DecodeFlags
from headstart.cli.fit_sharded import forget_where_complete, naming_unfinished, working_in
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
from headstart.errors import shell_word
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.classifier import FitOptions
    from headstart.classifier.embed_sharded import Where
    from headstart.data import Dataset, ReadOptions
    from headstart.features.rows import Source
    from headstart.scale.run import Progress


def embed(
    data: DataArgument,
    output: Annotated[Path, common("-o", "--output", metavar="FOLDER", help="Folder of features to write.")],
    backbone: Annotated[str, common(metavar="ID", help=BACKBONE_HELP)] = DEFAULT_BACKBONE,
    cut: Annotated[
        str, common(metavar="TAPS", help="Taps besides those of the backbone, with commas; auto: none.")
    ] = "auto",
    group_by: Annotated[
        str, common(metavar="COLUMN", help="Column of a table whose groups are kept; auto: group, group_id or scene.")
    ] = "auto",
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
    from headstart.classifier.embed_folder import EmbeddedFolder, check_folder, embed_to_folder
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
    read_options = reading.read_options(group_by)
    where = sharing.where(data, run.workers)
    if statistics:
        unread = _embed_statistics(data, output, options, read_options, where, messages, as_json)
    else:
        result: EmbeddedFolder
        check_folder(output, options)
        with working_in(output), quiet_frameworks(), messages.bar("Reading features") as bar:
            if where is not None:
                result = embed_sharded(data, output, options, read_options, where, progress=_told(bar))
            else:
                dataset = open_dataset(data, read_options)
                save_memory(len(dataset))
                result = embed_to_folder(dataset, output, options, progress=bar)
        unread = _unread(result.source)
        if as_json:
            value = {"images": result.rows, "bytes": result.bytes, "shards": result.shards, "found": result.found}
            source = {"backbone": dict(result.source.backbone), "taps": result.source.channels}
            print_json({"features": str(output), **value, **source, "quarantined": unread})
        else:
            found = f", {result.found} of them there before" if result.found else ""
            shards = f"{counted(result.shards, 'shard')}{found}"
            print(line(f"Features    {result.rows:,} images in {shards}, {result.bytes / 1e6:.1f} MB: {output}"))
            print(line(f"To fit:     headstart merge {shell_word(output)} -o MODEL"))
        print_notes(result.notes)
    print_quarantined(unread)
    if strict and unread:
        raise typer.Exit(CONDITION_FAILED)


def _embed_statistics(
    data: str,
    output: Path,
    options: FitOptions,
    read_options: ReadOptions,
    where: Where | None,
    messages: Messages,
    as_json: bool,
) -> list[dict[str, str]]:
    """Sum the features of images, write the sums and print what they hold; return the images that cannot be read."""
    from headstart.classifier.embed_statistics import (
        check_unfinished,
        forget_sums,
        sum_dataset,
        sum_sharded,
        unfinished_sums,
    )
    from headstart.data import open_dataset
    from headstart.features.statistics_folder import check_replaceable, write_statistics

    check_replaceable(output)
    unfinished = unfinished_sums(output)
    check_unfinished(unfinished)  # before what names it as a place of ours
    with working_in(unfinished):
        with naming_unfinished(unfinished):
            with quiet_frameworks(), messages.bar("Reading features") as bar:
                if where is not None:
                    result = sum_sharded(
                        data, unfinished, options, read_options, where, check=_require_one_label, progress=_told(bar)
                    )
                else:
                    dataset = open_dataset(data, read_options)
                    _require_one_label(dataset)
                    save_memory(len(dataset))
                    result = sum_dataset(dataset, unfinished, options, progress=bar)
            part = result.part
            size = write_statistics(output, part)
        forget_where_complete(unfinished, result.missing, forget_sums)
    unread = _unread(part.source)
    counts = dict(zip(part.classes, part.of_taps.statistics.counts.tolist(), strict=True))
    if as_json:
        value = {"images": part.images, "bytes": size, "classes": counts, "not_summed": dict(part.left_out)}
        taps = {tap: len(exponents) for tap, exponents in part.of_taps.taps.items()}
        source = {"backbone": dict(part.source.backbone), "taps": taps}
        print_json({"statistics": str(output), **value, **source, "quarantined": unread})
    else:
        what = f"{counted(part.images, 'image')} in {len(counts)} classes"
        print(line(f"Statistics  {what}, {size / 1e6:.1f} MB: {output}"))
        print(line(f"To fit:     headstart merge {shell_word(output)} -o MODEL"))
    print_notes([*part.source.notes, *result.notes])
    return unread


def _told(bar: Callable[[int, int | None], None] | None) -> Callable[[Progress], None] | None:
    """Return what tells a bar how far workers are."""
    return None if bar is None else lambda progress: bar(progress.images, progress.expected_images)


def _unread(source: Source) -> list[dict[str, str]]:
    return [{"path": image.path, "reason": image.reason} for image in source.unread]


def _require_one_label(images: Dataset, _: bool = True) -> None:
    """Raise DataError for images of several labels, of which nothing is summed."""
    images.require_one_label("--statistics")
