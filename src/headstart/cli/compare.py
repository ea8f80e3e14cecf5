"""headstart compare"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.examples import ELSEWHERE
from headstart.cli.options import (
    CONDITION_FAILED,
    DEFAULT_BACKBONE,
    GROUP_BY_HELP,
    CachedRunOptions,
    DataArgument,
    JsonOption,
    LabelFlags,
    LabelSeparatorOption,
    Messages,
    MultiLabelOption,
    SeedOption,
    StrictOption,
    head_option,
    save_memory,
)
from headstart.cli.terminal import print_backbone_comparison, print_json, print_notes, print_quarantined
from headstart.errors import OptionError
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.compare import CompareOptions, Variant
    from headstart.features import Compute


@dataclass(frozen=True)
class VaryFlags:
    """Options of a fit of which several values are compared, separated by commas: every combination is a row."""

    head: Annotated[str | None, head_option(metavar="KIND,...", help="Heads as of fit: ridge,mlp [auto].")] = None
    dropout: Annotated[str | None, head_option(metavar="RATE,...", help="Dropout rates: 0,0.2,0.5.")] = None
    hidden: Annotated[str | None, head_option(metavar="N,...", help="mlp: units of the hidden layer [1024].")] = None
    optimizer: Annotated[
        str | None, head_option(metavar="NAME,...", help="mlp: rmsprop, adam, adamw or sgd [rmsprop].")
    ] = None
    lr: Annotated[str | None, head_option(metavar="RATE,...", help="mlp: learning rates [0.0001].")] = None
    epochs: Annotated[str | None, head_option(metavar="N,...", help="mlp: maximum numbers of epochs [20].")] = None
    batch_size: Annotated[str | None, head_option(metavar="N,...", help="mlp: images per step [20].")] = None

    def variants(self, seed: int, several_labels: bool) -> tuple[Variant, ...]:
        """Return a variant for each combination of the values, none where no option is given. Raises OptionError."""
        given = {name: value.split(",") for name, value in vars(self).items() if value is not None}
        if not given:
            return ()
        from headstart.compare import make_variants

        values = {name: [part.strip() for part in parts] for name, parts in given.items()}
        return make_variants(values, seed, several_labels=several_labels)


@dataclass(frozen=True)
class CompareFlags(LabelFlags):
    """How backbones are compared."""

    cuts: Annotated[
        str, typer.Option(metavar="auto|all", help="auto: the cut that fit would choose; all: every cut.")
    ] = "auto"
    group_by: Annotated[str, typer.Option(metavar="RULE", help=f"Images to keep together: {GROUP_BY_HELP}")] = "auto"
    time_limit: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="Leave out, and name, backbones that take longer.")
    ] = None
    multi_label: MultiLabelOption = None
    label_separator: LabelSeparatorOption = None
    max_size: Annotated[float | None, typer.Option(min=0, metavar="MB", help="Leave out, and name, larger graphs.")] = (
        None
    )
    seed: SeedOption = 0

    def options(self, compute: Compute, head: VaryFlags, several_labels: bool) -> CompareOptions:
        """Return the `CompareOptions` of the library. Raises OptionError."""
        from headstart.compare import CompareOptions

        variants = head.variants(self.seed, several_labels)
        return CompareOptions(self.cuts, self.group_by, self.time_limit, self.max_size, compute, self.seed, variants)


def compare(
    data: DataArgument,
    backbones: Annotated[
        str, typer.Option(metavar="ID,...", help="Ids of the backbones, separated by commas.")
    ] = DEFAULT_BACKBONE,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=FILE", help="Weights for one of the ids; several for the same id are compared."),
    ] = None,
    head: VaryFlags = VaryFlags(),
    flags: CompareFlags = CompareFlags(),
    as_json: JsonOption = False,
    run: CachedRunOptions = CachedRunOptions(),
    strict: StrictOption = False,
    messages: Messages = Messages(),
) -> None:
    """Rank backbones, cuts and options; for models see evaluate."""
    from headstart.compare import compare_backbones, parse_entries
    from headstart.data import open_dataset

    if (Path(data) / "config.json").is_file() and (Path(data) / "model.onnx").is_file():
        raise OptionError(f"{data} is a model, and compare ranks backbones on images; {ELSEWHERE['compare']}.")
    ids = [name.strip() for name in backbones.split(",") if name.strip()]
    entries = parse_entries(ids, [_parse_weights(text, ids) for text in weights or ()])
    labels = [entry.label for entry in entries]
    dataset = open_dataset(data, flags.read_options(flags.group_by))
    options = flags.options(run.compute, head, dataset.is_multi_label)
    save_memory(len(dataset))
    with quiet_frameworks(), run.open_cache() as cache, messages.bar("Reading features") as bar:

        def report(label: str, done: int, total: int) -> None:
            if bar is not None:
                bar(labels.index(label) * total + done, len(labels) * total)

        comparison = compare_backbones(dataset, entries, options, cache=cache, progress=report, log=messages.log)
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
