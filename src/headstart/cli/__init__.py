"""The command line: parse, call the library, print. One file per command.

Results go to standard output, progress and notes to standard error. Exit statuses: 0 done, also when the reader of a
pipe has seen enough; 1 done, but a stated condition failed (``predict`` could not read an input, ``--strict``,
``--min-accuracy``, ``verify`` out of tolerance); 2 wrong input or usage; 130 interrupted.

options.py   the program, how commands are declared, shared options
terminal.py  what commands print
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable

from headstart.cli import backbones
from headstart.cli.check import check
from headstart.cli.compare import compare
from headstart.cli.download import download
from headstart.cli.evaluate import evaluate
from headstart.cli.fine_tune import fine_tune
from headstart.cli.fit import fit
from headstart.cli.options import INTERRUPTED, add_command, app, backbones_app
from headstart.cli.predict import predict
from headstart.cli.report import report
from headstart.cli.sample import sample
from headstart.cli.verify import verify
from headstart.machine import tune_process

__all__ = ["app", "main"]

COMMANDS: tuple[Callable[..., None], ...] = (
    fit,
    predict,
    evaluate,
    check,
    report,
    compare,
    fine_tune,
    verify,
    sample,
    download,
)
for _command in COMMANDS:
    add_command(app, _command)
app.add_typer(backbones_app, name="backbones")
for _name, _command in backbones.COMMANDS.items():
    add_command(backbones_app, _command, _name)


def main() -> None:
    """Run the ``headstart`` command."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names in any script, any terminal
    if not sys.warnoptions:  # warnings of libraries are for developers; what users must know is printed
        warnings.simplefilter("ignore")
    tune_process()
    try:
        app()
    except KeyboardInterrupt:
        print("headstart: interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        gc.freeze()  # else the interpreter searches all that is left for cycles before it ends: 0.06 s after a fit
