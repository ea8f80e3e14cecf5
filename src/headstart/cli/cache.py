"""headstart cache"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.options import CONDITION_FAILED, JsonOption
from headstart.cli.terminal import counted, line, print_json, print_notes
from headstart.errors import OptionError
from headstart.machine import cache_folder

if TYPE_CHECKING:
    from headstart.features.cache_contents import Cleared, Content


def cache(
    clear: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="Delete what is kept of a kind, such as features or toolchains, or all; may be given several times. "
            "Backbones that were imported under a name stay.",
        ),
    ] = None,
    unused_days: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=36_500,
            help="Delete only what was not used for N days. With --clear.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what the cache on this machine holds, or delete it."""
    from headstart.features import cache_contents

    if unused_days is not None and not clear:
        raise OptionError("--unused-days says what --clear deletes; give that too.")
    if not clear:
        _print_contents(cache_contents.contents(), as_json)
        return
    cleared = cache_contents.clear(clear, unused_days or 0)
    if as_json:
        print_json({"folder": str(cache_folder()), "cleared": [_cleared_values(one) for one in cleared]})
    else:
        _print_cleared(cleared)
    if any(one.failed for one in cleared):
        raise typer.Exit(CONDITION_FAILED)


def _print_contents(found: Sequence[Content], as_json: bool) -> None:
    total = sum(content.bytes for content in found)
    if as_json:
        kinds = [
            {
                "kind": one.kind.name,
                "entries": one.entries,
                "bytes": one.bytes,
                "imported": one.imported,
                "notes": list(one.notes),
            }
            for one in found
        ]
        print_json({"folder": str(cache_folder()), "bytes": total, "kinds": kinds})
        return
    print(line(f"Folder      {cache_folder()}: {_size_text(total)}"))
    for one in found:
        if one.entries or one.bytes:
            imported = f", {one.imported} of them imported by name" if one.imported else ""
            print(line(f"{one.kind.name:12}{_size_text(one.bytes):>8}  {one.kind.what}: {one.entries:,}{imported}"))
        print_notes(one.notes)
    if total:
        print("To delete:  headstart cache --clear KIND, or --clear all")


def _print_cleared(cleared: Sequence[Cleared]) -> None:
    for one in cleared:
        kept = f"; {counted(one.kept, 'imported backbone')} kept (headstart backbones remove)" if one.kept else ""
        print(line(f"{one.kind.name:12}{_size_text(one.bytes):>8}  deleted, {one.kind.what}: {one.entries:,}{kept}"))
        print_notes(one.failed)


def _cleared_values(one: Cleared) -> dict[str, object]:
    return {
        "kind": one.kind.name,
        "entries": one.entries,
        "bytes": one.bytes,
        "kept": one.kept,
        "failed": list(one.failed),
    }


def _size_text(count: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"
    return f"{count} B"
