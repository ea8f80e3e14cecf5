"""Reading and writing the files of a report. What is read may be damaged or hostile: every value is checked."""

from __future__ import annotations

import base64
import binascii
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from headstart.errors import ModelError, OptionError
from headstart.files import open_regular, read_json, to_json, why_not_writable, write_atomic
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

FORMAT = 4
FILE = "report.json"
MAX_BYTES = 64 * 2**20
GENERATOR = b'<meta name="generator" content="Headstart">'  # in every page
MAX_CLASSES = 100_000
MAX_ENTRIES = 1_000  # findings, thumbnails, activation maps
MAX_TEXT = 8_192  # characters of a name or a path
MAX_COUNT = 10**9
JPEG_MAGIC = b"\xff\xd8\xff"


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
        "sprite": _with_base64(report.sprite),
        "thumbnails": {str(index): _to_base64(jpeg) for index, jpeg in report.thumbnails.items()},
        "findings": [vars(finding) for finding in report.findings],
        "finding_counts": dict(report.finding_counts),
        "activation_maps": [_with_base64(activation_map) for activation_map in report.activation_maps],
        "maps_unavailable": report.maps_unavailable,
        "seconds": report.seconds,
        "date": report.date,
    }
    write_file(folder / FILE, to_json(value))


def read_data(folder: str | os.PathLike[str]) -> Report:
    """Read the report of a model folder. Raises ModelError if it is missing, damaged or of another format."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise ModelError(f"{folder} has no {FILE}; fit again without --no-report to create it.")
    if path.resolve().parent != Path(folder).resolve():
        raise ModelError(f"{folder}: {FILE} is a link out of the folder and was not read.")
    try:
        value = read_json(path, MAX_BYTES)
        _check_format(value["format"], folder)
        return _report(value)
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
            f"report anew fit again: headstart fit DATA -o {folder}. The page that is there still opens."
        )


def _report(value: Mapping[str, Any]) -> Report:
    classes = tuple(_text(name) for name in _list(value["classes"], MAX_CLASSES))
    known_classes = _integer(value["known_classes"], 2, len(classes) + 1)
    images = _images(value["images"], len(classes), known_classes)
    thumbnails = {int(index): _jpeg(text) for index, text in _object(value["thumbnails"]).items()}
    if not all(0 <= index < len(images) for index in thumbnails):
        raise ValueError("a thumbnail of an image that is not in the report")
    return Report(
        classes=classes,
        known_classes=known_classes,
        total_images=_integer(value["total_images"], len(images), MAX_COUNT),
        images=images,
        evaluations=tuple(
            _evaluation(entry, len(classes), known_classes) for entry in _list(value["evaluations"], len(SETS))
        ),
        projections=tuple(_projection(entry, len(images)) for entry in _list(value["projections"], 4)),
        sprite=_sprite(value["sprite"]),
        thumbnails=thumbnails,
        findings=tuple(_finding(entry, len(images)) for entry in _list(value["findings"], MAX_ENTRIES)),
        finding_counts={
            _text(kind): _integer(count, 0, MAX_COUNT) for kind, count in _object(value["finding_counts"]).items()
        },
        activation_maps=tuple(
            _activation_map(entry, len(images), known_classes) for entry in _list(value["activation_maps"], MAX_ENTRIES)
        ),
        maps_unavailable=_text(value["maps_unavailable"]),
        seconds=_number(value["seconds"], 0, 1e9),
        date=_text(value["date"]),
    )


def _images(columns: Mapping[str, Any], classes: int, known_classes: int) -> tuple[ImageResult, ...]:
    def known_class(value: Any) -> int:
        return _integer(value, 0, known_classes)

    def probability(value: Any) -> float:
        return _number(value, 0, 1)

    readers: dict[str, Callable[[Any], Any]] = {
        "path": _text,
        "set_index": lambda value: _integer(value, 0, len(SETS)),
        "true_class": lambda value: _integer(value, 0, classes),
        "predicted_class": known_class,
        "second_class": known_class,
        "confidence": probability,
        "second_confidence": probability,
        "true_class_confidence": probability,
        "group": lambda value: _integer(value, -1, MAX_COUNT),
    }
    names = [f.name for f in fields(ImageResult)]
    values = [[readers[name](value) for value in _list(columns[name], MAX_IMAGES)] for name in names]
    return tuple(ImageResult(*row) for row in zip(*values, strict=True))


def _evaluation(value: Mapping[str, Any], classes: int, known_classes: int) -> EvaluationSummary:
    if value["name"] not in SETS:
        raise ValueError(f"unknown evaluation {value['name']!r}")
    confusion = tuple(
        (_integer(truth, 0, classes), _integer(prediction, 0, known_classes), _integer(count, 0, MAX_COUNT))
        for truth, prediction, count in _list(value["confusion"], 10**6)
    )
    reliability = tuple(_reliability_bin(entry) for entry in _list(value["reliability"], 100))
    risk_coverage = tuple((_number(x, 0, 1), _number(y, 0, 1)) for x, y in _list(value["risk_coverage"], 1_000))
    thresholds = tuple(_thresholds(entry, known_classes) for entry in _list(value["thresholds"], MAX_CLASSES))
    return EvaluationSummary(value["name"], confusion, reliability, risk_coverage, thresholds)


def _thresholds(value: Mapping[str, Any], known_classes: int) -> ClassThresholds:
    count = _integer(value["count"], 0, MAX_COUNT)
    found, false_alarms = (
        tuple(_integer(number, 0, limit) for number in _list(value[name], len(THRESHOLDS)))
        for name, limit in (("found", count + 1), ("false_alarms", MAX_COUNT))
    )
    if not len(found) == len(false_alarms) == len(THRESHOLDS):
        raise ValueError(f"counts of {len(found)} thresholds where {len(THRESHOLDS)} were expected")
    return ClassThresholds(_integer(value["class_index"], 0, known_classes), count, found, false_alarms)


def _reliability_bin(value: Mapping[str, Any]) -> ReliabilityBin:
    shares = [_number(value[name], 0, 1) for name in ("mean_confidence", "accuracy", "low", "high")]
    return ReliabilityBin(_integer(value["count"], 1, MAX_COUNT), *shares)


def _projection(value: Mapping[str, Any], images: int) -> Projection:
    x, y = (tuple(_integer(v, 0, 1001) for v in _list(value[axis], MAX_IMAGES)) for axis in ("x", "y"))
    if not len(x) == len(y) == images:
        raise ValueError(f"a map of {len(x)} images where {images} were expected")
    return Projection(_text(value["name"]), _text(value["description"]), x, y)


def _sprite(value: Mapping[str, Any]) -> SpriteSheet:
    side = _integer(value["side"], 1, 257)
    columns = _integer(value["columns"], 1, MAX_IMAGES + 1)
    return SpriteSheet(side, columns, _jpeg(value["jpeg"]))


def _finding(value: Mapping[str, Any], images: int) -> FindingSummary:
    return FindingSummary(
        kind=_text(value["kind"]),
        files=tuple(_text(path) for path in _list(value["files"], MAX_ENTRIES)),
        images=tuple(_integer(index, 0, images) for index in _list(value["images"], MAX_ENTRIES)),
        certainty=_text(value["certainty"]),
        confidence=_number(value["confidence"], 0, 1),
        action=_text(value["action"]),
        why=_text(value["why"]),
    )


def _activation_map(value: Mapping[str, Any], images: int, known_classes: int) -> ActivationMap:
    grid = tuple(tuple(_number(v, -1e9, 1e9) for v in _list(row, 512)) for row in _list(value["grid"], 512))
    if not grid or not grid[0] or len({len(row) for row in grid}) != 1:
        raise ValueError("an activation map that is not a rectangle")
    return ActivationMap(
        image=_integer(value["image"], 0, images),
        positive=_integer(value["positive"], 0, known_classes),
        negative=_integer(value["negative"], 0, known_classes),
        grid=grid,
        bias=_number(value["bias"], -1e9, 1e9),
        score=_number(value["score"], -1e9, 1e9),
        jpeg=_jpeg(value["jpeg"]),
    )


def _list(value: Any, limit: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        raise ValueError(f"expected a list of at most {limit}")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_ENTRIES:
        raise ValueError(f"expected an object of at most {MAX_ENTRIES} entries")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"expected a text of at most {MAX_TEXT} characters")
    return value


def _integer(value: Any, low: int, end: int) -> int:
    """Check an integer in the half-open range [low, end)."""
    if type(value) is not int or not low <= value < end:
        raise ValueError(f"{str(value)[:20]!r} where an integer from {low} to {end - 1} was expected")
    return value


def _number(value: Any, low: float, high: float) -> float:
    """Check a finite number in the closed range [low, high]."""
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{str(value)[:20]!r} where a number from {low:g} to {high:g} was expected")
    return float(value)


def _jpeg(value: Any) -> bytes:
    try:
        data = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"an image is not base64: {error}") from None
    if data and not data.startswith(JPEG_MAGIC):
        raise ValueError("an image is not a JPEG")
    return data


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _with_base64(value: SpriteSheet | ActivationMap) -> dict[str, Any]:
    return {**vars(value), "jpeg": _to_base64(value.jpeg)}
