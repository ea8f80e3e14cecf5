"""headstart forget"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.fit_output import TITLES
from headstart.cli.options import CONDITION_FAILED, JsonOption, ModelArgument, common, run_option
from headstart.cli.terminal import counted, line, print_json, print_notes
from headstart.machine import quiet_frameworks


def forget(
    model: ModelArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Files or folders; paths in the model, with wildcards, if they are gone; or SHA-256.",
        ),
    ],
    output: Annotated[
        Path | None,
        common("-o", "--output", metavar="NEW", help="Model folder to write; without it MODEL is replaced."),
    ] = None,
    workers: Annotated[
        int | None, run_option(min=1, metavar="N", help="Number of threads; one per core by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the model that never had some images."""
    from headstart.classifier.forget import forget_images
    from headstart.model.folder_files import check_output_folder
    from headstart.model.label_predictions import MultiLabelEvaluation

    check_output_folder(model if output is None else output)
    with quiet_frameworks():
        done = forget_images(Path(model), images, output, workers=workers)
    run = done.result.model.run
    if as_json:
        print_json(
            {
                "model": done.folder,
                "forgotten": list(done.paths),
                "cache_entries": done.cache_entries,
                "classes" if "accuracy" in run else "labels": run["classes"],
                "images": {"train": run["images"]["train"], "validation": run["images"]["validation"]},
                **({"accuracy": run["accuracy"]} if "accuracy" in run else {"metrics": run["metrics"]}),
                "failed": list(done.failed),
            }
        )
    else:
        for path in done.paths:
            print(line(f"Forgotten   {path}"))
        print(line(f"Cache       {counted(done.cache_entries, 'entry', 'entries')} deleted"))
        for name, title in TITLES.items():
            if name in done.result.evaluations:
                evaluation = done.result.evaluations[name]
                if isinstance(evaluation, MultiLabelEvaluation):
                    print(f"mAP         {evaluation.metrics.mean_average_precision} {title}")
                else:
                    print(f"Accuracy    {evaluation.accuracy} {title}")
        print(line(f"Images      {run['images']['train']} for training, {run['images']['validation']} for validation"))
        print(line(f"Model       {done.folder}"))
    print_notes((*done.result.notes, *done.notes, *done.failed))
    if done.failed:
        raise typer.Exit(CONDITION_FAILED)
