"""The program, how its commands are declared, and the options that several commands share.

Options that belong together are fields of a small dataclass, and a command takes the whole group as one parameter.
"""

from __future__ import annotations

import dataclasses
import errno
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from headstart import __version__
from headstart.cli import config, examples
from headstart.cli.terminal import ProgressCallback, line, print_notes, progress_bar
from headstart.errors import HeadstartError, VerifyError, one_line, shorten
from headstart.machine import return_freed_memory

if TYPE_CHECKING:
    from headstart.data import ReadOptions
    from headstart.features import Compute, FeatureCache

DONE, CONDITION_FAILED, WRONG_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143  # exit statuses
MANY_IMAGES = 4096
FULL = (errno.ENOSPC, errno.EDQUOT)
USAGE_ERROR: Any = typer.BadParameter.__base__  # click's, of which newer versions of typer hold a copy of their own
METAVARS = {"text": "TEXT", "str": "TEXT", "integer": "N", "int": "N", "float": "X", "path": "PATH"}  # by type
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


class _Group(TyperGroup):
    """Commands in the order in which they were declared, which is the order in which people need them."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # typer's signature
        return list(self.commands)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=CONTEXT,
    help="A folder of images in, a trustworthy image classifier out: transfer learning without a training framework.",
    epilog="Exit statuses: 0 done; 1 done, but a condition failed (see the command); 2 wrong input; 130 interrupted.",
)
backbones_app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=CONTEXT,
    help="List, show, download, import, quantize and remove backbones.",
)


def _print_version(value: bool) -> None:
    if value:
        print(f"headstart {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


class Command(TyperCommand):
    """A command whose help lists its options under the headings of their panels."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments, and take the other options from the environment and the configuration file: see config.py.

        An error that names an argument is one line without control characters. Raises OptionError for the file, and
        for an argument that is empty.
        """
        config.check_not_empty(args)
        path, file, note = config.command_path(ctx), None, ""
        options: list[Any] = [param for param in self.params if param.param_type_name == "option"]
        for param in options:
            if path and (name := config.option_name(param)):
                param.envvar, param.show_envvar = config.variable(path, name), False
        if not ctx.resilient_parsing:
            file, note = config.find_file(args)
            if file is not None:
                ctx.default_map = config.read_options(file, path, options, ctx.find_root().command)
        try:
            rest = super().parse_args(ctx, args)
        except USAGE_ERROR as error:
            error.message = shorten(line(_in_words(error.message)))
            if "unexpected extra" in error.message and (hint := examples.ELSEWHERE.get(" ".join(path))):
                error.message += f" ({hint})"
            param = getattr(error, "param", None)
            if param is not None and param.param_type_name == "argument" and " " in param.make_metavar(ctx):
                error.param_hint = f"'{param.make_metavar(ctx).split()[-1]}'"  # of "[MODEL]... DATA" it is DATA
            raise
        sources = {} if ctx.resilient_parsing else config.sources_of(ctx, path, file)
        config.option_sources.set(sources)
        print_notes([*([note] if note else []), *([config.describe(sources)] if sources else [])])
        return rest

    def panels(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:
        """Return the rows of the help, option and text, by the heading under which they stand."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if param.metavar is None and not getattr(param, "is_flag", False):
                param.metavar = METAVARS.get(param.type.name.split()[0])  # typer's would be <int range>
            record = param.get_help_record(ctx)
            if record is not None:
                is_argument = param.param_type_name == "argument"
                panel = "Arguments" if is_argument else getattr(param, "rich_help_panel", None) or "Options"
                panels.setdefault(panel, []).append(record)
        return panels

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options by panel."""
        for title, rows in self.panels(ctx).items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples of the command."""
        if found := examples.EXAMPLES.get(" ".join(config.command_path(ctx))):
            with formatter.section("Examples"):
                formatter.write_dl(found)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line; required arguments without typer's braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


@cache  # several commands share a group, and every start pays for them
def _field_hints(group: type) -> dict[str, Any]:
    return get_type_hints(group, include_extras=True)


def add_command(target: typer.Typer, function: Callable[..., None], name: str | None = None) -> None:
    """Add a command. The fields of a parameter that is a dataclass become options of their own.

    Whatever ends a command becomes its exit status and at most one line on standard error: see ``exit_status``.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, type] = {}
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            groups[parameter.name] = hint
            field_hints = _field_hints(hint)
            for field in dataclasses.fields(hint):
                parameters.append(
                    inspect.Parameter(
                        field.name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=field.default,
                        annotation=field_hints[field.name],
                    )
                )
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hint))

    parameters.append(inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=CONFIG))

    def run(**values: Any) -> None:
        del values["config"]  # the command line has read it
        grouped = {
            name: group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        run_command(partial(function, **values, **grouped))

    run.__doc__ = function.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    target.command(name or function.__name__.replace("_", "-"), cls=Command, context_settings=CONTEXT)(run)


def run_command(function: Callable[[], None]) -> None:
    """Run a command and turn what ends it into an exit status: see ``exit_status``."""
    try:
        function()
        sys.stdout.flush()
    except (HeadstartError, OSError, KeyboardInterrupt) as error:
        raise typer.Exit(exit_status(error)) from None


def _in_words(message: str) -> str:
    """Return a message of typer with the kinds of numbers in words: "int range" is no range that one could give."""
    for kind, words in (("int", "a whole number"), ("float", "a number")):
        message = message.replace(f"is not a valid {kind} range.", f"is not {words}.")
        message = message.replace(f"is not a valid {kind}.", f"is not {words}.")
    return message


def exit_status(error: HeadstartError | OSError | KeyboardInterrupt) -> int:
    """Print what ended a command as one line on standard error, and return the exit status.

    0: the reader of a pipe has seen enough. 1: done, but a stated condition failed. 2: wrong input or usage, or files
    that the system refuses. 130: interrupted. Anything else that is raised is a bug and keeps its traceback.
    """
    if isinstance(error, BrokenPipeError):
        _discard_output()
        return DONE
    if isinstance(error, KeyboardInterrupt):
        text, status = "interrupted.", INTERRUPTED
    elif isinstance(error, HeadstartError):
        text, status = str(error), CONDITION_FAILED if isinstance(error, VerifyError) else WRONG_INPUT
    else:
        _discard_output()
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        mend = "; make room, and run the same command again" if place and error.errno in FULL else ""
        text, status = f"{place}{error.strerror or one_line(error)}{mend}.", WRONG_INPUT
    with suppress(OSError):
        print(shorten(f"headstart: {line(text)}"), file=sys.stderr)
    return status


def _discard_output() -> None:
    """Discard what is still to be written to standard output, which the interpreter flushes once more as it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def files_follow() -> Iterator[None]:
    """Print what the reader of a pipe need not read to its end: files that were asked for are still to be written.

    Without this a command ends where its reader does.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()


def save_memory(images: int) -> None:
    """Return freed memory to the system at once where there are many images, at the cost of a little time."""
    if images >= MANY_IMAGES:
        return_freed_memory()


# Panels: under which heading of the help an option stands.
common = partial(typer.Option, rich_help_panel="Most used")
data_option = partial(typer.Option, rich_help_panel="Data")
backbone_option = partial(typer.Option, rich_help_panel="Backbone")
head_option = partial(typer.Option, rich_help_panel="Head")
evaluation_option = partial(typer.Option, rich_help_panel="Evaluation")
run_option = partial(typer.Option, rich_help_panel="Run")

CONFIG = Annotated[
    Path | None,
    run_option(metavar="FILE", help=f"Take options from this file [default: {config.FILE}]."),
]
DEFAULT_BACKBONE = "headstart-m"  # that of headstart.backbones, whose import every start would pay for; a test compares
BACKBONE_HELP = "Network: headstart-m, headstart-s, onnx:FILE, hf:ORG/NAME, timm:NAME[?pad_type=same] or keras:NAME."
RUNTIME_HELP = "What runs the network; auto: a GPU (extra cuda), else OpenVINO if installed, else ONNX Runtime."
PRECISION_HELP = "auto: bf16 with OpenVINO where the processor has it, else fp32; a large fit: int8 where it pays."

GROUP_BY_HELP = "auto (copies and scenes), none, folder, name:PATTERN like 'name:{*}-#', exif[:SECONDS], or a column."

DataArgument = Annotated[
    str,
    typer.Argument(metavar="DATA", help="Folder, zip or tar archive, table (.csv, .parquet, .jsonl) or URL of these."),
]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A model folder.")]
JsonOption = Annotated[bool, run_option("--json", help="Print JSON alone on standard output.")]
SeedOption = Annotated[int, run_option(metavar="N", help="Random seed.")]
StrictOption = Annotated[bool, run_option("--strict", help="Exit with status 1 if an image could not be read.")]


MultiLabelOption = Annotated[
    bool | None,
    data_option("--multi-label/--single-label", help="Read a table as one of several labels an image, or refuse that."),
]
LabelSeparatorOption = Annotated[
    str | None, data_option(metavar="SEPARATOR", help="What separates several labels in a cell; ; and | are found.")
]


@dataclass(frozen=True)
class ReadFlags:
    """How DATA is read."""

    layout: Annotated[
        str,
        data_option(
            metavar="LAYOUT", help="auto, class/image, split/class/image, class/split/image or image (unlabelled)."
        ),
    ] = "auto"
    follow_links: Annotated[bool, data_option("--follow-links", help="Follow links that leave DATA, too.")] = False
    path_column: Annotated[
        str | None, data_option(metavar="NAME", help="Column of the paths in a table, by default found by name.")
    ] = None
    label_column: Annotated[
        str | None, data_option(metavar="NAME", help="Column of the labels, by default found by name.")
    ] = None
    split_column: Annotated[
        str | None, data_option(metavar="NAME", help="Column of the splits, by default found by name.")
    ] = None
    fetch: Annotated[bool, data_option("--fetch", help="Read the images behind https addresses in a table.")] = False

    def read_options(self, group_by: str = "auto") -> ReadOptions:
        """Return the library's `ReadOptions`; ``group_by`` may name the column of the groups. Raises OptionError."""
        from headstart.data import ReadOptions
        from headstart.splits.named import parse_group_by

        names = {field.name for field in dataclasses.fields(ReadOptions)}
        values = {name: value for name, value in vars(self).items() if name in names}
        return ReadOptions(**values, group_column=parse_group_by(group_by).column)


@dataclass(frozen=True)
class LabelFlags(ReadFlags):
    """How labelled DATA are read."""

    classes: Annotated[
        str | None, data_option(metavar="FILE", help="Rename, merge and leave out classes: rows of class,name (CSV).")
    ] = None


@dataclass(frozen=True)
class Format:
    """The form of a result; text for people by default."""

    as_json: Annotated[bool, run_option("--json", help="Print JSON alone on standard output, one object per line.")] = (
        False
    )
    as_csv: Annotated[bool, run_option("--csv", help="Print comma-separated values with a header.")] = False


@dataclass(frozen=True)
class RunOptions:
    """What runs networks, and on how many threads."""

    runtime: Annotated[str, run_option(metavar="auto|onnxruntime|openvino|onnxruntime-cuda", help=RUNTIME_HELP)] = (
        "auto"
    )
    precision: Annotated[str, run_option(metavar="auto|fp32|bf16|int8", help=PRECISION_HELP)] = "auto"
    workers: Annotated[
        int | None, run_option(min=1, metavar="N", help="Number of threads; one per core by default.")
    ] = None

    @property
    def compute(self) -> Compute:
        """Return the `Compute` of the library."""
        from headstart.features import Compute

        return Compute(self.runtime, self.precision, self.workers)


@dataclass(frozen=True)
class CachedRunOptions(RunOptions):
    """Options of the run, with the feature cache."""

    cache: Annotated[
        bool, run_option("--cache/--no-cache", help="Keep features on disk, and read those that are kept.")
    ] = True

    def open_cache(self) -> AbstractContextManager[FeatureCache | None]:
        """Open the feature cache, or nothing."""
        from headstart.features import FeatureCache

        return FeatureCache() if self.cache else nullcontext()


@dataclass(frozen=True)
class Messages:
    """What a command prints on standard error."""

    quiet: Annotated[bool, run_option("--quiet", help="Print no progress; notes and warnings are still printed.")] = (
        False
    )
    progress: Annotated[
        bool | None, run_option("--progress/--no-progress", help="Show progress; by default on a terminal only.")
    ] = None

    def bar(
        self, title: str, *, unit: str = "images", unit_size: float = 1
    ) -> AbstractContextManager[ProgressCallback | None]:
        """Return a progress bar, or nothing."""
        return progress_bar(title, self.quiet, self.progress, unit=unit, unit_size=unit_size)

    def log(self, text: str) -> None:
        """Print a line about what goes on, unless nothing of the kind is wanted."""
        if not self.quiet:
            print(shorten(line(text)), file=sys.stderr)
