"""The page of ``headstart check``: findings with images, boxes to tick, and a table of the corrections to save."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from headstart.check import CheckResult, Finding
from headstart.check.table import MAX_CELL, header_of, table_rows
from headstart.data import Dataset, Item
from headstart.data.label_cells import needs_lists
from headstart.errors import OptionError
from headstart.features import FeatureCache
from headstart.files import escape_name, table_row, table_text
from headstart.machine import single_threaded_blas
from headstart.report import thumbnails
from headstart.report.page import jpeg_url, json_element, render_template
from headstart.report.storage import check_page_file, write_file
from headstart.report.text import clip, clip_start, plain
from headstart.report.view.findings import KINDS

SCRIPTS = ("elements.js", "corrections.js", "viewer.js")
MAX_TABLE = 50_000  # rows of the table that the page can save
MAX_FINDINGS = 5_000  # on the page
MAX_FILES = 60  # of a finding
MAX_OTHERS = 20_000  # images without a finding that can be found and corrected
MAX_OTHER_PREVIEWS = 1_300  # about as many as THUMBNAILS_BYTES hold: those of photographs have 6 kB each
THUMBNAILS_BYTES = 8_000_000
MAX_PATH = 160  # last characters of a path that are shown


def write_check_page(
    dataset: Dataset,
    result: CheckResult,
    file: str | os.PathLike[str],
    *,
    cache: FeatureCache | None = None,
    workers: int | None = None,
) -> Path:
    """Write the page of a check, and return its path.

    The table that it saves is that of ``check.write_table`` beside the page, without what is dropped there, and with
    the labels and groups chosen there. Where ``write_table`` would refuse the table the page says why, and saves none.
    Raises OptionError as ``check_page_file``, ModelError when the file cannot be written.
    """
    page = check_page_file(file)
    findings = result.findings[:MAX_FINDINGS]
    target = Path(os.path.abspath(page))  # noqa: PTH100  # as in check.table
    try:
        table = _table(dataset, result, target) if len(dataset) <= MAX_TABLE else None
        no_table = f"More than {MAX_TABLE:,} images: use headstart check --fix-list." if table is None else ""
    except OptionError as error:
        table, no_table = None, str(error)
    rows = {} if table is None else table.row_of
    shown = _Images(dataset, result, findings, rows)
    with single_threaded_blas():
        jpegs = thumbnails.thumbnails(
            dataset, result.features, shown.feature_rows, cache, workers, max_bytes=THUMBNAILS_BYTES
        )
    content = {  # as ASCII, and not by files.json_text: the cells of the table are escaped already
        "kinds": _kinds(findings, shown.index_of),
        "images": shown.describe(jpegs, rows),
        "firstOther": shown.first_other,
        "classes": [clip(plain(name)) for name in dataset.label_names or dataset.classes],
        "isMultiLabel": dataset.is_multi_label,
        "table": None if table is None else {"header": table_row(header_of(dataset)), **table.cells},
    }
    html = render_template(
        "check.html.j2",
        SCRIPTS,
        title=PurePosixPath(dataset.uri.rstrip("/")).name or "data",
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        image_count=len(dataset),
        finding_count=len(result.findings),
        hidden_count=len(result.findings) - len(findings),
        no_table=no_table,
        notes=result.notes,
        folder=plain(str(target.parent)),
        can_correct=table is not None,
        is_multi_label=dataset.is_multi_label,
        hidden_others=shown.hidden_others,
        without_preview=len(shown.index_of) - len(jpegs),
        script_data=json_element(json.dumps(content, separators=(",", ":"))),
    )
    write_file(page, html)
    return page


@dataclass(frozen=True)
class _Table:
    """The table that the page saves: rows and class labels quoted for CSV, so that its script has nothing to quote.

    ``cells`` has "rows", of path, label, split, group and the rest of the line, and the "labels" of the classes. Where
    images have several, these are the parts of a cell, quoted by the script: "labels", and "starts" at its beginning;
    "asLists" says that a cell is a list in JSON, and "maxCell" how many characters it may have. ``row_of`` has the
    number of the row of an image by its path in the dataset.
    """

    cells: Mapping[str, object]
    row_of: Mapping[str, int]


def _table(dataset: Dataset, result: CheckResult, target: Path) -> _Table:
    """Return the table of a page at ``target``. Raises OptionError where it could not name the images."""
    rows: list[list[str]] = []
    row_of: dict[str, int] = {}
    for path, cells in table_rows(dataset, result.findings, result.groups, target):
        row_of[path] = len(rows)
        quoted = [_cell(cell) for cell in cells]
        rows.append([*quoted[:4], ",".join(quoted[4:])])
    names, as_lists = dataset.label_names, needs_lists(dataset.label_names)
    if not dataset.is_multi_label:
        return _Table({"rows": rows, "labels": [_cell(table_text(name)) for name in dataset.classes]}, row_of)
    labels = [*names] if as_lists else [escape_name(name) for name in names]
    starts = [table_text(name) for name in names]
    parts = {"labels": labels, "starts": starts, "asLists": as_lists, "maxCell": MAX_CELL}
    return _Table({"rows": rows, **parts}, row_of)


def _cell(text: str) -> str:
    return table_row([text])[:-1] if text else ""


class _Images:
    """The images of the findings, each once, in the order of the findings, then other images of the table.

    The first of these others is ``first_other``; ``hidden_others`` are not on the page.
    """

    def __init__(
        self, dataset: Dataset, result: CheckResult, findings: Sequence[Finding], table_rows: Mapping[str, int]
    ) -> None:
        self._items = {item.path: item for item in dataset.items}
        self._label_names = dataset.label_names
        paths = dict.fromkeys(path for finding in findings for path in finding.files[:MAX_FILES])
        in_findings = {path for finding in result.findings for path in finding.files}  # also in those beyond the limits
        others = [path for path in table_rows if path not in in_findings]
        self.first_other, self.hidden_others = len(paths), max(0, len(others) - MAX_OTHERS)
        self.index_of = {path: i for i, path in enumerate([*paths, *others[:MAX_OTHERS]])}
        row_of = {dataset.items[int(i)].path: row for row, i in enumerate(result.features.index)}
        with_preview = [*paths, *others[:MAX_OTHER_PREVIEWS]]
        self._row_of = {path: row_of[path] for path in with_preview if path in row_of}
        self.feature_rows = list(self._row_of.values())

    def describe(self, jpegs: Mapping[int, bytes], table_row_of: Mapping[str, int]) -> list[dict[str, object]]:
        """Return what the page shows of each image; ``jpegs`` by row of the features."""
        images: list[dict[str, object]] = []
        place = {name: c for c, name in enumerate(self._label_names)}
        for path in self.index_of:
            item, row = self._items.get(path), self._row_of.get(path)
            label = "" if item is None else clip(plain(item.label or _label_text(item)))
            images.append(
                {
                    "path": clip_start(plain(path), MAX_PATH),
                    "label": label,
                    "split": "" if item is None else item.split,
                    "row": table_row_of.get(path, -1),
                    "jpeg": jpeg_url(jpegs[row]) if row is not None and row in jpegs else "",
                }
            )
            if item is not None and item.labels is not None:
                images[-1] |= {
                    "holds": [place[name] for name in item.labels],
                    "unknown": sorted(place[name] for name in item.unknown),
                    "isRestUnknown": item.is_rest_unknown,
                }
        return images


def _label_text(item: Item) -> str:
    """Return the labels of an image of several in words, with those of which it is not known whether it has them."""
    texts = sorted(item.labels or ())
    unknown = [*sorted(item.unknown), *(["all others"] if item.is_rest_unknown else [])]
    return "; ".join([*texts, *([f"not known: {', '.join(unknown)}"] if unknown else [])])


def _kinds(findings: Sequence[Finding], index_of: Mapping[str, int]) -> list[dict[str, object]]:
    """Return the findings by kind, most serious kind first."""
    kinds: list[dict[str, object]] = []
    for kind, (title, description) in KINDS.items():
        members = [finding for finding in findings if finding.kind == kind]
        if members:
            shown: list[dict[str, object]] = [
                {
                    "images": [index_of[path] for path in finding.files[:MAX_FILES]],
                    "more": max(0, len(finding.files) - MAX_FILES),
                    "why": clip(plain(finding.why), 400),
                    "certainty": finding.certainty,
                    "action": clip(plain(finding.action), 300),
                    "suggestion": clip(plain(finding.suggested_label)),
                }
                for finding in members
            ]
            kinds.append({"kind": kind, "title": title, "description": description, "findings": shown})
    return kinds
