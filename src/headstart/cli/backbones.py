"""backbones list, show, pull, import, remove."""

from __future__ import annotations

import io
import sys
from contextlib import nullcontext, redirect_stderr
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.options import (
    BACKBONE_HELP,
    ChannelsOption,
    CropOption,
    JsonOption,
    MeanOption,
    PrecisionOption,
    ProgressOption,
    QuietOption,
    ResizeOption,
    RuntimeOption,
    SizeOption,
    StdOption,
    WeightsOption,
    input_options,
    networks,
)
from headstart.cli.terminal import line, print_json, progress_bar
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.backbones.store import Speed


@networks.command("list")
def list_backbones(as_json: JsonOption = False) -> None:
    """The backbones there are: what to write for --backbone."""
    from headstart.backbones import AVAILABLE, store

    kept = store.entries()
    if as_json:
        print_json([
            *({"id": name, "what": what} for name, what in AVAILABLE.items()),
            *({"id": e.name or e.id, "what": e.source, "kept": bool(e.name), "sha256": e.sha256, "licence": e.licence,
               "bytes": e.bytes, "stored": e.stored, "folder": str(e.folder),
               "speed": e.speed.to_dict() if e.speed else None} for e in kept),
        ])  # fmt: skip
        return
    for name, what in AVAILABLE.items():
        print(line(f"{name:12} {what}"))
    if kept:
        print(f"\nIn {kept[0].folder.parent}:")
    for entry in kept:
        what = "imported" if entry.name else "prepared"
        print(line(f"{entry.name or entry.id:32} {what} {entry.stored[:10]}, {entry.bytes / 1e6:.1f} MB, "
                   f"licence {entry.licence}{_told(entry.speed)}, {entry.folder.name}"))  # fmt: skip


def _told(speed: Speed | None) -> str:
    if speed is None:
        return ""
    return f", {speed.images_per_second:,.0f} pictures/s ({speed.runtime} {speed.precision})"


@networks.command("pull")
def pull_backbone(
    backbone: Annotated[str, typer.Argument(help=BACKBONE_HELP)],
    weights: WeightsOption = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Fetch a backbone, prepare and keep it, and measure how fast it runs here."""
    from headstart.backbones import InputOptions, load, store
    from headstart.backbones.providers.hub import load_hub
    from headstart.features.runtime import images_per_second, resolve_runtime

    kind, _, rest = backbone.partition(":")
    info = resolve_runtime(runtime, precision)
    options = InputOptions(weights=weights)
    if kind == "hf":
        with progress_bar("Downloading", quiet, progress, unit="MB", each=1e6) as report, quiet_frameworks():
            found = load_hub(rest, options, (), renew=True, progress=report)
    else:  # frameworks show progress of their own
        with redirect_stderr(io.StringIO()) if quiet else nullcontext(), quiet_frameworks():
            found = load(backbone, options=options)
    size = (found.preprocess.height, found.preprocess.width)
    rate = images_per_second(found.graph, size, found.batch, runtime=runtime, precision=precision)
    speed = store.Speed(rate, info.name, info.version, info.precision)
    store.record_speed(found, speed)
    path = None if isinstance(found.graph, bytes) else found.graph
    count = len(found.graph) if isinstance(found.graph, bytes) else found.graph.stat().st_size
    if as_json:
        print_json({"id": found.id, "sha256": found.sha256, "licence": found.licence, "bytes": count,
                    "path": None if path is None else str(path), "speed": speed.to_dict()})  # fmt: skip
        return
    for note in () if quiet else found.notes:
        print(line(f"note: {note}"), file=sys.stderr)
    print(line(f"{found.id}: {count / 1e6:.1f} MB, licence {found.licence}{_told(speed)}"))
    print(line(f"kept in {'the package' if path is None else path.parent}"))


@networks.command("import")
def import_backbone(
    backbone: Annotated[str, typer.Argument(help="A file.onnx, or any id that --backbone takes.")],
    name: Annotated[str | None, typer.Option(help="What to call it; the file's name unless given.")] = None,
    weights: WeightsOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    channels: ChannelsOption = None,
    input_size: SizeOption = None,
    crop: CropOption = None,
    resize: ResizeOption = None,
) -> None:
    """Keep a backbone, prepared as the options say, so that --backbone NAME finds it without files and options."""
    from pathlib import Path

    from headstart.backbones import load, store

    options = input_options(mean, std, channels, input_size, crop, resize, weights)
    with quiet_frameworks():
        found = load(f"onnx:{backbone}" if Path(backbone).is_file() else backbone, options=options)
    called = store.check_name(name if name is not None else Path(backbone.rpartition(":")[2]).stem)
    store.put(called, found)
    store.sweep()
    for note in found.notes:
        print(line(f"note: {note}"), file=sys.stderr)
    print(line(f"{called} is kept; use it: headstart fit DATA --backbone {called}"))


@networks.command("remove")
def remove_backbone(
    name: Annotated[str, typer.Argument(help="A name or an id that headstart backbones list shows as kept.")],
) -> None:
    """Delete a kept backbone, and with it what was prepared. Files of your own are never touched."""
    from headstart.backbones import store

    print(line(f"{name} is removed, {store.remove(name) / 1e6:.1f} MB freed"))


@networks.command("show")
def show_backbone(
    backbone: Annotated[str, typer.Argument(help=BACKBONE_HELP)],
    weights: WeightsOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a backbone takes, and the taps at which it can be cut."""
    from headstart.backbones import InputOptions, load

    with quiet_frameworks():
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
