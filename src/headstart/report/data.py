"""What a report says, as data: written to ``report.json`` beside the model, read back as if an enemy had made it."""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.errors import ModelError

FORMAT = 1
FILE = "report.json"
MAX_BYTES = 64 * 2**20
MAX_SHOWN = 10_000  # pictures
MAX_CLASSES = 100_000
MAX_LISTED = 1_000  # findings, thumbnails, evidence maps
MAX_TEXT = 8_192  # characters of a name or a path
SETS = ("validation", "leave_group_out")
JPEG = b"\xff\xd8\xff"
MISTAKES, UNSURE = 60, 12  # told one by one


@dataclass(frozen=True)
class Picture:
    """A picture and its answer: ``measured`` is its place in ``SETS``, classes are places in ``Report.classes``.

    ``answer`` and ``second`` are the two most probable classes; ``sure``, ``next`` and ``truth_sure`` the probabilities
    of those and of the true class (0 for a class that was not learned), to six places.
    """

    path: str
    measured: int
    truth: int
    answer: int
    second: int
    sure: float
    next: float
    truth_sure: float


@dataclass(frozen=True)
class Bin:
    """Of pictures whose answers claim alike: how many, the mean claim, the share right and its 95% interval."""

    count: int
    claimed: float
    right: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """All pictures of one of ``SETS``: confusions (truth, answer, count), reliability, and risk by coverage.

    ``risk`` are points (share of the pictures answered, surest first; share of those that are wrong).
    """

    name: str
    confusion: tuple[tuple[int, int, int], ...]
    reliability: tuple[Bin, ...]
    risk: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Layout:
    """A place for every picture shown, 0 to 1,000 on both axes, and what the axes mean."""

    name: str
    about: str
    x: tuple[int, ...]
    y: tuple[int, ...]


@dataclass(frozen=True)
class Told:
    """A finding of ``headstart check``: the files, and the places of those that are among the pictures shown."""

    kind: str
    files: tuple[str, ...]
    pictures: tuple[int, ...]
    confidence: float
    action: str
    why: str


@dataclass(frozen=True)
class Evidence:
    """Where the finished head looked on one picture, whose cropped pixels are ``jpeg``.

    ``grid`` [h, w] holds each place's part in the log-odds of class ``towards`` over class ``against``, ``bias`` what
    belongs to no place; ``score`` is their sum.
    """

    picture: int
    towards: int
    against: int
    grid: tuple[tuple[float, ...], ...]
    bias: float
    score: float
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True)
class Report:
    """What a report says beside ``run.json``. ``classes`` are those learned, then others that the data named.

    ``pictures`` are those shown, of ``total``; ``sprite`` is a JPEG of one square each, ``side`` pixels wide,
    ``columns`` in a row; ``thumbnails`` are larger JPEGs of some, by place. ``counts`` has the number of all findings
    of a kind, ``findings`` the first of them. ``no_evidence`` says why ``evidence`` is empty, if it is.
    """

    classes: tuple[str, ...]
    known: int
    total: int
    pictures: tuple[Picture, ...]
    measured: tuple[Measured, ...]
    layouts: tuple[Layout, ...]
    side: int
    columns: int
    sprite: bytes = field(repr=False)
    thumbnails: Mapping[int, bytes] = field(repr=False)
    findings: tuple[Told, ...]
    counts: Mapping[str, int]
    evidence: tuple[Evidence, ...]
    no_evidence: str
    seconds: float


def worst(pictures: Sequence[Picture]) -> list[int]:
    """Places of the mistakes, the most confident first."""
    wrong = [i for i, p in enumerate(pictures) if p.answer != p.truth]
    return sorted(wrong, key=lambda i: -pictures[i].sure)[:MISTAKES]


def unsure(pictures: Sequence[Picture]) -> list[int]:
    """Places of the pictures that were answered right, but only just."""
    right = [i for i, p in enumerate(pictures) if p.answer == p.truth]
    return sorted(right, key=lambda i: pictures[i].sure - pictures[i].next)[:UNSURE]


def write_data(report: Report, folder: Path) -> None:
    """Write ``report.json``, whole or not at all. Raises ModelError when it cannot be written."""
    pictures = report.pictures
    value = {
        "format": FORMAT,
        "classes": list(report.classes),
        "known": report.known,
        "total": report.total,
        "pictures": {name: [getattr(p, name) for p in pictures] for name in Picture.__dataclass_fields__},
        "measured": [
            {"name": m.name, "confusion": m.confusion, "risk": m.risk, "reliability": [vars(b) for b in m.reliability]}
            for m in report.measured
        ],
        "layouts": [vars(each) for each in report.layouts],
        "side": report.side,
        "columns": report.columns,
        "sprite": _text_of(report.sprite),
        "thumbnails": {str(place): _text_of(jpeg) for place, jpeg in report.thumbnails.items()},
        "findings": [vars(each) for each in report.findings],
        "counts": dict(report.counts),
        "evidence": [{**vars(each), "jpeg": _text_of(each.jpeg)} for each in report.evidence],
        "no_evidence": report.no_evidence,
        "seconds": report.seconds,
    }
    write_whole(folder / FILE, json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def write_whole(file: Path, text: str) -> None:
    """Write a text file, whole or not at all. Raises ModelError when it cannot be written."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile("wb", dir=file.parent, prefix=f".{file.name}-", delete=False) as stream:
            temporary = Path(stream.name)
            stream.write(text.encode("utf-8", "replace"))
        temporary.chmod(0o644)
        temporary.replace(file)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise ModelError(f"Cannot write {file}: {error.strerror or error}; nothing was changed.") from None


def read_data(folder: str | os.PathLike[str]) -> Report:
    """The report in a model folder. Raises ModelError with what is wrong."""
    file = Path(folder) / FILE
    if not file.is_file():
        raise ModelError(f"{folder} has no {FILE}; fit again, without --no-report, to have one.")
    if file.resolve().parent != Path(folder).resolve():
        raise ModelError(f"{folder}: {FILE} is a link out of the folder; refused.")
    if file.stat().st_size > MAX_BYTES:
        raise ModelError(f"{folder}: {FILE} has more than {MAX_BYTES:,} bytes; refused.")
    try:
        value = json.loads(file.read_bytes())
        version = value["format"]
        if type(version) is not int:
            raise ValueError(f"format {str(version)[:20]}")
        if version > FORMAT:
            raise ModelError(
                f"{folder}: {FILE} is of format {version}, newer than the {FORMAT} this version reads; "
                "upgrade headstart."
            )
        return _report(value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: {FILE} is damaged: {type(error).__name__} {said}; fit again.") from None


def _report(value: Mapping[str, Any]) -> Report:
    classes = tuple(_text(name) for name in _list(value["classes"], MAX_CLASSES))
    known = _whole(value["known"], 2, len(classes) + 1)
    pictures = _pictures(value["pictures"], len(classes), known)
    count = len(pictures)
    side, columns = _whole(value["side"], 1, 257), _whole(value["columns"], 1, MAX_SHOWN + 1)
    thumbnails = {int(place): _jpeg(text) for place, text in _table(value["thumbnails"]).items()}
    if not all(0 <= place < count for place in thumbnails):
        raise ValueError("a thumbnail of no picture")
    return Report(
        classes, known, _whole(value["total"], count, 10**9), pictures,
        tuple(_measured(each, len(classes), known) for each in _list(value["measured"], len(SETS))),
        tuple(_layout(each, count) for each in _list(value["layouts"], 4)),
        side, columns, _jpeg(value["sprite"]), thumbnails,
        tuple(_told(each, count) for each in _list(value["findings"], MAX_LISTED)),
        {_text(kind): _whole(n, 0, 10**9) for kind, n in _table(value["counts"]).items()},
        tuple(_evidence(each, count, known) for each in _list(value["evidence"], MAX_LISTED)),
        _text(value["no_evidence"]), _number(value["seconds"], 0, 1e9),
    )  # fmt: skip


def _pictures(columns: Mapping[str, Any], classes: int, known: int) -> tuple[Picture, ...]:
    readers: dict[str, Callable[[Any], Any]] = {
        "path": _text,
        "measured": lambda v: _whole(v, 0, len(SETS)),
        "truth": lambda v: _whole(v, 0, classes),
        "answer": lambda v: _whole(v, 0, known),
        "second": lambda v: _whole(v, 0, known),
        **{name: lambda v: _number(v, 0, 1) for name in ("sure", "next", "truth_sure")},
    }
    read = [[readers[name](v) for v in _list(columns[name], MAX_SHOWN)] for name in Picture.__dataclass_fields__]
    return tuple(Picture(*row) for row in zip(*read, strict=True))


def _measured(value: Mapping[str, Any], classes: int, known: int) -> Measured:
    if value["name"] not in SETS:
        raise ValueError(f"measured on {value['name']!r}")
    confusion = tuple(
        (_whole(truth, 0, classes), _whole(answer, 0, known), _whole(count, 0, 10**9))
        for truth, answer, count in _list(value["confusion"], 10**6)
    )
    bins = tuple(
        Bin(_whole(b["count"], 1, 10**9), *(_number(b[name], 0, 1) for name in ("claimed", "right", "low", "high")))
        for b in _list(value["reliability"], 100)
    )
    risk = tuple((_number(x, 0, 1), _number(y, 0, 1)) for x, y in _list(value["risk"], 1_000))
    return Measured(value["name"], confusion, bins, risk)


def _layout(value: Mapping[str, Any], count: int) -> Layout:
    x, y = (tuple(_whole(v, 0, 1001) for v in _list(value[axis], MAX_SHOWN)) for axis in ("x", "y"))
    if not len(x) == len(y) == count:
        raise ValueError("a map of other pictures")
    return Layout(_text(value["name"]), _text(value["about"]), x, y)


def _told(value: Mapping[str, Any], count: int) -> Told:
    return Told(
        _text(value["kind"]), tuple(map(_text, _list(value["files"], MAX_LISTED))),
        tuple(_whole(v, 0, count) for v in _list(value["pictures"], MAX_LISTED)), _number(value["confidence"], 0, 1),
        _text(value["action"]), _text(value["why"]),
    )  # fmt: skip


def _evidence(value: Mapping[str, Any], count: int, known: int) -> Evidence:
    grid = tuple(tuple(_number(v, -1e9, 1e9) for v in _list(row, 512)) for row in _list(value["grid"], 512))
    if not grid or not grid[0] or len({len(row) for row in grid}) != 1:
        raise ValueError("an evidence map that is no rectangle")
    return Evidence(
        _whole(value["picture"], 0, count), _whole(value["towards"], 0, known), _whole(value["against"], 0, known),
        grid, _number(value["bias"], -1e9, 1e9), _number(value["score"], -1e9, 1e9), _jpeg(value["jpeg"]),
    )  # fmt: skip


def _list(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"expected a list of at most {most}")
    return value


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_LISTED:
        raise ValueError(f"expected an object of at most {MAX_LISTED} entries")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"expected a text of at most {MAX_TEXT} characters")
    return value


def _whole(value: Any, low: int, end: int) -> int:
    """A whole number from ``low`` up to, not including, ``end``."""
    if type(value) is not int or not low <= value < end:
        raise ValueError(f"{str(value)[:20]!r} where a whole number of {low} to {end - 1} was expected")
    return value


def _number(value: Any, low: float, high: float) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{str(value)[:20]!r} where a number of {low:g} to {high:g} was expected")
    return float(value)


def _jpeg(value: Any) -> bytes:
    try:
        data = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"a picture is not base64: {error}") from None
    if data and not data.startswith(JPEG):
        raise ValueError("a picture is no JPEG")
    return data


def _text_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
