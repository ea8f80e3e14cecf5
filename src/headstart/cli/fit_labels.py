"""headstart fit, where images have several labels"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.config import option_sources
from headstart.cli.fit_output import print_fit, summary
from headstart.cli.label_output import fit_summary, print_label_fit
from headstart.cli.open_report import show
from headstart.cli.options import CONDITION_FAILED, Messages, evaluation_option, files_follow
from headstart.cli.terminal import line, print_json, print_notes, print_quarantined
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.classifier import FitOptions, MultiLabelFitResult
    from headstart.classifier.refit import AnyFitResult
    from headstart.cli.fit import FitFlags, FitRunOptions
    from headstart.data import Dataset
    from headstart.model.model import Model


@dataclass(frozen=True)
class LabelTargetFlags:
    """What the thresholds of several labels an image are to keep."""

    target_recall: Annotated[
        float | None,
        evaluation_option(metavar="SHARE", help="Several labels: of the images with a label, the share to find."),
    ] = None
    target_precision: Annotated[
        float | None,
        evaluation_option(
            metavar="SHARE", help="Several labels: of the images that are given a label, the share to have it."
        ),
    ] = None


def with_sources(model: Model) -> Model:
    """Record in a model which options came from a file or from the environment."""
    sources = option_sources.get()
    return replace(model, run={**model.run, "options_from": dict(sources)}) if sources else model


def print_refit(result: AnyFitResult, folder: str, seconds: float, *, by_default: bool = False) -> None:
    """Print what a fit to kept features found, of one label an image or of several."""
    from headstart.classifier import FitResult

    if isinstance(result, FitResult):
        print_fit(result, folder, seconds, by_default=by_default)
    else:
        print_label_fit(result, folder, seconds)


def refit_summary(result: AnyFitResult, folder: str) -> dict[str, Any]:
    """Return what ``--json`` prints of a fit to kept features."""
    is_multi_label = result.model.label_thresholds is not None
    return (
        fit_summary(result.model.run, folder)
        if is_multi_label
        else {**summary(result.model.run, folder), "report": None}
    )


def fit_labels(
    dataset: Dataset,
    options: FitOptions,
    flags: FitFlags,
    messages: Messages,
    run: FitRunOptions,
    start: float,
    *,
    keep_features: bool = False,
    refine: Callable[[MultiLabelFitResult], MultiLabelFitResult] | None = None,
) -> None:
    """Fit a model of several labels an image, ``refine`` it, write it, and print what was found."""
    from headstart.classifier import fit_multi_label
    from headstart.report import write_training_curves

    with quiet_frameworks():
        with messages.bar("Reading features") as bar:
            result = fit_multi_label(
                dataset, options, thumbnails=flags.report, keep_features=keep_features, progress=bar
            )
        if refine is not None:
            result = refine(result)
    result = replace(result, model=with_sources(result.model))
    folder = str(result.save(flags.output_for(dataset.uri), overwrite=run.overwrite))
    curves = write_training_curves(result.model.run, folder)
    if not flags.as_json:
        with files_follow():
            print_label_fit(result, folder, time.perf_counter() - start)
            print(curves, end="")
    finish_fit(result, fit_summary(result.model.run, folder), options, flags, run)


def finish_fit(
    result: AnyFitResult,
    values: dict[str, Any],
    options: FitOptions,
    flags: FitFlags,
    run: FitRunOptions,
) -> None:
    """Print the notes, write the report into the folder ``values["model"]`` and show it, and print the JSON ``values``.

    Raises ModelError, and Exit where images could not be read and the run is strict.
    """
    from headstart.report import write_report

    quarantined = result.model.run["images"]["quarantined"]
    print_notes(result.notes)
    print_quarantined(quarantined)
    page = None
    if flags.report:
        with options.open_cache() as cache:
            page = write_report(result, values["model"], cache=cache)
    if flags.as_json:
        print_json({**values, "report": None if page is None else str(page)})
    elif page is not None:
        print(line(f"Report      {page}"))
    if flags.open_page and page is not None:
        show(page)
    if run.strict and quarantined:
        raise typer.Exit(CONDITION_FAILED)
