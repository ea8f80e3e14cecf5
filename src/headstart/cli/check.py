"""headstart check"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.options import (
    BACKBONE_HELP,
    CONDITION_FAILED,
    DEFAULT_BACKBONE,
    GROUP_BY_HELP,
    CachedRunOptions,
    DataArgument,
    JsonOption,
    LabelFlags,
    LabelSeparatorOption,
    Messages,
    MultiLabelOption,
    StrictOption,
    save_memory,
)
from headstart.cli.terminal import line, print_findings, print_json, print_notes
from headstart.errors import shell_word
from headstart.machine import quiet_frameworks

UNNAMED = "they are kept together only with their copies and scenes"  # images without the name of a group


@dataclass(frozen=True)
class CheckFlags(LabelFlags):
    """How DATA is read and grouped, be it with one label an image or with several."""

    group_by: Annotated[
        str,
        typer.Option(metavar="RULE", help=f"Images to keep together: {GROUP_BY_HELP}"),
    ] = "auto"
    multi_label: MultiLabelOption = None
    label_separator: LabelSeparatorOption = None


def check(
    data: DataArgument,
    fix_list: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write a table (.csv) of all images with the findings, to edit and fit."),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write a page (.html) of the findings with images, to tick and save corrections."
        ),
    ] = None,
    backbone: Annotated[str, typer.Option(metavar="ID", help=BACKBONE_HELP)] = DEFAULT_BACKBONE,
    as_json: JsonOption = False,
    reading: CheckFlags = CheckFlags(),
    run: CachedRunOptions = CachedRunOptions(),
    strict: StrictOption = False,
    messages: Messages = Messages(),
) -> None:
    """Find duplicates, leaks, label issues and poor images."""
    from headstart.check import check_dataset, check_names, check_table_file, left_out_notes, write_table
    from headstart.data import open_dataset
    from headstart.splits.named import name_groups, parse_group_by, unnamed_notes

    if fix_list is not None:
        check_table_file(fix_list)  # before the work, not after it
    if report is not None:
        from headstart.report.check_page import write_check_page  # imported late: most checks write no page
        from headstart.report.storage import check_page_file

        check_page_file(report)
    by = parse_group_by(reading.group_by)
    dataset = name_groups(open_dataset(data, reading.read_options(reading.group_by)), by)
    if fix_list is not None:
        check_names(dataset, Path(fix_list))
    print_notes([*dataset.notes, *unnamed_notes(dataset, by, UNNAMED)])
    save_memory(len(dataset))
    with quiet_frameworks(), run.open_cache() as cache, messages.bar("Reading features") as bar:
        result = check_dataset(dataset, run.compute, backbone=backbone, cache=cache, progress=bar)
        if report is not None:
            write_check_page(dataset, result, report, cache=cache, workers=run.compute.workers)
    rows = None if fix_list is None else write_table(dataset, result.findings, result.groups, fix_list)
    table = fix_list or (report and f"The table that {report} saves")
    left_out = left_out_notes(dataset, table) if table else []
    print_notes([*result.notes, *left_out, *([] if cache is None else cache.notes)])
    if as_json:
        print_json({"findings": [finding.to_dict() for finding in result.findings]})
    else:
        print_findings(result.findings, len(dataset))
    if fix_list is not None and not messages.quiet:
        how = f"headstart fit {shell_word(fix_list)}{' --multi-label' if dataset.is_multi_label else ''}"
        print(line(f"{fix_list} lists {rows} images; edit it, then: {how}"), file=sys.stderr)
    if report is not None and not messages.quiet:
        print(line(f"{report} shows the findings; open it in a browser"), file=sys.stderr)
    if strict and any(finding.kind == "unreadable" for finding in result.findings):
        raise typer.Exit(CONDITION_FAILED)
