"""What commands print: results on standard output, progress and notes on standard error.

What they print of fits and of evaluations is in ``fit_output.py`` and ``evaluation_output.py``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headstart.errors import shorten

if TYPE_CHECKING:
    from headstart.check import Finding
    from headstart.compare import BackboneComparison
    from headstart.compare.ranking import ComparedCut
    from headstart.data import Dataset
    from headstart.model import Predictions

MAX_QUARANTINED = 10
MAX_SET = 5  # classes of a prediction set
MAX_FINDINGS = 5  # of a kind
NAME_WIDTH = 24
NAME_LENGTH = 300  # of a name among others
ProgressCallback = Callable[[int, int | None], None]  # takes what is done, and the total or None


@contextmanager
def progress_bar(
    title: str, quiet: bool, show: bool | None, *, unit: str = "images", unit_size: float = 1
) -> Iterator[ProgressCallback | None]:
    """Show a bar with rate and time left on standard error; by default only if that is a terminal.

    What is yielded takes what is done and the total (None: not known), in ``unit_size`` parts of a unit.
    """
    if quiet or show is False or (show is None and not sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, force_terminal=None if sys.stderr.isatty() else False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, rate="")
        start = time.perf_counter()

        def report(done: int, total: int | None) -> None:
            rate = done / unit_size / max(time.perf_counter() - start, 1e-3)
            units = None if total is None else round(total / unit_size)
            bar.update(task, completed=int(done / unit_size), total=units, rate=f"{rate:,.0f} {unit}/s")

        yield report


def line(text: str) -> str:
    """Return text as one line without control characters, which names may hold and which could steer a terminal.

    A byte that is not UTF-8, which Python keeps as a lone surrogate from U+DC80 on, is shown as that byte.
    """
    return "".join(
        c if c.isprintable() or c == "\t" else f"\\x{ord(c) - 0xDC00 if 0xDC80 <= ord(c) <= 0xDCFF else ord(c):02x}"
        for c in text
    )


def print_json(value: dict[str, Any] | list[Any]) -> None:
    """Print one JSON value on one line; NaN is a bug, not JSON."""
    from headstart.files import json_text  # every start would pay for its imports

    print(json_text(value))


def print_notes(notes: Sequence[str]) -> None:
    """Print what the user must know beside the result."""
    for note in notes:
        print(shorten(line(f"note: {note}")), file=sys.stderr)


def print_skipped(dataset: Dataset) -> None:
    """Say how many files of the input are no images."""
    if skipped := unexpected(dataset.skip_counts):
        print(shorten(line(f"Skipped {reasons(skipped)}")), file=sys.stderr)


def unexpected(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts of skipped files without those about the data, which are no fault of anything."""
    from headstart.data.layout import ABOUT_THE_DATA  # every start would pay for its imports

    return {reason: count for reason, count in counts.items() if reason != ABOUT_THE_DATA}


def reasons(counts: Mapping[str, int]) -> str:
    """Return how many files there are for each reason, in one line."""
    return ", ".join(f"{counted(count, 'file')} ({reason})" for reason, count in counts.items())


def print_quarantined(quarantined: Sequence[Mapping[str, str]]) -> None:
    """Name the first images that could not be read ("path") and why ("reason")."""
    if not quarantined:
        return
    print(f"{counted(len(quarantined), 'image')} could not be read:", file=sys.stderr)
    for image in quarantined[:MAX_QUARANTINED]:
        print(shorten(line(f"  {image['path']}: {image['reason']}")), file=sys.stderr)
    if len(quarantined) > MAX_QUARANTINED:
        print(f"  and {len(quarantined) - MAX_QUARANTINED} more", file=sys.stderr)


def print_prediction(predictions: Predictions, i: int, count: int) -> None:
    """Print the path of an image, ``count`` classes, the predicted one first, and a prediction set of several."""
    fields = [predictions.paths[i]]
    if predictions.is_rejected is not None and predictions.is_rejected[i]:
        fields += ["none of these", "nearest:"]
    for c in predictions.ranking(i)[:count]:
        fields += [predictions.classes[c], f"{predictions.probabilities[i, c]:.1%}"]
    members = predictions.prediction_set(i) or []
    if len(members) > 1:
        fields.append(f"could be {', '.join(members[:MAX_SET])}" + (", ..." if len(members) > MAX_SET else ""))
    print(line("\t".join(fields)))


def print_backbone_comparison(comparison: BackboneComparison) -> None:
    """Print the rows of a comparison as a table, at most 80 columns wide."""
    groups, runtime = comparison.groups, comparison.runtime
    classes, is_multi_label = len(comparison.classes), comparison.is_multi_label
    kinds, quality = ("labels", "mAP") if is_multi_label else ("classes", "acc.")
    print(line(f"Images    {comparison.images} of {classes} {kinds}, in {groups.count} groups ({groups.method})"))
    print(f"{'':3}{'backbone':24} {'cut':15} {'loss':>6} {'':6} {quality:>6}  {'img/s':>7}  {'MB':>5}")
    for row in comparison.rows:
        marks = "".join(mark if holds else " " for mark, holds in zip(">=*", _properties(row), strict=True))
        half_width = (row.interval[1] - row.interval[0]) / 2
        speed = "-" if row.images_per_second is None else f"{row.images_per_second:,.0f}"
        name, cut = fitted(comparison.name_of(row), 23), fitted("+".join(row.cut), 15)
        print(
            f"{marks}{name:24} {cut:15} {row.log_loss:6.3f} ±{half_width:<5.3f} {share_text(row.accuracy.value):>6}  "
            f"{speed:>7}  {row.bytes / 1e6:5.1f}"
        )
    meaning = "mAP: mean average precision" if is_multi_label else "acc.: accuracy"
    print(f"loss: log-loss leaving one group out at a time, with its 95% interval; {meaning}")
    print(f"img/s: a short timed run of the network alone here, {runtime.name} {runtime.precision}")
    print("= as good as the best within the noise   * none is better in loss, speed and size")
    recommended = comparison.recommended
    print(line(f"> {recommended.label} at {', '.join(recommended.cut)}: {comparison.reason}"))
    for what, why in comparison.skipped:
        print(line(f"skipped: {what} ({why})"))


def _properties(row: ComparedCut) -> tuple[bool, bool, bool]:
    return row.recommended, row.tied, row.pareto


def print_findings(findings: Sequence[Finding], images: int) -> None:
    """Print the findings of a check by kind, a few of each, how many more there are, and how to see them."""
    if not findings:
        print(f"{counted(images, 'image')} checked, nothing found")
        return
    print(f"{counted(images, 'image')} checked, {counted(len(findings), 'finding')}")
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    hidden = 0
    for kind, members in kinds.items():
        print(line(f"{kind.replace('_', ' ')}: {len(members)}"))
        # One more line would tell of a single finding that it is hidden.
        shown = members if len(members) == MAX_FINDINGS + 1 else members[:MAX_FINDINGS]
        for finding in shown:
            files = listed(finding.files, 4, " = ")
            prefix = f"{files}: " if files else ""
            print(line(f"  {finding.certainty:8}  {prefix}{finding.why.removesuffix('.')}; {finding.action}"))
        if len(members) > len(shown):
            hidden += len(members) - len(shown)
            print(f"            and {len(members) - len(shown)} more")
    if hidden:
        count = counted(hidden, "finding")
        print(f"{count} not listed: --report check.html shows all with their images, --json names all")


def listed(names: Sequence[str], count: int, separator: str = ", ") -> str:
    """Join the first names, and say how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return separator.join(shorten(name, NAME_LENGTH) for name in names[:count]) + more


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, whose ``plural`` has an "s" by default: 1 image, 2 images."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"


def number_text(value: object) -> str:
    """Return a setting as text, numbers to three digits."""
    return str(value) if isinstance(value, str | int) else f"{value:.3g}"


def share_text(value: float | None) -> str:
    """Return a share as a percentage, - where there is none."""
    return "-" if value is None else f"{value:.1%}"


def fitted(text: str, width: int) -> str:
    """Shorten text to a width by leaving out its middle."""
    text = line(text)
    start = width // 3
    return text if len(text) <= width else f"{text[:start]}..{text[len(text) - (width - start - 2) :]}"
