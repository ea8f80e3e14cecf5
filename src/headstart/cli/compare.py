"""compare."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.options import (
    JsonOption,
    PrecisionOption,
    ProgressOption,
    QuietOption,
    RuntimeOption,
    StrictOption,
    WorkersOption,
    app,
)
from headstart.cli.terminal import line, print_json, progress_bar, tell_quarantine
from headstart.errors import OptionError
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.compare.backbones import Comparison, Row


@app.command()
def compare(
    data: Annotated[str, typer.Argument(help="Folder, zip or tar, table or URL of these.")],
    backbones: Annotated[str, typer.Option(metavar="A,B,C", help="Ids of the backbones, with commas.")],
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=FILE", help="Weights for one of the ids; several for the same id are compared."),
    ] = None,
    cuts: Annotated[str, typer.Option(help="auto: the cut fit would choose; all: every cut of every one.")] = "auto",
    group_by: Annotated[str, typer.Option(help="auto (near duplicates), none, or a table's column.")] = "auto",
    time_limit: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="Name, and leave out, what takes longer.")
    ] = None,
    max_size: Annotated[float | None, typer.Option(min=0, metavar="MB", help="Leave out graphs above this.")] = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    seed: Annotated[int, typer.Option(help="For what is drawn at random.")] = 0,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep features on disk.")] = True,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Rank backbones and cuts on the training pictures of DATA."""
    from headstart.compare.backbones import compare as rank
    from headstart.compare.backbones import entries
    from headstart.data import open_dataset
    from headstart.features.cache import FeatureCache

    names = [name.strip() for name in backbones.split(",") if name.strip()]
    files = [_weights(text, names) for text in weights or ()]
    labels = [entry.label for entry in entries(names, files)]
    dataset = open_dataset(data, group_column=None if group_by in ("auto", "none") else group_by)
    with (
        progress_bar("Reading features", quiet, progress) as report,
        FeatureCache() if cache else nullcontext() as kept,
        quiet_frameworks(),
    ):

        def tell(name: str, done: int, total: int) -> None:
            if report is not None:
                report(labels.index(name) * total + done, len(labels) * total)

        found = rank(
            dataset, names, weights=files, cuts=cuts, group_by=group_by, time_limit=time_limit, max_size=max_size,
            cache=kept, runtime=runtime, precision=precision, workers=workers, seed=seed, progress=tell,
        )  # fmt: skip
    for note in () if quiet else found.notes:
        print(line(f"note: {note}"), file=sys.stderr)
    tell_quarantine(found.quarantined, quiet)
    if as_json:
        print_json(_json(found))
    else:
        _show(found)
    raise typer.Exit(1 if strict and found.quarantined else 0)


def _weights(text: str, names: Sequence[str]) -> tuple[str, str]:
    """The id and the file in ``ID=FILE``; either may hold further equals signs. Raises OptionError."""
    for name in sorted(names, key=len, reverse=True):
        if text.startswith(f"{name}=") and text != f"{name}=":
            return name, text[len(name) + 1 :]
    raise OptionError(f"--weights {text!r} names none of --backbones; expected ID=FILE, with an ID as it stands there.")


def _json(found: Comparison) -> dict[str, object]:
    return {
        "images": {"count": found.pictures, "quarantined": len(found.quarantined)}, "classes": list(found.classes),
        "groups": {"count": found.groups.count, "largest": found.groups.largest, "method": found.groups.method},
        "runtime": {"name": found.runtime.name, "version": found.runtime.version, "precision": found.runtime.precision},
        "speed": "a short timed run of the network alone on this machine, all cores",
        "rows": [row.to_dict() for row in found.rows],
        "recommended": {
            "backbone": _chosen(found).backbone, "weights": _chosen(found).weights, "cut": list(_chosen(found).cut),
            "reason": found.reason,
        },
        "not_looked_at": [{"what": what, "why": why} for what, why in found.skipped],
        "seconds": found.seconds, "cache": {"hits": found.hits, "misses": found.misses},
    }  # fmt: skip


def _chosen(found: Comparison) -> Row:
    return next(row for row in found.rows if row.recommended)


def _show(found: Comparison) -> None:
    """The table, at most 80 columns wide."""
    groups = found.groups
    print(f"Pictures  {found.pictures} of {len(found.classes)} classes, in {groups.count} groups ({groups.method})")
    print(f"{'':3}{'backbone':24} {'cut':15} {'loss':>6} {'':6} {'right':>6}  {'pict./s':>7}  {'MB':>5}")
    for row in found.rows:
        mark = f"{'>' if row.recommended else ' '}{'=' if row.tied else ' '}{'*' if row.pareto else ' '}"
        half = (row.interval[1] - row.interval[0]) / 2
        speed = "-" if row.pictures_per_second is None else f"{row.pictures_per_second:,.0f}"
        name, cut = _fitted(row.label, 23), _fitted("+".join(row.cut), 15)
        print(
            f"{mark}{name:24} {cut:15} {row.log_loss:6.3f} ±{half:<5.3f} {row.accuracy.value:6.1%}  "
            f"{speed:>7}  {row.bytes / 1e6:5.1f}"
        )
    print("loss: log-loss on groups left out, with its 95% interval; right: accuracy there")
    print(f"pict./s: a short timed run of the network alone here, {found.runtime.name} {found.runtime.precision}")
    print("= as good as the best within the noise   * none is better in loss, speed and size")
    chosen = _chosen(found)
    print(line(f"> {chosen.label} at {', '.join(chosen.cut)}: {found.reason}"))
    for what, why in found.skipped:
        print(line(f"not looked at: {what} ({why})"))


def _fitted(text: str, width: int) -> str:
    text = line(text)
    return text if len(text) <= width else f"{text[: width // 3]}..{text[len(text) - (width - width // 3 - 2) :]}"
