"""headstart studio"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.open_report import has_screen
from headstart.cli.options import BACKBONE_HELP, DEFAULT_BACKBONE, CachedRunOptions
from headstart.cli.serve import server_packages
from headstart.cli.terminal import line, print_notes
from headstart.machine import quiet_frameworks


def studio(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of images or class folders, or a new one.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0: any free one.")] = 8001,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser; the address is printed.")] = False,
    multi_label: Annotated[
        bool | None,
        typer.Option(
            "--multi-label/--single-label",
            help="Several labels an image, or one class; by default as begun, or as its table has them.",
        ),
    ] = None,
    backbone: Annotated[str, typer.Option(metavar="ID", help=BACKBONE_HELP)] = DEFAULT_BACKBONE,
    run: CachedRunOptions = CachedRunOptions(),
) -> None:
    """Label images in the browser, and try and save a model. Labels are kept in FOLDER-labels.csv, which fit reads."""
    import secrets  # every start would pay for these
    import webbrowser

    from headstart.backbones import load
    from headstart.classifier import FitOptions

    with server_packages():
        from headstart.serve.run import address, listen
        from headstart.serve.run import run as serve
        from headstart.studio.app import make_app, open_studio, server_options
    from headstart.studio.opening import check_folder

    check_folder(Path(folder), multi_label)
    with quiet_frameworks():
        load(
            backbone, precision=run.compute.precision
        )  # one that is not there ends the command, not the work behind the page
    options = server_options(port)
    listener = listen(options)
    token = secrets.token_urlsafe(24)
    fit_options = FitOptions(backbone, compute=run.compute, cache=run.cache)
    with open_studio(folder, fit_options, multi_label=multi_label) as opened:
        place = f"{address(options, listener)}/#token={token}"
        print_notes(opened.project.notes)

        app = make_app(opened, options, token)
        print(line(place), flush=True)
        print("Labels are kept as you go; stop with Ctrl-C.", file=sys.stderr)
        if not no_open and has_screen():
            webbrowser.open(place)
        serve(app, options, listener, opened.engine.events.close)
