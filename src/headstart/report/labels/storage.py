"""``report.json`` of several labels: written beside the model, and read back with every value checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headstart.check.finding import MISSING, WRONG
from headstart.files import to_json
from headstart.model.metadata import MULTI_LABEL
from headstart.report.data import MAX_IMAGES, SETS
from headstart.report.labels.data import (
    MAX_CELLS,
    MAX_CURVES,
    MAX_MEMBERS,
    MAX_PAIRED,
    MAX_SUSPECTS,
    Cell,
    LabelCounts,
    LabelCurve,
    LabelledImage,
    LabelReport,
    LabelSummary,
    Suspect,
)
from headstart.report.storage import (
    FILE,
    FORMAT,
    MAX_CLASSES,
    read_checked,
    read_reliability_bin,
    read_sprite,
    read_thumbnails,
    with_base64,
    write_file,
)
from headstart.report.values import MAX_COUNT, integer, list_of, number, object_of, text_of, to_base64

KINDS = (MISSING, WRONG)
MAX_POINTS = 1_000  # of a curve


def write_label_data(report: LabelReport, folder: Path) -> None:
    """Write ``report.json`` into a model folder. Raises ModelError when it cannot be written."""
    images = report.images
    value = {
        "format": FORMAT,
        "problem_type": MULTI_LABEL,
        "labels": report.labels,
        "total_images": report.total_images,
        "images": {
            **{name: [getattr(image, name) for image in images] for name in ("path", "set_index", "group", "unknown")},
            "cells": [[[*vars(cell).values()] for cell in image.cells] for image in images],
        },
        "evaluations": [
            {
                **vars(summary),
                "counts": [[*vars(counts).values()] for counts in summary.counts],
                "curves": [vars(curve) for curve in summary.curves],
                "reliability": [vars(reliability_bin) for reliability_bin in summary.reliability],
            }
            for summary in report.evaluations
        ],
        "suspects": [vars(suspect) for suspect in report.suspects],
        "suspect_counts": dict(report.suspect_counts),
        "sprite": with_base64(report.sprite),
        "thumbnails": {str(index): to_base64(jpeg) for index, jpeg in report.thumbnails.items()},
        "seconds": report.seconds,
        "date": report.date,
    }
    write_file(folder / FILE, to_json(value))


def read_label_data(folder: str | os.PathLike[str]) -> LabelReport:
    """Read the report of a model folder. Raises ModelError if it is missing, damaged or of another format."""
    return read_checked(folder, _report)


def _report(value: Mapping[str, Any]) -> LabelReport:
    if value["problem_type"] != MULTI_LABEL:
        raise ValueError("it is not of several labels an image")
    labels = tuple(text_of(name) for name in list_of(value["labels"], MAX_CLASSES))
    columns = value["images"]
    readers: dict[str, Callable[[Any], Any]] = {
        "path": text_of,
        "set_index": lambda entry: integer(entry, 0, len(SETS)),
        "group": lambda entry: integer(entry, -1, MAX_COUNT),
        "cells": lambda entry: tuple(_cell(cell, len(labels)) for cell in list_of(entry, MAX_CELLS)),
        "unknown": lambda entry: integer(entry, 0, len(labels) + 1),
    }
    entries = [[read(entry) for entry in list_of(columns[name], MAX_IMAGES)] for name, read in readers.items()]
    images = tuple(LabelledImage(*row) for row in zip(*entries, strict=True))
    return LabelReport(
        labels=labels,
        total_images=integer(value["total_images"], len(images), MAX_COUNT),
        images=images,
        evaluations=tuple(_summary(entry, len(labels)) for entry in list_of(value["evaluations"], len(SETS))),
        suspects=tuple(
            _suspect(entry, len(labels), len(images)) for entry in list_of(value["suspects"], 2 * MAX_SUSPECTS)
        ),
        suspect_counts={
            kind: integer(count, 0, MAX_COUNT)
            for kind, count in object_of(value["suspect_counts"]).items()
            if kind in KINDS
        },
        sprite=read_sprite(value["sprite"]),
        thumbnails=read_thumbnails(value["thumbnails"], len(images)),
        seconds=number(value["seconds"], 0, 1e9),
        date=text_of(value["date"]),
    )


def _cell(value: Any, labels: int) -> Cell:
    label, probability, is_true, is_said = list_of(value, 4)
    if not (is_true is None or type(is_true) is bool) or type(is_said) is not bool:
        raise ValueError("whether a label holds is neither true nor false")
    return Cell(integer(label, 0, labels), number(probability, 0, 1), is_true, is_said)


def _summary(value: Mapping[str, Any], labels: int) -> LabelSummary:
    if value["name"] not in SETS:
        raise ValueError(f"unknown evaluation {value['name']!r}")
    counts = tuple(
        LabelCounts(*(integer(count, 0, MAX_COUNT) for count in list_of(entry, 4)))
        for entry in list_of(value["counts"], labels)
    )
    if len(counts) != labels:
        raise ValueError(f"counts of {len(counts)} labels where {labels} were expected")
    curves = tuple(
        LabelCurve(
            integer(curve["label"], 0, labels),
            tuple((number(x, 0, 1), number(y, 0, 1)) for x, y in list_of(curve["points"], MAX_POINTS)),
        )
        for curve in list_of(value["curves"], MAX_CURVES)
    )
    true_pairs, said_pairs = (
        tuple(
            (integer(a, 0, labels), integer(b, 0, labels), integer(count, 0, MAX_COUNT))
            for a, b, count in list_of(value[name], MAX_PAIRED**2)
        )
        for name in ("true_pairs", "said_pairs")
    )
    reliability = tuple(read_reliability_bin(entry) for entry in list_of(value["reliability"], 100))
    return LabelSummary(value["name"], counts, curves, reliability, true_pairs, said_pairs)


def _suspect(value: Mapping[str, Any], labels: int, images: int) -> Suspect:
    if value["kind"] not in KINDS:
        raise ValueError(f"unknown suspect {value['kind']!r}")
    members = tuple(integer(index, 0, images) for index in list_of(value["images"], MAX_MEMBERS))
    if not members:
        raise ValueError("a suspect without images")
    if type(value["is_likely"]) is not bool:
        raise ValueError("whether a suspect is likely is neither true nor false")
    label, probability = integer(value["label"], 0, labels), number(value["probability"], 0, 1)
    return Suspect(value["kind"], value["is_likely"], label, members, probability)
