"""headstart download"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headstart.cli.options import ProgressOption, QuietOption
from headstart.cli.terminal import line, progress_bar


def download(
    name: Annotated[str, typer.Argument(help="horses-or-humans, cats-and-dogs-filtered, flower-photos or ants-bees.")],
    folder: Annotated[str, typer.Argument(help="A new or empty folder.")],
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a silent server.")] = 30,
    quiet: QuietOption = False,
    progress: ProgressOption = None,
) -> None:
    """Download a public dataset, check its hash and unpack it; an interrupted download is resumed."""
    from headstart.data.download import SETS
    from headstart.data.download import download as download_set

    with progress_bar("Downloading", quiet, progress, unit="MB", unit_size=1e6) as bar:
        hashes = download_set(name, folder, timeout=timeout, progress=bar)
    if not quiet:
        for file in SETS[name].files:
            if file.sha256 is None:
                note = f"note: no hash of {file.url} was published; the file received has sha256 {hashes[file.url]}"
                print(line(note), file=sys.stderr)
    print(line(f"{folder} holds {name} (licence: {SETS[name].licence}); learn from it: headstart fit {folder}"))
