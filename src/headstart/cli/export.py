"""headstart export"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from headstart.cli.open_report import show_address
from headstart.cli.options import (
    JsonOption,
    Messages,
    ModelArgument,
    ReadFlags,
    common,
    data_option,
    run_option,
)
from headstart.cli.terminal import line, print_json, print_notes
from headstart.errors import OptionError

if TYPE_CHECKING:
    from headstart.data import Dataset, ReadOptions
    from headstart.export import Export
    from headstart.export.answers import Comparison
    from headstart.model.model import Model

FORMATS_HELP = "onnx, openvino, litert, savedmodel, coreml, torch, web or hub."


@dataclass(frozen=True)
class ExportFlags(ReadFlags):
    """The format, and the images to prove the export on."""

    output: Annotated[
        Path | None, common("-o", "--output", metavar="DIR", help="Folder to write; MODEL-FORMAT by default.")
    ] = None
    precision: Annotated[
        str,
        common(
            metavar="auto|fp32|fp16|int8",
            help="auto: that of the model; fp16: openvino, coreml; int8: onnx, openvino, web, hub.",
        ),
    ] = "auto"
    any_size: Annotated[
        bool, common("--any-size", help="onnx, openvino: take one decoded image of any size; crop and resize inside.")
    ] = False
    data: Annotated[
        str | None,
        data_option(
            metavar="DATA", help="Images to prove the export on; the model's own validation images by default."
        ),
    ] = None
    runtime_dir: Annotated[
        Path | None,
        run_option("--runtime-dir", metavar="DIR", help="web: the folder dist of onnxruntime-web, to fetch nothing."),
    ] = None
    no_install: Annotated[
        bool,
        run_option("--no-install", help="litert, savedmodel, coreml: install no converter; say what would be run."),
    ] = False
    open_page: Annotated[
        bool, run_option("--open", help="web: show the page in a browser, until Ctrl+C; nobody else can reach it.")
    ] = False
    force: Annotated[bool, common("--force", help="Write an export, too, that does not answer as the model does.")] = (
        False
    )


def export(
    model: ModelArgument,
    to: Annotated[str, common("--to", metavar="FORMAT", help=FORMATS_HELP)],
    flags: ExportFlags = ExportFlags(),
    as_json: JsonOption = False,
    messages: Messages = Messages(),
) -> None:
    """Export a model for another runtime, proven to answer the same."""
    from headstart.export import ExportOptions, export_model
    from headstart.model.folder import read_model

    if flags.open_page and to != "web":
        raise OptionError(f"--to {to} has no page to open; leave --open out.")
    output = flags.output or Path(f"{Path(model).resolve().name}-{to}")
    fitted = read_model(model)
    data = None if flags.data is None else _open_data(flags.data, flags.read_options(), fitted)
    options = ExportOptions(flags.precision, flags.any_size, flags.runtime_dir, install=not flags.no_install)
    with messages.bar("Proving") as bar:
        result = export_model(fitted, to, output, options, data=data, force=flags.force, progress=bar)
    print_notes(result.notes)
    if as_json:
        print_json({"export": str(output), **result.parity})
    else:
        _print_export(result, to)
    if flags.open_page:
        from headstart.export.web_server import serve_page

        sys.stdout.flush()
        serve_page(output, show_address)


def _open_data(uri: str, options: ReadOptions, model: Model) -> Dataset:
    """Open images to prove an export on: the labelled ones to evaluate on, where there are labels."""
    from headstart.data import open_dataset
    from headstart.data.table_files import is_table
    from headstart.model.predictor import labelled_part

    if model.is_multi_label and is_table(uri):
        options = replace(options, multi_label=True)  # also a table in which no image has several
    data = open_dataset(uri, options)
    print_notes(data.notes)
    return labelled_part(data) if data.classes or data.is_multi_label else data


def _print_export(result: Export, to: str) -> None:
    runtime = result.parity["runtime"]
    size = f"{result.bytes / 1e6:.1f} MB"
    print(line(f"Export      {result.folder} ({to}, {result.about.precision}, {size})"))
    if result.proof is not None:
        print(line(f"Runtime     {runtime['name']} {runtime['version']}, compared with onnxruntime"))
        for comparison in result.proof.comparisons:
            print(line(describe(comparison)))
        print_notes(result.proof.remarks)
    if result.data is not None:
        print(line(describe(result.data.comparison)))
        if result.data.decoding is not None:
            print(line(describe(result.data.decoding)))
    if result.recount is not None:
        counts = result.recount
        names = {"correct": counts.correct, "covered": counts.covered, "rejected": counts.rejected}
        text = ", ".join(f"{before} -> {after} {name}" for name, (before, after) in names.items())
        trained = f", {counts.training} of them trained on" if counts.training else ""
        print(line(f"Recount     {counts.images} images{trained}: {text}"))
    for what, command in result.not_proven:
        print(line(f"Not proven here: {what}; run: {command}"))
    for problem in result.problems:
        print(line(f"Problem     {problem}"))


def describe(comparison: Comparison) -> str:
    """Return a comparison as one line."""
    unread = f", {len(comparison.unread)} not read" if comparison.unread else ""
    return (
        f"{comparison.of.capitalize():<18} {comparison.images} images: largest difference "
        f"{comparison.probability:.2g} in a probability, {comparison.score:.2g} in a score, "
        f"{comparison.distance:.2g} in an OOD score; "
        f"{comparison.changed} changed answers{unread}"
    )
