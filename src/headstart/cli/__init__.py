"""The command line: parse, call the library, print. One file per command.

Results go to standard output, progress and notes to standard error. Exit statuses: 0 done, also when the reader of a
pipe has seen enough; 1 done, but a stated condition failed (``predict`` could not read an input, ``--strict``,
``--min-accuracy``, ``verify`` out of tolerance); 2 wrong input or usage; 130 interrupted, 143 terminated.

options.py   the program, how commands are declared, shared options
config.py    options from headstart.toml and from the environment
examples.py  examples in the help
terminal.py  what commands print; of fits and evaluations: fit_output.py, evaluation_output.py
"""

from __future__ import annotations

import errno
import gc
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

from headstart.cli import backbones
from headstart.cli.cache import cache
from headstart.cli.check import check
from headstart.cli.compare import compare
from headstart.cli.diff import diff
from headstart.cli.download import download
from headstart.cli.embed import embed
from headstart.cli.evaluate import evaluate
from headstart.cli.export import export
from headstart.cli.fine_tune import fine_tune
from headstart.cli.fit import fit
from headstart.cli.forget import forget
from headstart.cli.merge import merge
from headstart.cli.open_report import open_report
from headstart.cli.options import INTERRUPTED, TERMINATED, add_command, app, backbones_app, exit_status
from headstart.cli.predict import predict
from headstart.cli.report import report
from headstart.cli.sample import sample
from headstart.cli.serve import serve
from headstart.cli.studio import studio
from headstart.cli.update import update
from headstart.cli.verify import verify
from headstart.errors import HeadstartError
from headstart.machine import tune_process

__all__ = ["app", "main"]

COMMANDS: tuple[Callable[..., None], ...] = (
    fit,
    predict,
    evaluate,
    check,
    report,
    open_report,
    diff,
    compare,
    fine_tune,
    embed,
    merge,
    update,
    forget,
    export,
    serve,
    studio,
    verify,
    sample,
    download,
    cache,
)
for _command in COMMANDS:
    add_command(app, _command, "open" if _command is open_report else None)
app.add_typer(backbones_app, name="backbones")
for _name, _command in backbones.COMMANDS.items():
    add_command(backbones_app, _command, _name)


def _end(number: int, _: object) -> None:
    """End on a signal: what is unfinished is removed, and processes of a pool end too; on a second signal at once."""
    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) is _end:
            signal.signal(each, _end_at_once)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    print("headstart: terminated.", file=sys.stderr)
    sys.exit(TERMINATED)


def _end_at_once(number: int, _: object) -> None:
    """End as by a kill, which every command withstands: to end in order takes time, and fails if interrupted."""
    os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)


def _hide_warnings() -> None:
    """Print no warnings and logs of libraries: they are for developers, and what users must know is printed."""
    warnings.simplefilter("ignore")
    warnings.showwarning = lambda *_, **__: None  # a library may set the filters anew
    if not logging.root.handlers:
        logging.root.addHandler(logging.NullHandler())  # else warnings go to standard error


class _StandardError(io.FileIO):
    """Standard error, whose reader may stop (``2>&1 | head``): no note that is not read ends the work."""

    def write(self, data: Any, /) -> int:
        """Write, to nobody where nobody reads."""
        try:
            return super().write(data)
        except OSError as error:
            if not (isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL):  # which Windows says
                raise
            return len(data)


def main() -> None:
    """Run the ``headstart`` command."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")  # names in any script, any terminal
    own = sys.__stderr__
    if own is not None and own is sys.stderr and not own.isatty():
        standard_error = io.BufferedWriter(_StandardError(own.fileno(), "wb", closefd=False))
        sys.stderr = io.TextIOWrapper(
            standard_error, own.encoding, own.errors, line_buffering=True, write_through=own.write_through
        )
    if not sys.warnoptions:
        _hide_warnings()
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the caller has it ignored
        signal.signal(signal.SIGINT, _end)
    tune_process()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where an error is told: the interpreter, as it ends, only says "ignored"
    except (HeadstartError, OSError, KeyboardInterrupt) as error:  # outside of a command, as in its help
        sys.exit(exit_status(error))
    finally:
        gc.freeze()  # else the interpreter searches all that is left for cycles before it ends: 0.06 s after a fit
