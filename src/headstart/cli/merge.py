"""headstart merge"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.fit import EvaluationFlags
from headstart.cli.fit_labels import LabelTargetFlags, print_refit, refit_summary
from headstart.cli.fit_output import print_statistics_fit, statistics_summary
from headstart.cli.options import JsonOption, Messages, SeedOption, common, head_option, run_option
from headstart.cli.terminal import print_json, print_notes
from headstart.machine import quiet_frameworks

if TYPE_CHECKING:
    from headstart.classifier import FitOptions
    from headstart.features.statistics_folder import StatisticsPart


@dataclass(frozen=True)
class MergeFlags:
    """What may be merged, and the most common options of the fit."""

    mixed: Annotated[
        bool, common("--mixed", help="Allow features of several runtimes, versions, precisions, instruction sets.")
    ] = False
    validation: Annotated[
        float | None, common(metavar="SHARE", help="Share of the groups to hold out, if no images are for validation.")
    ] = None
    group_by: Annotated[
        str, common(metavar="RULE", help="Images to keep together: auto, none, folder, name:PATTERN or a column.")
    ] = "auto"
    head: Annotated[
        str, common(metavar="KIND", help="Classifier on the features: auto, ridge, lda, centroid or logistic.")
    ] = "auto"
    cut: Annotated[
        str, common(metavar="TAPS", help="Where the network is cut: auto, a tap, or several with commas.")
    ] = "auto"


@dataclass(frozen=True)
class MergeRunOptions:
    """Options of the run."""

    seed: SeedOption = 0
    workers: Annotated[
        int | None, run_option(min=1, metavar="N", help="Number of threads; one per core by default.")
    ] = None
    overwrite: Annotated[bool, run_option("--overwrite", help="Replace a model of other data or classes, too.")] = False
    model_version: Annotated[str, run_option(metavar="VERSION", help="Version of the model, for its card.")] = ""
    author: Annotated[str, run_option(metavar="NAME", help="Who made the model, for its card.")] = ""


def merge(
    parts: Annotated[
        list[Path],
        typer.Argument(metavar="PART...", help="Folders of headstart embed, or models that keep features."),
    ],
    output: Annotated[Path, common("-o", "--output", metavar="MODEL", help="Model folder to write.")],
    flags: MergeFlags = MergeFlags(),
    class_weight: Annotated[
        str | None,
        head_option(
            metavar="balanced|FILE",
            help="For classes that are more or less frequent in use: balanced, or rows of class,weight (CSV, JSON).",
        ),
    ] = None,
    dropout: Annotated[
        float | None, head_option(metavar="RATE", help="Dropout rate of the ridge head, in closed form.")
    ] = None,
    targets: EvaluationFlags = EvaluationFlags(),
    label_targets: LabelTargetFlags = LabelTargetFlags(),
    run: MergeRunOptions = MergeRunOptions(),
    as_json: JsonOption = False,
    messages: Messages = Messages(),
) -> None:
    """Fit a model to features, of one part or of several."""
    from headstart.classifier import FitOptions
    from headstart.classifier.fit_statistics import read_statistics_parts
    from headstart.classifier.parts import merge_parts
    from headstart.classifier.refit import fit_features
    from headstart.features import Compute
    from headstart.model.folder_files import check_output_folder

    start = time.perf_counter()
    options = FitOptions(
        cut=flags.cut,
        head=flags.head,
        dropout=dropout,
        group_by=flags.group_by,
        validation=flags.validation,
        coverage=targets.coverage,
        false_alarms=targets.false_alarms,
        costs=targets.costs,
        thresholds=targets.thresholds,
        class_weight=class_weight,
        compute=Compute(workers=run.workers),
        seed=run.seed,
        model_version=run.model_version,
        author=run.author,
        **vars(label_targets),
    )
    check_output_folder(output)
    summed = read_statistics_parts(parts, mixed=flags.mixed)
    if summed is not None:
        _merge_statistics(summed, output, options, start, run, as_json)
        return
    with quiet_frameworks():
        features = merge_parts(parts, mixed=flags.mixed)
        options = replace(options, decode=features.source.preprocess.decode)
        result = fit_features(features, options, log=messages.log)
    folder = result.save(output, overwrite=run.overwrite)
    if as_json:
        print_json(refit_summary(result, folder))
    else:
        print_refit(result, folder, time.perf_counter() - start)
    print_notes(result.notes)


def _merge_statistics(
    part: StatisticsPart, output: Path, options: FitOptions, start: float, run: MergeRunOptions, as_json: bool
) -> None:
    """Fit to statistics alone, write the model, and print what is known and what is not."""
    from headstart.classifier.fit_statistics import fit_to_statistics

    with quiet_frameworks():
        result = fit_to_statistics(part, options)
    folder = result.save(output, overwrite=run.overwrite)
    if as_json:
        print_json({**statistics_summary(result.model.run, folder), "report": None})
    else:
        print_statistics_fit(result.model.run, folder, time.perf_counter() - start)
    print_notes(result.notes)
