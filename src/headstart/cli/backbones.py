"""headstart backbones list, show, pull, import, quantize, remove"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.input_flags import WEIGHTS_HELP, InputFlags
from headstart.cli.options import (
    BACKBONE_HELP,
    JsonOption,
    Messages,
    RunOptions,
    SeedOption,
)
from headstart.cli.terminal import line, print_json, print_notes
from headstart.errors import OptionError, shell_word
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.backbones import Backbone
    from headstart.backbones.providers.builtin import BuiltIn
    from headstart.backbones.store import Speed

BackboneArgument = Annotated[str, typer.Argument(metavar="BACKBONE", help=BACKBONE_HELP)]
WeightsOption = Annotated[str | None, typer.Option(metavar="FILE", help=WEIGHTS_HELP)]


def list_backbones(as_json: JsonOption = False) -> None:
    """List the backbones that --backbone takes, and those kept on this machine."""
    from headstart.backbones import AVAILABLE, DEFAULT_BACKBONE, FAST_BACKBONE, store
    from headstart.backbones.providers.builtin import built_in

    entries = store.entries()
    ours = {name: built_in(name) for name in (DEFAULT_BACKBONE, FAST_BACKBONE)}
    speeds = {name: store.recorded_speed(known.sha256) for name, known in ours.items()}
    if as_json:
        recorded = {name: None if speed is None else speed.to_dict() for name, speed in speeds.items()}
        facts = {
            name: {**known.to_dict(), "default": name == DEFAULT_BACKBONE, "speed": recorded[name]}
            for name, known in ours.items()
        }
        kinds = [{"id": name, "what": what, **facts.get(name, {})} for name, what in AVAILABLE.items()]
        print_json([*kinds, *(entry.to_dict() for entry in entries)])
        return
    for name, what in AVAILABLE.items():
        print(line(f"{name:12} {what}"))
    _print_built_in(list(ours.values()), speeds)
    if entries:
        print(f"\nIn {entries[0].folder.parent}:")
    for entry in entries:
        origin = "imported" if entry.name else "prepared"
        print(
            line(
                f"{entry.name or entry.id:32} {origin} {entry.stored[:10]}, {entry.bytes / 1e6:.1f} MB, "
                f"licence {entry.licence}{_speed_text(entry.speed)}, {entry.folder.name}"
            )
        )


def show_backbone(backbone: BackboneArgument, weights: WeightsOption = None, as_json: JsonOption = False) -> None:
    """Show the input of a backbone and the taps at which it can be cut."""
    from headstart.backbones import InputOptions, load

    with quiet_frameworks():
        loaded = load(backbone, options=InputOptions(weights=weights))
    if as_json:
        taps = [
            {"name": tap.name, "channels": tap.channels, "depth": round(tap.depth, 4), "size": tap.size}
            for tap in loaded.taps
        ]
        print_json(
            {
                "id": loaded.id,
                "sha256": loaded.sha256,
                "licence": loaded.licence,
                "source": loaded.source,
                "preprocess": loaded.preprocess.to_dict(),
                "taps": taps,
                "notes": list(loaded.notes),
            }
        )
        return
    print_notes(loaded.notes)
    size = loaded.preprocess
    print(line(f"{loaded.id}: {size.height} x {size.width} pixels, licence {loaded.licence}"))
    print(f"{'tap':32} {'channels':>8} {'map':>9} {'depth':>6}")
    for tap in loaded.taps:
        area = f"{tap.size[0]} x {tap.size[1]}" if tap.size else "-"
        print(line(f"{tap.name:32} {tap.channels:8} {area:>9} {tap.depth:6.0%}"))


def pull_backbone(
    backbone: BackboneArgument,
    weights: WeightsOption = None,
    as_json: JsonOption = False,
    run: RunOptions = RunOptions(),
    messages: Messages = Messages(),
) -> None:
    """Download and prepare a backbone, keep it, and measure its speed on this machine."""
    from headstart.backbones import store
    from headstart.features.runtime import images_per_second

    info = run.compute.resolve()
    loaded = _download(backbone, weights, messages)
    size = (loaded.preprocess.height, loaded.preprocess.width)
    rate = images_per_second(loaded.graph, size, loaded.batch, run.compute)
    speed = store.Speed(rate, info.name, info.version, info.precision)
    store.record_speed(loaded, speed)
    path = None if isinstance(loaded.graph, bytes) else loaded.graph
    size_in_bytes = len(loaded.graph) if isinstance(loaded.graph, bytes) else loaded.graph.stat().st_size
    if as_json:
        print_json(
            {
                "id": loaded.id,
                "sha256": loaded.sha256,
                "licence": loaded.licence,
                "bytes": size_in_bytes,
                "path": None if path is None else str(path),
                "speed": speed.to_dict(),
            }
        )
        return
    print_notes(loaded.notes)
    print(line(f"{loaded.id}: {size_in_bytes / 1e6:.1f} MB, licence {loaded.licence}{_speed_text(speed)}"))
    print(line(f"stored in {'the package' if path is None else path.parent}"))


def import_backbone(
    backbone: Annotated[str, typer.Argument(metavar="BACKBONE", help="An ONNX file, or any id that --backbone takes.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the backbone; the file's name by default.")
    ] = None,
    input_flags: InputFlags = InputFlags(),
) -> None:
    """Keep a backbone, prepared with these options, under a name that --backbone takes."""
    from headstart.backbones import load, store

    is_file = Path(backbone).is_file()
    with quiet_frameworks():
        loaded = load(f"onnx:{backbone}" if is_file else backbone, options=input_flags.input_options)
    stored_name = store.check_name(name if name is not None else Path(backbone.rpartition(":")[2]).stem)
    store.put(stored_name, loaded)
    print_notes(loaded.notes)
    print(line(f"Stored as {stored_name}; use it: headstart fit DATA --backbone {stored_name}"))


def quantize_backbone(
    backbone: BackboneArgument,
    images: Annotated[
        str, typer.Option("--images", metavar="DATA", help="Images like those it will see; labels are not used.")
    ],
    weights: WeightsOption = None,
    count: Annotated[int, typer.Option(help="Images to measure ranges on, 16 to 1,000.")] = 300,
    seed: SeedOption = 0,
    messages: Messages = Messages(),
) -> None:
    """Make the int8 version of a backbone, for --precision int8, and keep it on this machine."""
    from headstart.backbones import InputOptions
    from headstart.backbones.providers import BUILT_IN
    from headstart.data import open_dataset
    from headstart.features.input_scaling import open_backbone
    from headstart.features.int8 import make_int8

    if backbone in BUILT_IN:
        raise OptionError(f"{backbone} comes with an int8 version; use it: headstart fit DATA --precision int8")
    dataset = open_dataset(images)
    with quiet_frameworks():
        opened = open_backbone(backbone, InputOptions(weights=weights), (), dataset)
        with messages.bar("Reading images") as bar:
            made = make_int8(opened.backbone, [dataset], count, seed, progress=bar)
    print_notes([] if opened.scaling is None else [opened.scaling.note])
    assert isinstance(made.graph, Path)
    print(line(f"{backbone} in int8: {made.graph.stat().st_size / 1e6:.1f} MB, in {made.graph.parent}"))
    print(line(f"Use it: headstart fit DATA --backbone {shell_word(backbone)} --precision int8"))


def remove_backbone(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name or an id that headstart backbones list shows as kept.")
    ],
) -> None:
    """Delete a kept backbone and what was prepared for it; your own files are never touched."""
    from headstart.backbones import store

    print(line(f"{name} is removed, {store.remove(name) / 1e6:.1f} MB freed"))


def _print_built_in(backbones: Sequence[BuiltIn], speeds: Mapping[str, Speed | None]) -> None:
    """Print size, speed and accuracy of the built-in backbones as a table, and what the figures are."""
    datasets = backbones[0].measured.accuracy
    print(f"\n{'built in':12} {'input':>6}  {'MB':>4}  {'images/s':>8}" + "".join(f"  {name:>14}" for name in datasets))
    for backbone in backbones:
        speed = speeds[backbone.id]
        rate = "-" if speed is None else f"{speed.images_per_second:,.0f}"
        accuracy = "".join(f"  {f'{right}/{count}':>14}" for right, count in backbone.measured.accuracy.values())
        size = f"{backbone.size[0]} px"
        print(line(f"{backbone.id:12} {size:>6}  {backbone.bytes / 1e6:4.1f}  {rate:>8}{accuracy}"))
    runtimes = {f"{speed.runtime} {speed.precision}" for speed in speeds.values() if speed is not None}
    print(line(f"images/s: the network alone on this machine{''.join(f', {name}' for name in sorted(runtimes))}"))
    unmeasured = [id for id, speed in speeds.items() if speed is None]
    if unmeasured:
        print(f"not measured yet: {', '.join(unmeasured)}; to measure it: headstart backbones pull {unmeasured[0]}")
    for how in dict.fromkeys(backbone.measured.how for backbone in backbones):
        print(line(f"{', '.join(datasets)}: correct of the validation images ({how})"))


COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_backbones,
    "show": show_backbone,
    "pull": pull_backbone,
    "import": import_backbone,
    "quantize": quantize_backbone,
    "remove": remove_backbone,
}


def _download(backbone: str, weights: str | None, messages: Messages) -> Backbone:
    from headstart.backbones import InputOptions, load
    from headstart.backbones.providers.hub import load_hub

    options = InputOptions(weights=weights)
    kind, _, rest = backbone.partition(":")
    if kind != "hf":  # frameworks show progress of their own
        with quiet_frameworks():
            return load(backbone, options=options)
    with quiet_frameworks(), messages.bar("Downloading", unit="MB", unit_size=1e6) as bar:
        return load_hub(rest, options, (), renew=True, progress=bar)


def _speed_text(speed: Speed | None) -> str:
    if speed is None:
        return ""
    return f", {speed.images_per_second:,.0f} images/s ({speed.runtime} {speed.precision})"
