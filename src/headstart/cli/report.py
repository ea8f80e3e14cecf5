"""report."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.options import app
from headstart.cli.terminal import line

if TYPE_CHECKING:
    from headstart.classifier import ImageClassifier


@app.command()
def report(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; MODEL/report.html by default.")
    ] = None,
) -> None:
    """Write what is known of MODEL as one page: how good it is, what it confuses, where it looked, what to mend."""
    from headstart.report import rewrite

    print(line(str(rewrite(model, output))))


def write_report(classifier: ImageClassifier, folder: str, cache: bool) -> str:
    """Write the report of a fit into its model folder, and return its path."""
    from headstart.features.cache import FeatureCache
    from headstart.report import write

    with FeatureCache() if cache else nullcontext() as kept:
        return str(write(classifier, folder, cache=kept))
