"""What ``fit`` prints: its result, and with ``--dry-run`` what it would read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli.evaluation_output import print_baseline, print_cost, print_weak_classes
from headstart.cli.terminal import NAME_WIDTH, counted, fitted, line, listed, number_text, reasons, unexpected

if TYPE_CHECKING:
    from headstart.classifier import FitResult
    from headstart.classifier.preview import Preview
    from headstart.features.rows import FeatureRows

MAX_CLASSES = 6  # names in a line
MAX_SKIPPED = 3  # names of a reason
TITLES = {"validation": "on validation images", "leave_group_out": "leaving one group out at a time"}


def print_fit(result: FitResult, folder: str, seconds: float, *, by_default: bool) -> None:
    """Print what a fit found, first, and what it used; ``by_default``: the user gave no backbone."""
    run = result.model.run
    for key, title in TITLES.items():
        if key in result.accuracy:
            print(f"Accuracy    {result.accuracy[key]} {title}")
            print_weak_classes(result.evaluations[key])
            print_baseline(result.evaluations[key].metrics)
            print_cost(result.evaluations[key])
    if "decision" in run:
        print(line(f"Decisions   {run['decision']['description'].partition(' ')[2]}"))
    if run["learning_curve"] is not None:
        print(f"More data   {_expectation(run['learning_curve']['expectation'])}")
    _print_data(run)
    if by_default:
        _print_default_backbone()
    print(line(f"Head        {_describe_head(run)} on {', '.join(run['cut'])} of {run['backbone']['id']}"))
    print_time(run, seconds)
    if result.kept is not None:
        print_kept(result.kept, folder)
    print(line(f"Model       {folder}"))


def print_time(run: Mapping[str, Any], seconds: float) -> None:
    """Print how long a fit took, and where its features came from."""
    cache, runtime = run["cache"], run["runtime"]
    counts = f"{cache['misses']} computed, {cache['hits']} from the cache"
    if not cache["misses"] + cache["hits"]:
        counts = "kept, none computed"
    print(f"Time        {seconds:.1f} s; features by {runtime['name']} {runtime['precision']}: {counts}")


def print_statistics_fit(run: Mapping[str, Any], folder: str, seconds: float) -> None:
    """Print what a fit to statistics alone gave, and that nothing is measured."""
    head, tried = run["head"], len(run["generalised_cross_validation"])
    chosen = f"chosen of {tried} by generalised cross-validation" if tried else "given"
    setting, value = next((name, number) for name, number in head.items() if name not in ("kind", "temperature"))
    print("Accuracy    not measured: the model was made of statistics alone")
    print(line(f"Images      {run['images']['train']:,} for training; classes: {listed(run['classes'], MAX_CLASSES)}"))
    print("Groups      not measured: every image counts by itself")
    what = f"{head['kind']} ({setting} {number_text(value)}, {chosen})"
    print(line(f"Head        {what} on {', '.join(run['cut'])} of {run['backbone']['id']}"))
    print(f"Time        {seconds:.1f} s")
    print(line(f"Model       {folder}"))


def statistics_summary(run: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return what ``merge --json`` prints of a model of statistics, from the content of ``run.json``."""
    images = {**run["images"], "quarantined": len(run["images"]["quarantined"])}
    left_out = ("versions", "data", "images")
    return {"model": folder, "images": images, **{key: run[key] for key in run if key not in left_out}}


def print_kept(kept: FeatureRows, folder: str) -> None:
    """Print how many rows a model keeps, and what they take."""
    from headstart.model.folder_files import FEATURES

    place = Path(folder) / FEATURES
    size = sum(path.stat().st_size for path in place.iterdir())
    print(line(f"Features    {len(kept.rows):,} images, {size / 1e6:.1f} MB in {place}"))


def _print_data(run: Mapping[str, Any]) -> None:
    """Print which images and groups a fit used, and the weights of the classes."""
    images, classes = run["images"], listed(run["classes"], MAX_CLASSES)
    print(
        line(f"Images      {images['train']} for training, {images['validation']} for validation; classes: {classes}")
    )
    if images["layout"]:
        print(line(f"Read as     {images['layout']}"))
    if skipped := unexpected(images["skipped"]):
        print(line(f"Skipped     {reasons(skipped)}"))
    print_groups(run["groups"])
    if "class_weight" in run:
        weights = [f"{name} {weight:.3g}" for name, weight in run["class_weight"]["weights"].items()]
        print(line(f"Weights     {listed(weights, MAX_CLASSES)}"))


def _describe_head(run: Mapping[str, Any]) -> str:
    """Describe the head, in a few words: its kind and settings, and how many heads it is the average of."""
    head = run["head"]
    settings = {name: value for name, value in head.items() if name not in ("kind", "temperature")}
    text = ", ".join(f"{name.replace('_', ' ')} {number_text(value)}" for name, value in settings.items())
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


def print_groups(groups: Mapping[str, Any]) -> None:
    """Print how many groups there are, and how they were found."""
    largest = counted(groups["largest"], "image")
    methods = {"none": "each image is a group", "column": "from the group column", "folder": "from the folders"}
    method = methods.get(groups["method"], f"found by {groups['method']}")
    print(line(f"Groups      {groups['count']}, the largest of {largest}; {method}"))


def print_preview(preview: Preview) -> None:
    """Print how a fit would read the data, and about what it would take."""
    from headstart.data.dataset import paths_by_reason  # every start would pay for its imports

    dataset, images = preview.dataset, preview.images
    print(line(f"Read as     {dataset.layout or 'images with labels'}"))
    if dataset.is_multi_label:
        print(line(f"Labels      {dataset.label_summary}"))
    print(line(f"Images      {', '.join(f'{count} {split}' for split, count in images.items())}"))
    print(line(f"Endings     {_endings(preview.endings_read)}"))
    if preview.groups is None:
        print("Groups      found by the fit: near duplicates and scenes")
    else:
        print_groups(preview.groups)
    for reason, paths in paths_by_reason(dataset.skipped).items():
        print(line(f"Skipped     {counted(len(paths), 'file')} ({reason}): {listed(paths, MAX_SKIPPED)}"))
    if preview.endings_skipped:
        print(line(f"            endings that are not read: {_endings(preview.endings_skipped)}"))
    if preview.cost is not None:
        cost = preview.cost
        print(
            f"Time        about {_duration(cost.seconds)} for the features of {counted(cost.images, 'image')} "
            f"(by a trial of {cost.trial}), less for images in the cache; the heads come on top"
        )
        print(f"Memory      about {cost.bytes / 2**20:,.0f} MiB")
    width = max(NAME_WIDTH, 12)
    print(f"{'label' if dataset.is_multi_label else 'class':{width}}" + "".join(f"{split:>12}" for split in images))
    for name, counts in preview.counts.items():
        print(f"{fitted(name, width):{width}}" + "".join(f"{count:12}" for count in counts.values()))
    print("Nothing was written. To fit, leave --dry-run out.")


def _endings(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{ending} ({count})" for ending, count in counts.items())


def _duration(seconds: float) -> str:
    """Return a duration for people: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _expectation(expected: Mapping[str, Any]) -> str:
    low, high = expected["interval"]
    return (
        f"with {counted(expected['more'], 'more image')} expect {expected['accuracy']:.1%} "
        f"({low:.1%} to {high:.1%}), leaving one group out at a time"
    )


def summary(run: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return what ``fit --json`` prints of a model beside its report, from the content of ``run.json``."""
    images = {**run["images"], "quarantined": len(run["images"]["quarantined"])}
    keys = (
        "version",
        "author",
        "date",
        "groups",
        "backbone",
        "cut",
        "head",
        "runtime",
        "accuracy",
        "metrics",
        "weak_classes",
        "learning_curve",
        "seconds",
        "cache",
    )
    optional = {key: run[key] for key in ("class_weight", "decision", "cost", "fine_tuning") if key in run}
    return {
        "model": folder,
        "classes": run["classes"],
        "images": images,
        **{key: run[key] for key in keys},
        **optional,
    }
