"""headstart compare"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.options import (
    CONDITION_FAILED,
    GROUP_BY_HELP,
    CachedRunOptions,
    DataArgument,
    JsonOption,
    LabelFlags,
    Messages,
    SeedOption,
    StrictOption,
    save_memory,
)
from headstart.cli.terminal import print_backbone_comparison, print_json, print_notes, print_quarantined
from headstart.errors import OptionError
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.compare import CompareOptions
    from headstart.features import Compute


@dataclass(frozen=True)
class CompareFlags(LabelFlags):
    """How backbones are compared."""

    cuts: Annotated[str, typer.Option(help="auto: the cut that fit would choose; all: every cut.")] = "auto"
    group_by: Annotated[str, typer.Option(help=f"Images to keep together: {GROUP_BY_HELP}")] = "auto"
    time_limit: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="Skip, and name, what takes longer.")
    ] = None
    max_size: Annotated[float | None, typer.Option(min=0, metavar="MB", help="Skip larger graphs.")] = None
    seed: SeedOption = 0

    def options(self, compute: Compute) -> CompareOptions:
        """Return the `CompareOptions` of the library."""
        from headstart.compare import CompareOptions

        return CompareOptions(self.cuts, self.group_by, self.time_limit, self.max_size, compute, self.seed)


def compare(
    data: DataArgument,
    backbones: Annotated[str, typer.Option(metavar="A,B,C", help="Ids of the backbones, separated by commas.")],
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=FILE", help="Weights for one of the ids; several for the same id are compared."),
    ] = None,
    flags: CompareFlags = CompareFlags(),
    as_json: JsonOption = False,
    run: CachedRunOptions = CachedRunOptions(),
    strict: StrictOption = False,
    messages: Messages = Messages(),
) -> None:
    """Rank backbones, and places to cut them, on a dataset."""
    from headstart.compare import compare_backbones, parse_entries
    from headstart.data import open_dataset

    ids = [name.strip() for name in backbones.split(",") if name.strip()]
    entries = parse_entries(ids, [_parse_weights(text, ids) for text in weights or ()])
    labels = [entry.label for entry in entries]
    dataset = open_dataset(data, flags.read_options(flags.group_by))
    save_memory(len(dataset))
    with quiet_frameworks(), run.open_cache() as cache, messages.bar("Reading features") as bar:

        def report(label: str, done: int, total: int) -> None:
            if bar is not None:
                bar(labels.index(label) * total + done, len(labels) * total)

        comparison = compare_backbones(dataset, entries, flags.options(run.compute), cache=cache, progress=report)
    print_notes([*comparison.notes, *([] if cache is None else cache.notes)])
    print_quarantined([vars(image) for image in comparison.quarantined])
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
