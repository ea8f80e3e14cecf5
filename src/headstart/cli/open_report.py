"""headstart open, and the browser that shows a report."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from headstart.cli.options import ModelArgument
from headstart.cli.terminal import line
from headstart.errors import ModelError, shell_word

REPORT = "report.html"


def open_report(model: ModelArgument) -> None:
    """Show the report of a model in a browser."""
    page = Path(model) / REPORT
    if not Path(model).is_dir():
        raise ModelError(f"There is no model folder {model}; make one with: headstart fit DATA -o {shell_word(model)}")
    if page.is_symlink() or not page.is_file():
        from headstart.report.storage import FILE, HOW_MADE

        mend = (
            f"; write it with: headstart report {shell_word(model)}"
            if (Path(model) / FILE).is_file()
            else f": {HOW_MADE}."
        )
        raise ModelError(f"{model} has no {REPORT}{mend}")
    print(line(str(page)))
    show(page)


def show(page: Path) -> None:
    """Show a page in a browser, or say where it is."""
    show_address(page.resolve().as_uri())


def show_address(address: str) -> None:
    """Show what is at an address in a browser, or say where it is."""
    import webbrowser  # every start would pay for it

    if not (has_screen() and webbrowser.open(address)):
        print(line(f"There is no browser here; open {address}"), file=sys.stderr)


def has_screen() -> bool:
    """Return whether a browser could show a page: one in a terminal would take the place of the command."""
    is_desktop = sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY"))
    return is_desktop or bool(os.environ.get("WAYLAND_DISPLAY") or os.environ.get("BROWSER"))
