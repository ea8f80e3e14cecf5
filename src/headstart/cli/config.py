"""Options from a configuration file and from the environment, and where each option of a command came from.

A command takes an option from its arguments, else from ``HEADSTART_COMMAND_OPTION``, else from the table of the command
in the file: the one named by ``--config``, or ``headstart.toml`` in the working folder. A file of that name in the
data is never read: whoever sends data must not choose what is done with them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from headstart.errors import OptionError, one_line

FILE = "headstart.toml"
MAX_BYTES = 64 * 1024
# Of the command that runs: see ``sources_of``.
option_sources: ContextVar[Mapping[str, str] | None] = ContextVar("option_sources", default=None)


def option_name(param: Any) -> str:
    """Return the name of an option as a file has it: "group-by" of ``--group-by``."""
    names = [name for name in param.opts if name.startswith("--")]
    return str(names[0]).removeprefix("--") if names else ""


def command_path(ctx: Any) -> list[str]:
    """Return the name of a command, with that of its group before it where it has one."""
    names: list[str] = []
    while ctx.parent is not None:
        names.insert(0, str(ctx.info_name))
        ctx = ctx.parent
    return names


def variable(path: Sequence[str], name: str) -> str:
    """Return the environment variable of an option of a command.

    >>> variable(["backbones", "list"], "json")
    'HEADSTART_BACKBONES_LIST_JSON'
    """
    return "_".join(("HEADSTART", *path, name)).replace("-", "_").upper()


def check_not_empty(args: Sequence[str]) -> None:
    """Raise OptionError for an empty argument: as a path it would be the folder that the command runs in.

    Texts that describe are refused too: nobody means to give none.
    """
    for before, argument in zip(("the command", *args), args, strict=False):
        if not argument or re.fullmatch("--[a-z-]+=", argument):
            raise OptionError(
                f"An argument is empty ({argument or f'behind {before}'}), as where a shell variable is not set; "
                "give it a value."
            )


def find_file(args: Sequence[str]) -> tuple[Path | None, str]:
    """Return the configuration file of a command with these arguments, if there is one, and a note about it."""
    for i, argument in enumerate(args):
        if argument == "--":
            break
        if argument == "--config" and i + 1 < len(args):
            return Path(args[i + 1]), ""
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config=")), ""
    path = Path(FILE)
    if not path.is_file():
        return None, ""
    here = Path.cwd()
    folders = [Path(argument).resolve() for argument in args if os.path.isdir(argument)]  # noqa: PTH112
    if any(folder in (here, *here.parents) for folder in folders):
        return None, f"{FILE} lies in a folder that is named here, and is not read; to use it: --config {FILE}"
    return path, ""


def read_options(file: Path, path: Sequence[str], params: Sequence[Any], commands: Any) -> dict[str, Any]:
    """Return the options that a file has for the command ``path``, by the name of the parameter.

    ``commands`` is the group of all commands, by which unknown tables are told. Raises OptionError.
    """
    tables = _read(file)
    _check_tables(file, tables, commands)
    table: Any = tables
    for part in path:
        table = table.get(part, {})
    options = {option_name(param): param for param in params if param.param_type_name == "option"}
    values = {}
    for name, value in table.items():
        param = options.get(name)
        if param is None or name in ("help", "config"):
            raise OptionError(f"{file}: [{'.'.join(path)}] has no option {name!r}{_similar(name, options)}.")
        if isinstance(value, list) != bool(param.multiple) or not _is_plain(value):
            kind = "a list of values" if param.multiple else "one text, number or true or false"
            raise OptionError(f"{file}: {name} of [{'.'.join(path)}] cannot be used; expected {kind}.")
        if isinstance(value, bool) and not param.is_flag:
            raise OptionError(f"{file}: {name} of [{'.'.join(path)}] takes a value, not true or false.")
        values[param.name] = value
    return values


def _read(file: Path) -> dict[str, Any]:
    import tomllib  # every start would pay for these

    from headstart.files import open_regular

    try:
        with open_regular(file) as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise OptionError(f"The configuration {file} cannot be read: {error.strerror or one_line(error)}.") from None
    if len(data) > MAX_BYTES:
        raise OptionError(f"The configuration {file} has more than {MAX_BYTES:,} bytes; give a smaller one.")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise OptionError(f"The configuration {file} is not TOML: {one_line(error)}.") from None


def _check_tables(file: Path, tables: Mapping[str, Any], group: Any, prefix: str = "") -> None:
    """Raise OptionError for a table that is no command, so that a misspelt one is not ignored."""
    for name, value in tables.items():
        command = group.commands.get(name)
        if command is None or not isinstance(value, dict):
            raise OptionError(
                f"{file}: {prefix}{name} is no command{_similar(name, group.commands)}; give each option in the table "
                "of its command, as in [fit]."
            )
        if hasattr(command, "commands"):
            _check_tables(file, value, command, f"{name} ")


def _is_plain(value: Any) -> bool:
    return all(isinstance(one, str | int | float) for one in (value if isinstance(value, list) else [value]))


def _similar(name: str, known: Mapping[str, Any]) -> str:
    """Return a suggestion in parentheses, or nothing."""
    import difflib  # every start would pay for it

    match = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {match[0]}?)" if match else ""


def sources_of(ctx: Any, path: Sequence[str], file: Path | None) -> dict[str, str]:
    """Return, by the name of each option that was neither given nor left out, the file or variable it came from."""
    sources = {}
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name)
        kind = "" if source is None else source.name
        if kind == "ENVIRONMENT":
            sources[option_name(param)] = variable(path, option_name(param))
        elif kind == "DEFAULT_MAP":
            sources[option_name(param)] = str(file)
    return sources


def describe(sources: Mapping[str, str]) -> str:
    """Return one line: "options from headstart.toml: backbone, group-by; from the environment: HEADSTART_FIT_SEED"."""
    files: dict[str, list[str]] = {}
    for name, source in sources.items():
        is_variable = source.startswith("HEADSTART_")
        files.setdefault("the environment" if is_variable else source, []).append(source if is_variable else name)
    texts = [f"{source}: {', '.join(names)}" for source, names in files.items()]
    return f"options from {'; from '.join(texts)}"
