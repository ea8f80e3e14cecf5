"""check, sample, download."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Annotated

import typer

from headstart.cli.options import (
    BACKBONE_HELP,
    JsonOption,
    PrecisionOption,
    ProgressOption,
    QuietOption,
    RuntimeOption,
    StrictOption,
    WorkersOption,
    app,
)
from headstart.cli.terminal import line, print_findings, print_json, progress_bar


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="Folder, zip or tar, table or URL of these.")],
    fix_list: Annotated[
        str | None, typer.Option(help="Write a table (.csv) of all pictures with the findings, to edit and learn from.")
    ] = None,
    backbone: Annotated[str, typer.Option(help=BACKBONE_HELP)] = "headstart-s",
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep features on disk.")] = True,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """What is wrong with the pictures: copies, leaks between splits, wrong labels, foreign and faulty pictures."""
    from headstart.check import check_dataset, write_table
    from headstart.data import open_dataset
    from headstart.features.cache import FeatureCache

    dataset = open_dataset(data)
    with (
        progress_bar("Reading features", quiet, progress) as report,
        FeatureCache() if cache else nullcontext() as kept,
    ):
        found = check_dataset(
            dataset, backbone=backbone, cache=kept, runtime=runtime, precision=precision, workers=workers,
            progress=report,
        )  # fmt: skip
    if as_json:
        print_json({"findings": [finding.to_dict() for finding in found.findings]})
    else:
        print_findings(found.findings, len(dataset))
    if fix_list is not None:
        rows = write_table(dataset, found.findings, found.groups, fix_list)
        if not quiet:
            print(line(f"{fix_list} lists {rows} pictures; edit it, then: headstart fit {fix_list}"), file=sys.stderr)
    broken = any(finding.kind == "unreadable" for finding in found.findings)
    raise typer.Exit(1 if strict and broken else 0)


@app.command()
def sample(
    name: Annotated[str, typer.Argument(help="horses-or-humans.")],
    folder: Annotated[str, typer.Argument(help="A new or empty folder.")],
    train: Annotated[int, typer.Option(help="Training pictures.")] = 1000,
    validation: Annotated[int, typer.Option(help="Validation pictures, of other figures.")] = 256,
    seed: Annotated[int, typer.Option(help="Another seed, other pictures.")] = 0,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Render a labelled sample set: computer-generated horses and humans."""
    from headstart.data.rendered import render

    with progress_bar("Rendering", quiet, progress) as report:
        count = render(name, folder, seed=seed, train=train, validation=validation, workers=workers, progress=report)
    print(line(f"{folder} holds {count} pictures; learn from them: headstart fit {folder}"))


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="horses-or-humans, cats-and-dogs-filtered, flower-photos or ants-bees.")],
    folder: Annotated[str, typer.Argument(help="A new or empty folder.")],
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a server that says nothing.")] = 30,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Fetch a public data set, check its hash and unpack it. A broken download goes on where it stopped."""
    from headstart.data.download import SETS
    from headstart.data.download import download as fetch

    with progress_bar("Downloading", quiet, progress, unit="MB", each=1e6) as report:
        hashes = fetch(name, folder, timeout=timeout, progress=report)
    if not quiet:
        for file in SETS[name].files:
            if file.sha256 is None:
                print(
                    line(f"note: nobody published a hash of {file.url}; what came has sha256 {hashes[file.url]}"),
                    file=sys.stderr,
                )
    print(line(f"{folder} holds {name} (licence: {SETS[name].licence}); learn from it: headstart fit {folder}"))
