"""What the site takes from the code itself: the page of all commands with their options."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from typer.main import get_command

from headstart.cli import app
from headstart.cli.examples import EXAMPLES

MARKER = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marker by the reference of the commands (MkDocs calls this for every page)."""
    return markdown.replace(MARKER, reference()) if MARKER in markdown else markdown


def reference() -> str:
    """Describe every command: its usage, arguments and options by panel, from the code."""
    return "\n".join(line for name, command in commands(get_command(app)) for line in _describe(name, command))


def commands(group: Any, prefix: str = "headstart ") -> Iterator[tuple[str, Any]]:
    """Yield the full name of every command, and the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def _describe(name: str, command: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=name)
    yield f"## {name}\n"
    yield f"{command.help}\n"
    yield f"```text\n{' '.join([name, *command.collect_usage_pieces(context)])}\n```\n"
    for panel, rows in command.panels(context).items():
        yield f"| {panel} | |\n|---|---|"
        for option, text in rows:
            if not option.endswith("--help"):
                yield f"| <code>{_cell(option)}</code> | {_cell(text)} |"
        yield ""
    for example, text in EXAMPLES.get(name.removeprefix("headstart "), ()):
        yield f"    {example}  # {text}"
    yield ""


def _cell(text: str) -> str:
    """Return text as HTML whose bars do not end a cell of a table."""
    return escape(text, quote=False).replace("|", "&#124;")
