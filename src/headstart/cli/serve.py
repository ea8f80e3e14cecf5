"""headstart serve"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.options import Messages, RunOptions, common, run_option
from headstart.cli.terminal import line, print_notes
from headstart.errors import missing_extra

if TYPE_CHECKING:
    from headstart.serve.options import ServerOptions

TOKEN = "HEADSTART_TOKEN"


@dataclass(frozen=True)
class ServeFlags:
    """Where the server listens, whom it answers, and its limits."""

    host: Annotated[str, common(metavar="ADDRESS", help="Where to listen; beyond this machine: 0.0.0.0.")] = "127.0.0.1"
    port: Annotated[int, common(min=0, max=65535, metavar="N", help="Port to listen on; 0: any free one.")] = 8000
    token: Annotated[
        str | None, common(metavar="TOKEN", help=f"Answer only requests with it; by default that of {TOKEN}.")
    ] = None
    insecure: Annotated[
        bool, common("--insecure", help="Listen beyond this machine without a token; see --allowed-hosts.")
    ] = False
    allowed_hosts: Annotated[
        str | None, common(metavar="NAMES", help="Names of this server besides localhost, with commas between.")
    ] = None
    cors_origins: Annotated[
        str | None,
        common(metavar="ORIGINS", help="Sites whose pages may ask, like https://example.org, with commas between."),
    ] = None
    max_batch: Annotated[int, run_option(min=1, max=256, metavar="N", help="Images that run together, at most.")] = 4
    max_body: Annotated[int, run_option(min=1, max=1024, metavar="MIB", help="Maximum size of a request.")] = 32
    max_requests: Annotated[
        int, run_option(min=1, metavar="N", help="Requests that are answered at a time; others are told to wait.")
    ] = 64
    timeout: Annotated[
        float, run_option(min=1, metavar="SECONDS", help="Time to answer a request, and to receive its body.")
    ] = 60.0

    @property
    def options(self) -> ServerOptions:
        """Return the options of the server. Raises OptionError."""
        from headstart.serve.options import MIB, ServerOptions

        return ServerOptions(
            host=self.host,
            port=self.port,
            token=self.token or os.environ.get(TOKEN) or None,
            insecure=self.insecure,
            allowed_hosts=_names(self.allowed_hosts),
            cors_origins=_names(self.cors_origins),
            max_body=self.max_body * MIB,
            max_held=max(256, 2 * self.max_body) * MIB,
            max_requests=self.max_requests,
            answer_seconds=self.timeout,
            body_seconds=self.timeout,
        )


def serve(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Model folders.")],
    flags: ServeFlags = ServeFlags(),
    run: RunOptions = RunOptions(),
    messages: Messages = Messages(),
) -> None:
    """Answer images over HTTP, with a page to try the model. SIGTERM or Ctrl-C ends it."""
    with server_packages():
        from headstart.serve.app import make_app
        from headstart.serve.run import address, listen
        from headstart.serve.run import run as run_server
    from headstart.serve.models import Models

    options = flags.options
    served = Models.of(models, run.compute, flags.max_batch)
    _log_to_standard_error(messages)
    listener = listen(options)
    if options.insecure and options.token is None:
        print_notes(["Without a token everybody who reaches this machine can use the server (--insecure)."])
    print(line(address(options, listener)), flush=True)
    app = make_app(served, options)
    run_server(app, options, listener)


@contextmanager
def server_packages() -> Iterator[None]:
    """Say how to install what pages are served with, where it cannot be imported. Raises MissingExtraError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name in ("starlette", "uvicorn", "h11"):
            raise missing_extra("Serving pages needs Starlette and uvicorn", "serve") from None
        raise


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _log_to_standard_error(messages: Messages) -> None:
    """Print what the server tells of its models, and errors of the server itself, each as a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("headstart: %(message)s"))
    for name, level in (
        ("headstart.serve", logging.WARNING if messages.quiet else logging.INFO),
        ("uvicorn.error", logging.ERROR),
    ):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
