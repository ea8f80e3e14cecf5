"""headstart download"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headstart.cli.options import Messages
from headstart.cli.terminal import line
from headstart.errors import shell_word


def download(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="horses-or-humans, cats-and-dogs-filtered, flower-photos or ants-bees."),
    ],
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long to wait for a silent server.")
    ] = 30,
    messages: Messages = Messages(),
) -> None:
    """Download a public dataset, verified and resumed."""
    from headstart.data.download import download as download_dataset
    from headstart.data.public_datasets import PUBLIC_DATASETS

    with messages.bar("Downloading", unit="MB", unit_size=1e6) as bar:
        hashes = download_dataset(name, folder, timeout=timeout, progress=bar)
    if not messages.quiet:
        for url in (archive.url for archive in PUBLIC_DATASETS[name].archives if archive.sha256 is None):
            print(
                line(f"note: no hash of {url} is published; that of the file received is {hashes[url]}"),
                file=sys.stderr,
            )
    licence = PUBLIC_DATASETS[name].licence
    print(line(f"{folder} holds {name} (licence: {licence}); learn from it: headstart fit {shell_word(folder)}"))
