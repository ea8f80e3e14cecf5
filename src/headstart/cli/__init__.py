"""The command line: parse, one public call, print.

Results go to standard output, progress and notes to standard error. Exit status 0: done; 1: done, but
``--strict`` and something was quarantined; 2: wrong input, told in one line.

options.py     the program, and the options that several commands share
fitting.py     fit
models.py      predict, evaluate, verify
pictures.py    check, sample, download
comparison.py  compare
networks.py    backbones list, show, pull, import, remove
reports.py     report
"""

from __future__ import annotations

import gc
import sys

from headstart.cli import backbones, compare, fit, models, pictures, report  # noqa: F401  # each enters its commands
from headstart.cli.options import app
from headstart.cli.terminal import line
from headstart.errors import HeadstartError
from headstart.machine import tune_process

__all__ = ["app", "main"]


def main() -> None:
    """The ``headstart`` command: errors raised on purpose become one line and status 2."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names in any script, any terminal
    tune_process()
    try:
        app()
    except HeadstartError as error:
        print(f"headstart: {line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("headstart: stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        sys.stderr.close()
        sys.exit(0)
    finally:
        gc.freeze()  # else the interpreter searches all that is left for cycles before it ends: 0.06 s after a fit
