"""headstart embed"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.fit import DecodeFlags
from headstart.cli.input_flags import InputFlags
from headstart.cli.options import (
    BACKBONE_HELP,
    CONDITION_FAILED,
    DEFAULT_BACKBONE,
    CachedRunOptions,
    DataArgument,
    JsonOption,
    LabelSeparatorOption,
    Messages,
    MultiLabelOption,
    StrictOption,
    common,
    save_memory,
)
from headstart.cli.terminal import counted, line, print_json, print_notes, print_quarantined
from headstart.machine import quiet_frameworks


@dataclass(frozen=True)
class EmbedFlags(DecodeFlags):
    """How DATA is read, be it with one label an image or with several."""

    multi_label: MultiLabelOption = None
    label_separator: LabelSeparatorOption = None


def embed(
    data: DataArgument,
    output: Annotated[Path, common("-o", "--output", metavar="FOLDER", help="Folder of features to write.")],
    backbone: Annotated[str, common(metavar="ID", help=BACKBONE_HELP)] = DEFAULT_BACKBONE,
    cut: Annotated[
        str, common(metavar="TAPS", help="Further taps, with commas; auto: those of the backbone.")
    ] = "auto",
    group_by: Annotated[str, common(metavar="COLUMN", help="Column of a table that names groups to keep.")] = "auto",
    on: Annotated[
        str | None,
        common(
            metavar="processes|ray", help="Cut the data into shards, and work on them in several processes or on Ray."
        ),
    ] = None,
    address: Annotated[
        str | None, common(metavar="HOST:PORT|auto", help="Ray cluster; by default Ray is started here. With --on ray.")
    ] = None,
    reading: EmbedFlags = EmbedFlags(),
    input_flags: InputFlags = InputFlags(),
    as_json: JsonOption = False,
    strict: StrictOption = False,
    run: CachedRunOptions = CachedRunOptions(),
    messages: Messages = Messages(),
) -> None:
    """Write the features of images, to fit later without them."""
    from headstart.classifier import FitOptions
    from headstart.classifier.embed_folder import EmbeddedFolder, embed_to_folder
    from headstart.classifier.embed_sharded import Where, embed_sharded
    from headstart.data import open_dataset
    from headstart.scale.addresses import has_braces

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
    if on is not None or address is not None or has_braces(data):
        where = Where(on or "processes", run.workers, address)
        with quiet_frameworks(), messages.bar("Reading features") as bar:
            told = None if bar is None else lambda progress: bar(progress.images, progress.expected_images)
            result = embed_sharded(data, output, options, reading.read_options(group_by), where, progress=told)
    else:
        dataset = open_dataset(data, reading.read_options(group_by))
        save_memory(len(dataset))
        with quiet_frameworks(), messages.bar("Reading features") as bar:
            result = embed_to_folder(dataset, output, options, progress=bar)
    unread = [{"path": image.path, "reason": image.reason} for image in result.source.unread]
    if as_json:
        value = {"images": result.rows, "bytes": result.bytes, "shards": result.shards, "found": result.found}
        source = {"backbone": dict(result.source.backbone), "taps": result.source.channels}
        print_json({"features": str(output), **value, **source, "quarantined": unread})
    else:
        found = f", {result.found} of them there before" if result.found else ""
        shards = f"{counted(result.shards, 'shard')}{found}"
        print(line(f"Features    {result.rows:,} images in {shards}, {result.bytes / 1e6:.1f} MB: {output}"))
        print(line(f"To fit:     headstart merge {output} -o MODEL"))
    print_notes(result.notes)
    print_quarantined(unread)
    if strict and unread:
        raise typer.Exit(CONDITION_FAILED)
