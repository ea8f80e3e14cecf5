"""headstart report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.options import ModelArgument
from headstart.cli.terminal import line


def report(
    model: ModelArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The page; MODEL/report.html by default.")
    ] = None,
) -> None:
    """Write the report of a model again, as one HTML page."""
    from headstart.report import rewrite_report

    print(line(str(rewrite_report(model, output))))
