"""headstart fit, where images have several labels"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.config import option_sources
from headstart.cli.label_output import fit_summary, print_label_fit
from headstart.cli.options import CONDITION_FAILED, Messages, evaluation_option
from headstart.cli.terminal import print_json, print_notes, print_quarantined
from headstart.errors import OptionError
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.classifier import FitOptions, MultiLabelFitResult
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
        evaluation_option(metavar="SHARE", help="Several labels: of the images it is said of, the share to have it."),
    ] = None


def with_sources(model: Model) -> Model:
    """Record in a model which options came from a file or from the environment."""
    sources = option_sources.get()
    return replace(model, run={**model.run, "options_from": dict(sources)}) if sources else model


def fit_labels(
    dataset: Dataset,
    options: FitOptions,
    flags: FitFlags,
    messages: Messages,
    run: FitRunOptions,
    start: float,
    *,
    refine: Callable[[MultiLabelFitResult], MultiLabelFitResult] | None = None,
) -> None:
    """Fit a model of several labels an image, ``refine`` it, write it, and print what was found."""
    from headstart.classifier import fit_multi_label

    if flags.open_page:
        raise OptionError("There is no report of several labels an image yet; leave --open out.")
    with quiet_frameworks():
        with messages.bar("Reading features") as bar:
            result = fit_multi_label(dataset, options, progress=bar)
        if refine is not None:
            result = refine(result)
    result = replace(result, model=with_sources(result.model))
    folder = str(result.save(flags.output_for(dataset.uri), overwrite=run.overwrite))
    curves = ""
    if refine is not None:
        from headstart.report import write_training_curves

        curves = write_training_curves(result.model.run, folder)
    quarantined = result.model.run["images"]["quarantined"]
    if not flags.as_json:
        print_label_fit(result, folder, time.perf_counter() - start)
        print(curves, end="", flush=True)
    report_note = ["There is no report of several labels an image yet."] if flags.report else []
    print_notes([*result.notes, *report_note])
    print_quarantined(quarantined)
    if flags.as_json:
        print_json(fit_summary(result.model.run, folder))
    if run.strict and quarantined:
        raise typer.Exit(CONDITION_FAILED)
