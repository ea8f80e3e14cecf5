"""headstart compare"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated

import typer

from headstart.cli.options import (
    CONDITION_FAILED,
    CacheOption,
    DataArgument,
    JsonOption,
    ProgressOption,
    QuietOption,
    RunOptions,
    SeedOption,
    StrictOption,
)
from headstart.cli.terminal import print_backbone_comparison, print_json, print_notes, print_quarantined, progress_bar
from headstart.errors import OptionError
from headstart.machine import quiet_frameworks


def compare(
    data: DataArgument,
    backbones: Annotated[str, typer.Option(metavar="A,B,C", help="Ids of the backbones, separated by commas.")],
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=FILE", help="Weights for one of the ids; several for the same id are compared."),
    ] = None,
    cuts: Annotated[str, typer.Option(help="auto: the cut that fit would choose; all: every cut.")] = "auto",
    group_by: Annotated[str, typer.Option(help="auto (near duplicates and scenes), none, or a column.")] = "auto",
    time_limit: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="Skip, and name, what takes longer.")
    ] = None,
    max_size: Annotated[float | None, typer.Option(min=0, metavar="MB", help="Skip larger graphs.")] = None,
    as_json: JsonOption = False,
    run: RunOptions = RunOptions(),
    seed: SeedOption = 0,
    cache: CacheOption = True,
    strict: StrictOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Rank backbones, and places to cut them, on a dataset."""
    from headstart.compare import CompareOptions, compare_backbones, parse_entries
    from headstart.data import open_dataset
    from headstart.features import FeatureCache

    ids = [name.strip() for name in backbones.split(",") if name.strip()]
    entries = parse_entries(ids, [_parse_weights(text, ids) for text in weights or ()])
    labels = [entry.label for entry in entries]
    options = CompareOptions(cuts, group_by, time_limit, max_size, run.compute, seed)
    dataset = open_dataset(data, group_column=None if group_by in ("auto", "none") else group_by)
    with (
        quiet_frameworks(),
        FeatureCache() if cache else nullcontext() as feature_cache,
        progress_bar("Reading features", quiet, progress) as bar,
    ):

        def report(label: str, done: int, total: int) -> None:
            if bar is not None:
                bar(labels.index(label) * total + done, len(labels) * total)

        comparison = compare_backbones(dataset, entries, options, cache=feature_cache, progress=report)
    if not quiet:
        print_notes(comparison.notes)
    print_quarantined([vars(image) for image in comparison.quarantined], quiet)
    if as_json:
        print_json(comparison.to_dict())
    else:
        print_backbone_comparison(comparison)
    if strict and comparison.quarantined:
        raise typer.Exit(CONDITION_FAILED)


def _parse_weights(text: str, ids: Sequence[str]) -> tuple[str, str]:
    """Split ``ID=FILE``; either may hold further equals signs. Raises OptionError."""
    for backbone_id in sorted(ids, key=len, reverse=True):
        if text.startswith(f"{backbone_id}=") and text != f"{backbone_id}=":
            return backbone_id, text[len(backbone_id) + 1 :]
    raise OptionError(f"--weights {text!r} names none of --backbones; expected ID=FILE, with an ID as given there.")
