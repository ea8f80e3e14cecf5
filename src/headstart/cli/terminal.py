"""What the commands print: results on standard output, progress and notes on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headstart.errors import shorten

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headstart.check import Finding
    from headstart.classifier import FitResult
    from headstart.classifier.preview import Preview
    from headstart.compare import BackboneComparison, ModelComparison
    from headstart.compare.models import ModelDifference
    from headstart.compare.ranking import ComparedCut
    from headstart.data import Dataset
    from headstart.model import Evaluation, Predictions
    from headstart.stats.classification import ClassificationMetrics

MAX_QUARANTINED = 10
MAX_CLASSES = 6  # names in a line
MAX_SET = 5  # classes of a prediction set
MAX_ERRORS = 10
MAX_SKIPPED = 3  # names of a reason
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
    if dataset.skipped:
        print(shorten(line(f"Skipped {_reasons(dataset.skip_counts)}")), file=sys.stderr)


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{_count(count, 'file')} ({reason})" for reason, count in counts.items())


def print_quarantined(quarantined: Sequence[Mapping[str, str]]) -> None:
    """Name the first images that could not be read ("path") and why ("reason")."""
    if not quarantined:
        return
    print(f"{_count(len(quarantined), 'image')} could not be read:", file=sys.stderr)
    for image in quarantined[:MAX_QUARANTINED]:
        print(shorten(line(f"  {image['path']}: {image['reason']}")), file=sys.stderr)
    if len(quarantined) > MAX_QUARANTINED:
        print(f"  and {len(quarantined) - MAX_QUARANTINED} more", file=sys.stderr)


def print_fit(result: FitResult, folder: str, seconds: float, *, by_default: bool) -> None:
    """Print what a fit used and found; ``by_default``: the user gave no backbone."""
    run = result.model.run
    images, groups, cache, runtime = (run[key] for key in ("images", "groups", "cache", "runtime"))
    classes = _names(run["classes"], MAX_CLASSES)
    print(
        line(f"Images      {images['train']} for training, {images['validation']} for validation; classes: {classes}")
    )
    if images["layout"]:
        print(line(f"Read as     {images['layout']}"))
    if images["skipped"]:
        print(line(f"Skipped     {_reasons(images['skipped'])}"))
    _print_groups(groups)
    if by_default:
        _print_default_backbone()
    if "class_weight" in run:
        weights = [f"{name} {weight:.3g}" for name, weight in run["class_weight"]["weights"].items()]
        print(line(f"Weights     {_names(weights, MAX_CLASSES)}"))
    print(line(f"Head        {_describe_head(run)} on {', '.join(run['cut'])} of {run['backbone']['id']}"))
    titles = {"validation": "on validation images", "leave_group_out": "leaving one group out at a time"}
    for key, title in titles.items():
        if key in result.accuracy:
            print(f"Accuracy    {result.accuracy[key]} {title}")
            _print_baseline(result.evaluations[key].metrics)
            _print_cost(result.evaluations[key])
    if "decision" in run:
        print(line(f"Decisions   {run['decision']['description'].partition(' ')[2]}"))
    if run["learning_curve"] is not None:
        print(f"More data   {_expectation(run['learning_curve']['expectation'])}")
    print(
        f"Time        {seconds:.1f} s; features by {runtime['name']} {runtime['precision']}: "
        f"{cache['misses']} computed, {cache['hits']} from the cache"
    )
    print(line(f"Model       {folder}"))


def _describe_head(run: Mapping[str, Any]) -> str:
    """Describe the head, in a few words: its kind and settings, and how many heads it is the average of."""
    head = run["head"]
    settings = {name: value for name, value in head.items() if name not in ("kind", "temperature")}
    text = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in settings.items())
    parts = [candidate for candidate in run["candidates"] if candidate["weight"] > 0]
    if len(parts) > 1:
        kinds = sorted({part["kind"] for part in parts}, reverse=True)
        text = f"average of {len(parts)}{', ' if text else ''}{text}"
        return f"{' and '.join(kinds)} ({text})"
    return f"{head['kind']} ({text})" if text else str(head["kind"])


def _print_default_backbone() -> None:
    """Say which backbone is used where none was given, and how to have the faster one."""
    from headstart.backbones import DEFAULT_BACKBONE, FAST_BACKBONE  # every start would pay for its imports
    from headstart.backbones.providers.builtin import built_in

    used, fast = built_in(DEFAULT_BACKBONE), built_in(FAST_BACKBONE)
    times = fast.measured.images_per_second / used.measured.images_per_second
    print(
        f"Backbone    {used.id} ({used.network}, {used.size[0]} px); --backbone {fast.id} is a little less accurate, "
        f"but reads images about {times:.2g} times as fast"
    )


def _print_groups(groups: Mapping[str, Any]) -> None:
    largest = _count(groups["largest"], "image")
    methods = {"none": "each image is a group", "column": "from the group column", "folder": "from the folders"}
    method = methods.get(groups["method"], f"found by {groups['method']}")
    print(line(f"Groups      {groups['count']}, the largest of {largest}; {method}"))


def print_preview(preview: Preview) -> None:
    """Print how a fit would read the data, and about what it would take."""
    from headstart.data.dataset import paths_by_reason  # every start would pay for its imports

    dataset, images = preview.dataset, preview.images
    print(line(f"Read as     {dataset.layout or 'images with labels'}"))
    print(line(f"Images      {', '.join(f'{count} {split}' for split, count in images.items())}"))
    print(line(f"Endings     {_endings(preview.endings_read)}"))
    if preview.groups is None:
        print("Groups      found by the fit: near duplicates and scenes")
    else:
        _print_groups(preview.groups)
    for reason, paths in paths_by_reason(dataset.skipped).items():
        print(line(f"Skipped     {_count(len(paths), 'file')} ({reason}): {_names(paths, MAX_SKIPPED)}"))
    if preview.endings_skipped:
        print(line(f"            endings that are not read: {_endings(preview.endings_skipped)}"))
    if preview.cost is not None:
        cost = preview.cost
        print(
            f"Time        about {_duration(cost.seconds)} for the features of {_count(cost.images, 'image')} "
            f"(by a trial of {cost.trial}), less for images in the cache; the heads come on top"
        )
        print(f"Memory      about {cost.bytes / 2**20:,.0f} MiB")
    width = max(NAME_WIDTH, 12)
    print(f"{'class':{width}}" + "".join(f"{split:>12}" for split in images))
    for name, counts in preview.counts.items():
        print(f"{_fitted(name, width):{width}}" + "".join(f"{count:12}" for count in counts.values()))
    print("Nothing was written. To fit, leave --dry-run out.")


def _endings(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{ending} ({count})" for ending, count in counts.items())


def _duration(seconds: float) -> str:
    """Return a duration for people: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _print_baseline(metrics: ClassificationMetrics) -> None:
    """Print what the most frequent class alone would give, where the classes are so uneven that it matters."""
    if metrics.is_uneven:
        name, share = metrics.majority
        balanced = metrics.balanced_accuracy
        print(line(f"Baseline    {share:.1%} by always predicting {name}; balanced accuracy {balanced:.1%}"))


def _print_cost(evaluation: Evaluation) -> None:
    """Print the mean cost of the predictions, where there are costs."""
    if evaluation.cost is not None:
        print(f"Cost        {evaluation.cost}")


def _expectation(expected: Mapping[str, Any]) -> str:
    low, high = expected["interval"]
    return (
        f"with {_count(expected['more'], 'more image')} expect {expected['accuracy']:.1%} "
        f"({low:.1%} to {high:.1%}), leaving one group out at a time"
    )


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


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the accuracy, and how well prediction sets and rejection meet their targets."""
    print(f"Accuracy    {evaluation.accuracy}")
    metrics = evaluation.metrics
    print(f"            balanced accuracy {metrics.balanced_accuracy:.1%}, macro F1 {metrics.macro_f1:.1%}")
    _print_baseline(metrics)
    _print_cost(evaluation)
    if evaluation.decision:
        print(line(f"Decisions   {evaluation.decision.partition(' ')[2]}"))
    thresholds = evaluation.predictions.thresholds
    if thresholds is None:
        return
    if evaluation.coverage is not None:
        print(
            f"Sets        {evaluation.coverage} hold the true class (target {thresholds.coverage:.0%}); "
            f"{evaluation.set_size:.2f} classes per set"
        )
    if evaluation.false_rejections is not None:
        print(f"Rejected    {evaluation.false_rejections} of known classes (target {thresholds.false_alarms:.0%})")
    if evaluation.ood_recall is not None:
        print(f"Rejected    {evaluation.ood_recall} of classes that the model does not know")


def print_class_table(metrics: ClassificationMetrics) -> None:
    """Print precision, recall, F1 and the number of images of each class."""
    width = max(NAME_WIDTH, 12)
    print(f"{'class':{width}} {'precision':>9} {'recall':>9} {'F1':>9} {'images':>8}")
    for row in metrics.per_class:
        values = " ".join(f"{_share(value):>9}" for value in (row.precision, row.recall, row.f1))
        print(f"{_fitted(row.name, width):{width}} {values} {row.support:8}")
    macro = (metrics.macro_precision, metrics.macro_recall, metrics.macro_f1)
    values = " ".join(f"{value:9.1%}" for value in macro)
    print(f"{'macro average':{width}} {values} {sum(row.support for row in metrics.per_class):8}")


def print_confusion(counts: NDArray[np.integer], classes: Sequence[str]) -> None:
    """Print the most frequent errors, first."""
    k = len(classes)
    errors = [(int(counts[i, j]), classes[i], classes[j]) for i in range(k) for j in range(k) if i != j]
    for count, truth, predicted in sorted((error for error in errors if error[0]), reverse=True)[:MAX_ERRORS]:
        print(line(f"{count:8}  {truth} predicted as {predicted}"))


def print_model_comparison(comparison: ModelComparison) -> None:
    """Print the accuracy of each model, and for each pair whether the difference is significant."""
    width = max(len(name) for name in comparison.models)
    for name, evaluation in zip(comparison.models, comparison.evaluations, strict=True):
        print(line(f"{name:{width}}  {evaluation.accuracy}"))
    for pair in comparison.differences:
        print(line(_difference(comparison, pair)))


def _difference(comparison: ModelComparison, pair: ModelDifference) -> str:
    first, second, paired = comparison.models[pair.first], comparison.models[pair.second], pair.paired
    points = 100 * paired.difference
    low, high = (100 * bound for bound in paired.interval)
    detail = (
        f"{second} is {points:+.1f} points from {first} (95% interval {low:+.1f} to {high:+.1f}, "
        f"{comparison.groups.count} groups resampled); only {second} is correct on "
        f"{_count(paired.only_second, 'image')}, only {first} on {paired.only_first} (McNemar p {paired.p_value:.2g})"
    )
    if paired.significant:
        better, worse = (second, first) if points > 0 else (first, second)
        return f"{better} is better than {worse}: {detail}"
    images = len(comparison.evaluations[0].predictions)
    return f"{_count(images, 'image')} show no difference between {first} and {second}: {detail}"


def print_backbone_comparison(comparison: BackboneComparison) -> None:
    """Print the rows of a comparison as a table, at most 80 columns wide."""
    groups, runtime = comparison.groups, comparison.runtime
    classes = len(comparison.classes)
    print(line(f"Images    {comparison.images} of {classes} classes, in {groups.count} groups ({groups.method})"))
    print(f"{'':3}{'backbone':24} {'cut':15} {'loss':>6} {'':6} {'acc.':>6}  {'img/s':>7}  {'MB':>5}")
    for row in comparison.rows:
        marks = "".join(mark if holds else " " for mark, holds in zip(">=*", _properties(row), strict=True))
        half_width = (row.interval[1] - row.interval[0]) / 2
        speed = "-" if row.images_per_second is None else f"{row.images_per_second:,.0f}"
        name, cut = _fitted(row.label, 23), _fitted("+".join(row.cut), 15)
        print(
            f"{marks}{name:24} {cut:15} {row.log_loss:6.3f} ±{half_width:<5.3f} {row.accuracy.value:6.1%}  "
            f"{speed:>7}  {row.bytes / 1e6:5.1f}"
        )
    print("loss: log-loss leaving one group out at a time, with its 95% interval; acc.: accuracy")
    print(f"img/s: a short timed run of the network alone here, {runtime.name} {runtime.precision}")
    print("= as good as the best within the noise   * none is better in loss, speed and size")
    recommended = comparison.recommended
    print(line(f"> {recommended.label} at {', '.join(recommended.cut)}: {comparison.reason}"))
    for what, why in comparison.skipped:
        print(line(f"skipped: {what} ({why})"))


def _properties(row: ComparedCut) -> tuple[bool, bool, bool]:
    return row.recommended, row.tied, row.pareto


def print_findings(findings: Sequence[Finding], images: int) -> None:
    """Print the findings of a check by kind, a few files of each."""
    if not findings:
        print(f"{_count(images, 'image')} checked, nothing found")
        return
    print(f"{_count(images, 'image')} checked, {_count(len(findings), 'finding')}")
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    for kind, members in kinds.items():
        print(line(f"{kind.replace('_', ' ')}: {len(members)}"))
        for finding in members[:MAX_FINDINGS]:
            files = _names(finding.files, 4, " = ")
            prefix = f"{files}: " if files else ""
            print(line(f"  {finding.certainty:8}  {prefix}{finding.why}; {finding.action}"))
        if len(members) > MAX_FINDINGS:
            print(f"            and {len(members) - MAX_FINDINGS} more (--json names all)")


def _names(names: Sequence[str], count: int, separator: str = ", ") -> str:
    """Join the first names, and say how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return separator.join(shorten(name, NAME_LENGTH) for name in names[:count]) + more


def _count(number: int, noun: str) -> str:
    """Return a number with its noun: 1 image, 2 images."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _number(value: object) -> str:
    return str(value) if isinstance(value, str | int) else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _fitted(text: str, width: int) -> str:
    """Shorten text to a width by leaving out its middle."""
    text = line(text)
    start = width // 3
    return text if len(text) <= width else f"{text[:start]}..{text[len(text) - (width - start - 2) :]}"
