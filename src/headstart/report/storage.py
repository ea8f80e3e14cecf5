"""Reading and writing the files of a report. What is read may be damaged or hostile: every value is checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from headstart.errors import ModelError, OptionError, shell_word
from headstart.files import open_regular, read_json, to_json, write_atomic
from headstart.machine import why_not_writable
from headstart.report.data import (
    MAX_IMAGES,
    SETS,
    ActivationMap,
    ClassThresholds,
    EvaluationSummary,
    FindingSummary,
    ImageResult,
    Projection,
    ReliabilityBin,
    Report,
    SpriteSheet,
)
from headstart.report.thresholds import THRESHOLDS
from headstart.report.values import (
    MAX_COUNT,
    MAX_ENTRIES,
    integer,
    jpeg,
    list_of,
    number,
    object_of,
    text_of,
    to_base64,
)

FORMAT = 5
FILE = "report.json"
MAX_BYTES = 64 * 2**20
GENERATOR = b'<meta name="generator" content="Headstart">'  # in every page
MAX_CLASSES = 100_000
Content = TypeVar("Content")


def write_file(path: Path, data: bytes | str) -> None:
    """Write a file completely or not at all. Raises ModelError when it cannot be written."""
    try:
        write_atomic(path, data)
    except OSError as error:
        raise ModelError(f"Cannot write {path}: {error.strerror or error}; nothing was changed.") from None


def check_page_file(file: str | os.PathLike[str]) -> Path:
    """Return the path of a page to write.

    Raises OptionError for a name that does not end as that of a page, for a file that is there and was not written by
    Headstart, and where nothing can be written.
    """
    page = Path(file)
    if page.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"{page} does not end in .html; give the report the name of a page.")
    if os.path.lexists(page) and not is_report_page(page):
        raise OptionError(f"{page} exists and is not a report of Headstart; give another name.")
    if reason := why_not_writable(page):
        raise OptionError(f"Cannot write {page}: {reason}; give another name.")
    return page


def is_report_page(path: Path) -> bool:
    """Return whether a file is a report that Headstart wrote."""
    try:
        with open_regular(path) as stream:
            return GENERATOR in stream.read(4096)
    except OSError:
        return False


def write_data(report: Report, folder: Path) -> None:
    """Write ``report.json`` into a model folder. Raises ModelError when it cannot be written."""
    value = {
        "format": FORMAT,
        "classes": report.classes,
        "known_classes": report.known_classes,
        "total_images": report.total_images,
        "images": {f.name: [getattr(image, f.name) for image in report.images] for f in fields(ImageResult)},
        "evaluations": [
            {
                **vars(summary),
                "reliability": [vars(reliability_bin) for reliability_bin in summary.reliability],
                "thresholds": [vars(thresholds) for thresholds in summary.thresholds],
            }
            for summary in report.evaluations
        ],
        "projections": [vars(projection) for projection in report.projections],
        "sprite": with_base64(report.sprite),
        "thumbnails": {str(index): to_base64(jpeg) for index, jpeg in report.thumbnails.items()},
        "findings": [vars(finding) for finding in report.findings],
        "finding_counts": dict(report.finding_counts),
        "activation_maps": [with_base64(activation_map) for activation_map in report.activation_maps],
        "maps_unavailable": report.maps_unavailable,
        "seconds": report.seconds,
        "date": report.date,
    }
    write_file(folder / FILE, to_json(value))


# Of a model that was updated, or made of features, no images are at hand that a report could show.
HOW_MADE = (
    "the report is made as a model is fitted to its images, by headstart fit without --no-report (in Python "
    "ImageClassifier.report), and not by update, forget or merge; fit to all images again to have one"
)


def read_data(folder: str | os.PathLike[str]) -> Report:
    """Read the report of a model folder. Raises ModelError if it is missing, damaged or of another format."""
    return read_checked(folder, _report)


def read_checked(folder: str | os.PathLike[str], read: Callable[[Mapping[str, Any]], Content]) -> Content:
    """Return what ``read`` makes of the ``report.json`` of a model folder. Raises ModelError as ``read_data``."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise ModelError(f"{folder} has no {FILE}: {HOW_MADE}.")
    if path.resolve().parent != Path(folder).resolve():
        raise ModelError(f"{folder}: {FILE} is a link out of the folder and was not read.")
    try:
        value = read_json(path, MAX_BYTES)
        _check_format(value["format"], folder)
        return read(value)
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: {FILE} is damaged: {type(error).__name__} {reason}; fit again.") from None


def _check_format(version: Any, folder: str | os.PathLike[str]) -> None:
    if type(version) is not int:
        raise ValueError(f"format {str(version)[:20]}")
    if version > FORMAT:
        raise ModelError(
            f"{folder}: {FILE} has format {version}, newer than format {FORMAT}, which this version reads; "
            "upgrade headstart."
        )
    if version < FORMAT:
        raise ModelError(
            f"{folder}: {FILE} has format {version}, older than format {FORMAT}, which this version reads; to make the "
            f"report anew fit again: headstart fit DATA -o {shell_word(folder)}. The page that is there still opens."
        )


def _report(value: Mapping[str, Any]) -> Report:
    classes = tuple(text_of(name) for name in list_of(value["classes"], MAX_CLASSES))
    known_classes = integer(value["known_classes"], 2, len(classes) + 1)
    images = _images(value["images"], len(classes), known_classes)
    thumbnails = read_thumbnails(value["thumbnails"], len(images))
    return Report(
        classes=classes,
        known_classes=known_classes,
        total_images=integer(value["total_images"], len(images), MAX_COUNT),
        images=images,
        evaluations=tuple(
            _evaluation(entry, len(classes), known_classes) for entry in list_of(value["evaluations"], len(SETS))
        ),
        projections=tuple(_projection(entry, len(images)) for entry in list_of(value["projections"], 4)),
        sprite=read_sprite(value["sprite"]),
        thumbnails=thumbnails,
        findings=tuple(_finding(entry, len(images)) for entry in list_of(value["findings"], MAX_ENTRIES)),
        finding_counts={
            text_of(kind): integer(count, 0, MAX_COUNT) for kind, count in object_of(value["finding_counts"]).items()
        },
        activation_maps=tuple(
            _activation_map(entry, len(images), known_classes)
            for entry in list_of(value["activation_maps"], MAX_ENTRIES)
        ),
        maps_unavailable=text_of(value["maps_unavailable"]),
        seconds=number(value["seconds"], 0, 1e9),
        date=text_of(value["date"]),
    )


def _images(columns: Mapping[str, Any], classes: int, known_classes: int) -> tuple[ImageResult, ...]:
    def known_class(value: Any) -> int:
        return integer(value, 0, known_classes)

    def probability(value: Any) -> float:
        return number(value, 0, 1)

    readers: dict[str, Callable[[Any], Any]] = {
        "path": text_of,
        "set_index": lambda value: integer(value, 0, len(SETS)),
        "true_class": lambda value: integer(value, 0, classes),
        "predicted_class": known_class,
        "second_class": known_class,
        "confidence": probability,
        "second_confidence": probability,
        "true_class_confidence": probability,
        "group": lambda value: integer(value, -1, MAX_COUNT),
    }
    names = [f.name for f in fields(ImageResult)]
    values = [[readers[name](value) for value in list_of(columns[name], MAX_IMAGES)] for name in names]
    return tuple(ImageResult(*row) for row in zip(*values, strict=True))


def _evaluation(value: Mapping[str, Any], classes: int, known_classes: int) -> EvaluationSummary:
    if value["name"] not in SETS:
        raise ValueError(f"unknown evaluation {value['name']!r}")
    confusion = tuple(
        (integer(truth, 0, classes), integer(prediction, 0, known_classes), integer(count, 0, MAX_COUNT))
        for truth, prediction, count in list_of(value["confusion"], 10**6)
    )
    reliability = tuple(read_reliability_bin(entry) for entry in list_of(value["reliability"], 100))
    risk_coverage = tuple((number(x, 0, 1), number(y, 0, 1)) for x, y in list_of(value["risk_coverage"], 1_000))
    thresholds = tuple(_thresholds(entry, known_classes) for entry in list_of(value["thresholds"], MAX_CLASSES))
    return EvaluationSummary(value["name"], confusion, reliability, risk_coverage, thresholds)


def _thresholds(value: Mapping[str, Any], known_classes: int) -> ClassThresholds:
    count = integer(value["count"], 0, MAX_COUNT)
    found, false_alarms = (
        tuple(integer(number, 0, limit) for number in list_of(value[name], len(THRESHOLDS)))
        for name, limit in (("found", count + 1), ("false_alarms", MAX_COUNT))
    )
    if not len(found) == len(false_alarms) == len(THRESHOLDS):
        raise ValueError(f"counts of {len(found)} thresholds where {len(THRESHOLDS)} were expected")
    return ClassThresholds(integer(value["class_index"], 0, known_classes), count, found, false_alarms)


def read_reliability_bin(value: Mapping[str, Any]) -> ReliabilityBin:
    """Read a bin of a reliability diagram. Raises ValueError."""
    shares = [number(value[name], 0, 1) for name in ("mean_confidence", "accuracy", "low", "high")]
    return ReliabilityBin(integer(value["count"], 1, MAX_COUNT), *shares)


def _projection(value: Mapping[str, Any], images: int) -> Projection:
    x, y = (tuple(integer(v, 0, 1001) for v in list_of(value[axis], MAX_IMAGES)) for axis in ("x", "y"))
    if not len(x) == len(y) == images:
        raise ValueError(f"a map of {len(x)} images where {images} were expected")
    return Projection(text_of(value["name"]), text_of(value["description"]), x, y)


def read_thumbnails(value: Any, images: int) -> dict[int, bytes]:
    """Read the larger small images of a report of so many images, by their index. Raises ValueError."""
    thumbnails = {int(index): jpeg(text) for index, text in object_of(value).items()}
    if not all(0 <= index < images for index in thumbnails):
        raise ValueError("a thumbnail of an image that is not in the report")
    return thumbnails


def read_sprite(value: Mapping[str, Any]) -> SpriteSheet:
    """Read the small images of a report. Raises ValueError."""
    side = integer(value["side"], 1, 257)
    columns = integer(value["columns"], 1, MAX_IMAGES + 1)
    return SpriteSheet(side, columns, jpeg(value["jpeg"]))


def _finding(value: Mapping[str, Any], images: int) -> FindingSummary:
    return FindingSummary(
        kind=text_of(value["kind"]),
        files=tuple(text_of(path) for path in list_of(value["files"], MAX_ENTRIES)),
        images=tuple(integer(index, 0, images) for index in list_of(value["images"], MAX_ENTRIES)),
        certainty=text_of(value["certainty"]),
        confidence=number(value["confidence"], 0, 1),
        action=text_of(value["action"]),
        why=text_of(value["why"]),
    )


def _activation_map(value: Mapping[str, Any], images: int, known_classes: int) -> ActivationMap:
    grid = tuple(tuple(number(v, -1e9, 1e9) for v in list_of(row, 512)) for row in list_of(value["grid"], 512))
    if not grid or not grid[0] or len({len(row) for row in grid}) != 1:
        raise ValueError("an activation map that is not a rectangle")
    return ActivationMap(
        image=integer(value["image"], 0, images),
        positive=integer(value["positive"], 0, known_classes),
        negative=integer(value["negative"], 0, known_classes),
        grid=grid,
        bias=number(value["bias"], -1e9, 1e9),
        score=number(value["score"], -1e9, 1e9),
        jpeg=jpeg(value["jpeg"]),
    )


def with_base64(value: SpriteSheet | ActivationMap) -> dict[str, Any]:
    """Return the fields of a value with its JPEG as text."""
    return {**vars(value), "jpeg": to_base64(value.jpeg)}
