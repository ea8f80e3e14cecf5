"""backbones list, backbones show."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headstart.cli.options import BACKBONE_HELP, JsonOption, WeightsOption, networks
from headstart.terminal import line, print_json


@networks.command("list")
def list_backbones(as_json: JsonOption = False) -> None:
    """The backbones there are: what to write for --backbone."""
    from headstart.backbones import AVAILABLE

    if as_json:
        print_json([{"id": name, "what": what} for name, what in AVAILABLE.items()])
        return
    for name, what in AVAILABLE.items():
        print(line(f"{name:12} {what}"))


@networks.command("show")
def show_backbone(
    backbone: Annotated[str, typer.Argument(help=BACKBONE_HELP)],
    weights: WeightsOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a backbone takes, and the taps at which it can be cut."""
    from headstart.backbones import InputOptions, load

    found = load(backbone, options=InputOptions(weights=weights))
    taps = [{"name": t.name, "channels": t.channels, "depth": round(t.depth, 4), "size": t.size} for t in found.taps]
    if as_json:
        print_json(
            {"id": found.id, "sha256": found.sha256, "licence": found.licence, "source": found.source,
             "preprocess": found.preprocess.to_dict(), "taps": taps, "notes": list(found.notes)}
        )  # fmt: skip
        return
    for note in found.notes:
        print(line(f"note: {note}"), file=sys.stderr)
    size = found.preprocess
    print(f"{found.id}: {size.height} x {size.width} pixels, licence {found.licence}")
    print(f"{'tap':32} {'channels':>8} {'map':>9} {'depth':>6}")
    for tap in found.taps:
        area = f"{tap.size[0]} x {tap.size[1]}" if tap.size else "-"
        print(line(f"{tap.name:32} {tap.channels:8} {area:>9} {tap.depth:6.0%}"))
