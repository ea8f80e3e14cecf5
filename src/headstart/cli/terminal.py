"""What the commands show: results on standard output, progress and notes on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.check import Finding
    from headstart.compare.models import Comparison
    from headstart.data import Quarantined
    from headstart.model.predictions import Evaluation, Prediction

SHOWN = 5  # classes of a set


@contextmanager
def progress_bar(
    title: str, quiet: bool, wanted: bool | None, *, unit: str = "pictures", each: float = 1
) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar with rate and time left on standard error; nothing when that is no terminal, unless asked for."""
    if quiet or wanted is False or (wanted is None and not sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, force_terminal=None if sys.stderr.isatty() else False)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, rate="")
        started = time.perf_counter()

        def report(done: int, total: int | None) -> None:
            rate = done / each / max(time.perf_counter() - started, 1e-3)
            whole = None if total is None else round(total / each)
            bar.update(task, completed=int(done / each), total=whole, rate=f"{rate:,.0f} {unit}/s")

        yield report


def line(text: str) -> str:
    """One line that a terminal cannot be steered by: names from outside may hold control characters.

    A byte that is not UTF-8, which Python keeps as a lone surrogate from U+DC80 on, is shown as that byte.
    """
    return "".join(
        c if c.isprintable() or c == "\t" else f"\\x{ord(c) - 0xDC00 if 0xDC80 <= ord(c) <= 0xDCFF else ord(c):02x}"
        for c in text
    )


def print_json(value: dict[str, Any] | list[Any]) -> None:
    """One JSON value on one line; NaN is a bug, not JSON."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


def tell_quarantine(quarantined: Sequence[Quarantined], quiet: bool) -> None:
    """Name the first pictures that were left out, with their reasons."""
    if not quarantined or quiet:
        return
    print(f"{len(quarantined)} pictures could not be read and were left out:", file=sys.stderr)
    for refused in quarantined[:10]:
        print(line(f"  {refused.path}: {refused.reason}"), file=sys.stderr)
    if len(quarantined) > 10:
        print(f"  and {len(quarantined) - 10} more, all named in run.json", file=sys.stderr)


def print_fit(classifier: Any, folder: str, seconds: float) -> None:
    """What ``fit`` found, for people."""
    run = classifier.run_
    images, groups, head = run["images"], run["groups"], run["head"]
    values = {k: v if isinstance(v, str | int) else f"{v:.3g}" for k, v in head.items()}
    settings = ", ".join(f"{k} {v}" for k, v in values.items() if k not in ("kind", "temperature"))
    names = ", ".join(run["classes"][:6]) + (f" and {len(run['classes']) - 6} more" if len(run["classes"]) > 6 else "")
    passed = ", ".join(f"{count} {reason}" for reason, count in images["skipped"].items())
    print(line(f"Pictures    {images['train']} to learn from, {images['validation']} held out; classes: {names}"))
    if passed:
        print(line(f"            skipped: {passed}"))
    print(f"Groups      {groups['count']}, the largest of {groups['largest']} pictures; found by {groups['method']}")
    print(line(f"Head        {head['kind']} ({settings}) on {', '.join(run['cut'])} of {run['backbone']['id']}"))
    titles = {"validation": "held-out pictures", "leave_group_out": "groups left out"}
    for key, title in titles.items():
        if key in classifier.accuracy_:
            print(f"Accuracy    {classifier.accuracy_[key]} on {title}")
    if run["learning_curve"] is not None:
        print(more_pictures(run["learning_curve"]["expectation"]))
    cache, runtime = run["cache"], run["runtime"]
    print(
        f"Time        {seconds:.1f} s; features by {runtime['name']} {runtime['precision']}, "
        f"{cache['misses']} computed, {cache['hits']} from the cache"
    )
    print(line(f"Model       {folder}"))


def more_pictures(expected: Mapping[str, Any]) -> str:
    """What the learning curve expects of more pictures, in one line."""
    low, high = expected["interval"]
    return (
        f"More        with {expected['more']} more pictures expect {expected['accuracy']:.1%} "
        f"({low:.1%} to {high:.1%}) on groups left out"
    )


def print_answer(found: Prediction, row: int, top: int) -> None:
    """One picture's answer: path, class and probability for each class named, then the set if it holds others."""
    fields = [found.paths[row]]
    if found.none_of_these is not None and found.none_of_these[row]:
        fields += ["none of these", "nearest:"]
    order = found.probabilities[row].argsort()[::-1][:top]
    for i in order:
        fields += [found.classes[i], f"{found.probabilities[row, i]:.1%}"]
    could_be = found.set_of(row) or []
    if len(could_be) > 1:
        fields.append(f"could be {', '.join(could_be[:SHOWN])}" + (", ..." if could_be[SHOWN:] else ""))
    print(line("\t".join(fields)))


def print_evaluation(found: Evaluation) -> None:
    """How often a model was right, and whether its promises were kept."""
    print(f"Accuracy  {found.accuracy}")
    promises = found.promises
    if promises is None:
        return
    if found.covered is not None:
        print(
            f"Sets      {found.covered} hold the true class, {promises.coverage:.0%} promised; "
            f"{found.set_size:.2f} classes a set"
        )
    if found.refused is not None:
        print(f"Refused   {found.refused} of known classes, {promises.false_alarms:.0%} promised")
    if found.caught is not None:
        print(f"Refused   {found.caught} of classes that the model does not know")


def print_comparison(found: Comparison) -> None:
    """Which model is better, and whether that is more than chance."""
    width = max(len(name) for name in found.models)
    for name, evaluation in zip(found.models, found.evaluations, strict=True):
        print(line(f"{name:{width}}  {evaluation.accuracy}"))
    pictures, groups = len(found.evaluations[0].paths), found.groups.count
    for pair in found.differences:
        first, second, points = found.models[pair.first], found.models[pair.second], 100 * pair.difference
        low, high = (100 * end for end in pair.interval)
        detail = (
            f"{points:+.1f} points (95% interval {low:+.1f} to {high:+.1f}, {groups} groups resampled); right alone on "
            f"{pair.only_second} and {pair.only_first} pictures (McNemar p {pair.p_value:.2g})"
        )
        if pair.real:
            better, worse = (second, first) if points > 0 else (first, second)
            print(line(f"{better} is better than {worse}: {second} has {detail}"))
        else:
            print(line(f"{pictures} pictures show no difference between {first} and {second}: {second} has {detail}"))


def print_confusion(table: Any, classes: Sequence[str]) -> None:
    """The most frequent mistakes, first."""
    wrong = [
        (int(table[i, j]), classes[i], classes[j]) for i in range(len(classes)) for j in range(len(classes)) if i != j
    ]
    for count, truth, answer in sorted((w for w in wrong if w[0]), reverse=True)[:10]:
        print(line(f"{count:8}  {truth} taken for {answer}"))


def print_findings(findings: Sequence[Finding], pictures: int) -> None:
    """What ``check`` found, for people: kinds in order of weight, a few files of each."""
    if not findings:
        print(f"{pictures} pictures looked at, nothing found")
        return
    print(f"{pictures} pictures looked at, {len(findings)} findings")
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    for kind, some in kinds.items():
        print(line(f"{kind.replace('_', ' ')}: {len(some)}"))
        for finding in some[:5]:
            files = " = ".join(finding.files[:4]) + (f" and {len(finding.files) - 4} more" if finding.files[4:] else "")
            print(line(f"  {finding.confidence:4.0%}  {files}{': ' if files else ''}{finding.why}; {finding.action}"))
        if some[5:]:
            print(f"        and {len(some) - 5} more (--json names all)")
