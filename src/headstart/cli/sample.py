"""headstart sample"""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.cli.options import Messages
from headstart.cli.terminal import line
from headstart.errors import shell_word


def sample(
    name: Annotated[str, typer.Argument(metavar="NAME", help="horses-or-humans.")],
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    train: Annotated[int, typer.Option(help="Number of training images.")] = 1000,
    validation: Annotated[int, typer.Option(help="Number of validation images, of other figures.")] = 256,
    seed: Annotated[int, typer.Option(help="Another seed gives other images.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of processes; one per core by default.")] = None,
    messages: Messages = Messages(),
) -> None:
    """Render a sample dataset of horses and humans."""
    from headstart.data.rendered import render

    with messages.bar("Rendering") as bar:
        count = render(name, folder, seed=seed, train=train, validation=validation, workers=workers, progress=bar)
    print(line(f"{folder} holds {count} images; learn from them: headstart fit {shell_word(folder)}"))
