"""Routes that read: the state, the images, and what the algebra shows of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from headstart.heads.class_curve import CurvePoint, class_curve
from headstart.heads.live import LiveHead
from headstart.machine import single_threaded_blas
from headstart.serve.limits import JSONResponse
from headstart.studio.engine import evaluation
from headstart.studio.figures import Figures
from headstart.studio.image_files import small_copy
from headstart.studio.label_reads import (
    LABEL_COLUMNS,
    evaluation_values,
    image_rows,
    image_values,
    issue_list,
    state_values,
    uncertain_list,
)
from headstart.studio.live import labels_of
from headstart.studio.moves import HIDDEN
from headstart.studio.records import MAX_IMAGES, ImageRecord
from headstart.studio.requests import Studio, answering, class_asked, class_of, formats_of, number_of
from headstart.studio.saved import model_folder, read_saved
from headstart.studio.state import NotFoundError, State

THUMBNAIL, LARGE = 160, 1280  # pixels
PAGE = 5000  # images of an answer, unless asked otherwise
COLUMNS = (
    *("id", "label", "folder_label", "group", "suspicion", "uncertainty", "predicted", "probability", "status"),
    *("accepted", "name", "split"),
)
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
REPORT_HEADERS = {  # the report has scripts of its own; in a sandbox they are of no site
    "Content-Security-Policy": (
        "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; font-src data:; frame-ancestors 'none'"
    )
}


def state(studio: Studio, request: Request, body: None) -> dict[str, Any]:  # noqa: ARG001
    """Return all but the images."""
    project, engine = studio.project, studio.engine
    known, full = project.state, engine.full
    saved = read_saved(project)
    issues = _issues(studio, known)
    failed = [] if engine.images is None else [id for id in known.records if id in engine.images.errors]
    errors = [f"{known.records[id].path} cannot be read." for id in failed[:3]]
    return {
        "version": known.version,
        "key": studio.key,
        "project": project.folder.name,
        "folder": str(project.folder),
        "table": str(project.table),
        "multi_label": project.multi_label,
        **(state_values(studio) if project.multi_label else {"classes": _classes(known)}),
        "images": len(known.records),
        "trash": project.trash_count,
        "changes": sum(record.is_moved for record in known.records.values()),
        "undo": project.undo_text,
        "embedding": engine.embedding,
        "full": {
            "state": engine.full_state,
            "version": None if full is None else full.version,
            "error": engine.error or None,
            "seconds": None if full is None else full.seconds,
            "why": engine.why_none if engine.full_state == "none" else "",
        },
        "shows": engine.shows,
        "evaluation": evaluation(engine),
        "saved": None
        if saved is None
        else {
            "folder": str(model_folder(project)),
            "at": saved.at,
            "version": saved.version,
            "sha256": saved.sha256,
        },
        "label_issues": len(issues),
        "formats": formats_of(studio),
        "jobs": studio.jobs.all,
        "notes": [*project.notes, *errors, *(() if full is None else full.result.notes)],
    }


def images(studio: Studio, request: Request, body: None) -> Response | dict[str, Any]:  # noqa: ARG001
    """Return the images, a row each."""
    engine, known = studio.engine, studio.project.state
    tag = f'"{known.version}-{engine.revision}-{engine.shows}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    offset, limit = number_of(request, "offset", 0, MAX_IMAGES), number_of(request, "limit", PAGE, MAX_IMAGES)
    some = list(known.records.values())[offset : offset + limit]
    is_several = studio.project.multi_label
    if is_several:
        rows = image_rows(studio, known.classes, some, {record.id: _status(studio, record) for record in some})
    else:
        rows = _rows(studio, known.classes, some)
    answer = {
        "version": known.version,
        "shows": engine.shows,
        "total": len(known.records),
        "offset": offset,
        "classes": known.classes,
        "columns": LABEL_COLUMNS if is_several else COLUMNS,
        "rows": rows,
    }
    return _tagged(answer, tag)


def _classes(known: State) -> list[dict[str, Any]]:
    """Return the classes with the number of their images, and whether a folder has the name."""
    counts: dict[str | None, int] = {}
    for record in known.records.values():
        counts[record.label] = counts.get(record.label, 0) + 1
    folders = {record.folder_label for record in known.records.values()}
    return [{"name": c, "images": counts.get(c, 0), "folder": c in folders} for c in known.classes]


def _rows(studio: Studio, classes: tuple[str, ...], records: list[ImageRecord]) -> list[list[Any]]:
    """Return a row of COLUMNS for each image; ``classes`` and ``records`` are of one state."""
    figures = _figures(studio)
    places = {} if figures is None else {id: i for i, id in enumerate(figures.ids)}
    uncertainty = [] if figures is None else figures.uncertainty.round(4).tolist()
    predicted = [] if figures is None else figures.predicted.tolist()
    probability = [] if figures is None else figures.probabilities.max(axis=1).round(4).tolist()
    number = {name: i for i, name in enumerate(classes)}
    rows = []
    for record in records:
        place = places.get(record.id)
        issue = None if figures is None or record.is_accepted else figures.issues.get(record.id)
        is_measured = place is not None and record.label is not None
        suspicion = None if not is_measured else 0.0 if issue is None else round(max(issue.confidence, 1e-4), 4)
        shown = [
            suspicion,
            *((None,) * 3 if place is None else (a[place] for a in (uncertainty, predicted, probability))),
        ]
        labels = (number.get(record.label or "", -1), number.get(record.folder_label or "", -1))
        rows.append(
            [
                *(record.id, *labels, record.group, *shown, _status(studio, record)),
                *(record.is_accepted, record.path, record.split),
            ]
        )
    return rows


def image(studio: Studio, request: Request, body: None) -> dict[str, Any]:  # noqa: ARG001
    """Return what is known of one image."""
    known = studio.project.state
    record = _record(known, request)
    errors = {} if studio.engine.images is None else studio.engine.images.errors
    common = {
        "id": record.id,
        "name": record.path,
        "group": record.group,
        "split": record.split,
        "status": _status(studio, record),
        "error": errors.get(record.id),
    }
    return common | (
        image_values(studio, known.classes, record) if studio.project.multi_label else _image_values(studio, record)
    )


def _image_values(studio: Studio, record: ImageRecord) -> dict[str, Any]:
    """Return what is known of the class of one image."""
    figures = _figures(studio)
    place = None if figures is None or record.id not in figures.ids else figures.ids.index(record.id)
    issue = None if figures is None or record.is_accepted else figures.issues.get(record.id)
    values: dict[str, Any] = {
        "label": record.label,
        "folder_label": record.folder_label,
        "predicted": None,
        "probabilities": None,
        "issue": None
        if issue is None
        else {
            "suggested": issue.suggested_label,
            "confidence": issue.confidence,
            "certainty": issue.certainty,
            "why": issue.why,
        },
        "accepted": record.is_accepted,
    }
    if figures is not None and place is not None:
        row = figures.probabilities[place]
        order = np.argsort(-row, kind="stable").tolist()
        values["predicted"] = figures.classes[order[0]]
        values["probabilities"] = [{"label": figures.classes[c], "score": float(row[c])} for c in order]
    return values


def thumbnail(studio: Studio, request: Request, body: None) -> Response:  # noqa: ARG001
    """Return a small copy of an image."""
    data = small_copy(studio.project.read(_record(studio.project.state, request)), THUMBNAIL)
    return Response(data, media_type="image/jpeg", headers=FOREVER)


def large(studio: Studio, request: Request, body: None) -> Response:  # noqa: ARG001
    """Return a copy of an image for the whole screen."""
    data = small_copy(studio.project.read(_record(studio.project.state, request)), LARGE)
    return Response(data, media_type="image/jpeg", headers=FOREVER)


def evaluate(studio: Studio, request: Request, body: None) -> dict[str, Any]:  # noqa: ARG001
    """Return accuracy, confusion and the numbers of each class."""
    engine = studio.engine
    values: dict[str, Any] = {"version": studio.project.state.version, "shows": engine.shows}
    if studio.project.multi_label:
        return {**evaluation_values(studio), **values, "why": engine.error or engine.why_none}
    figures = _figures(studio)
    if figures is None:
        return {**values, "accuracy": None, "why": engine.error or engine.why_none}
    return {
        **(evaluation(engine) or {}),
        **values,
        "classes": figures.classes,
        "confusion": figures.confusion.tolist(),
        "by_class": figures.by_class(),
    }


def label_issues(studio: Studio, request: Request, body: None) -> dict[str, Any]:  # noqa: ARG001
    """Return the labels that are probably wrong, most confident first."""
    known = studio.project.state
    issues = _issues(studio, known)
    return {
        "version": known.version,
        "shows": studio.engine.shows,
        "total": len(issues),
        "issues": issues[: number_of(request, "limit", 100, MAX_IMAGES)],
    }


def uncertain(studio: Studio, request: Request, body: None) -> dict[str, Any]:  # noqa: ARG001
    """Return the images that the head is least sure of."""
    limit, known = number_of(request, "limit", 100, MAX_IMAGES), studio.project.state
    values = {"version": known.version, "shows": studio.engine.shows}
    if studio.project.multi_label:
        return {**values, "images": uncertain_list(studio, known.records, limit)}
    figures = _figures(studio)
    found: list[dict[str, Any]] = []
    if figures is not None:
        uncertainty, names = figures.uncertainty, figures.classes
        predicted = figures.predicted
        for i in np.argsort(-uncertainty, kind="stable")[:limit].tolist():
            found.append(
                {
                    "id": figures.ids[i],
                    "label": names[figures.labels[i]] if i < figures.measured else None,
                    "predicted": names[predicted[i]],
                    "probability": float(figures.probabilities[i, predicted[i]]),
                    "uncertainty": float(uncertainty[i]),
                }
            )
    return {**values, "images": found}


def learning_curve(studio: Studio, request: Request, body: None) -> dict[str, Any]:  # noqa: ARG001
    """Return what more images of a class would bring, where that can be said."""
    if studio.project.multi_label:
        raise HTTPException(400, "There is no learning curve of several labels an image.")
    name = class_of(studio, class_asked(request) or "")
    more, live, known = number_of(request, "more", 0, 10_000), studio.engine.live, studio.project.state
    values: dict[str, Any] = {"version": known.version, "shows": studio.engine.shows, "class": name}
    if live is None:
        return {**values, "points": [], "expected": None, "check": None, "why": studio.engine.why_none}
    labels, label = labels_of(live, known), known.classes.index(name)
    assert isinstance(live.head, LiveHead)
    with single_threaded_blas():
        curve = class_curve(live.head, labels, live.groups, label, more or None)
    now = curve.points[-1] if curve.points else None
    expected = None if curve.expected is None or now is None else _point(curve.expected)
    if expected is not None and now is not None and curve.expected is not None:
        expected["gain"] = curve.expected.recall - now.recall
    return {
        **values,
        "images": int((labels == label).sum()),
        "recall": None if now is None else now.recall,
        "points": [_point(point) for point in curve.points],
        "more": curve.more,
        "expected": expected,
        "check": None
        if curve.predicted is None or now is None
        else {"removed": curve.more, "predicted": curve.predicted, "was": now.recall, "holds": curve.holds},
        "why": curve.why,
    }


def job(studio: Studio, request: Request, body: None) -> dict[str, Any]:  # noqa: ARG001
    """Return how a job went."""
    number = request.path_params["id"]
    try:
        return studio.jobs.get(number)
    except KeyError:
        raise NotFoundError(f"job {number}") from None


def report(studio: Studio, request: Request, body: None) -> Response:  # noqa: ARG001
    """Return the report that was written last."""
    file = studio.project.folder / HIDDEN / "report" / "report.html"
    if not file.is_file():
        raise NotFoundError("report; write one first")
    return FileResponse(file, media_type="text/html", headers=REPORT_HEADERS)


async def events(request: Request) -> Response:
    """Stream what happens."""
    studio: Studio = request.app.state.studio
    return StreamingResponse(studio.engine.events.listen(), media_type="text/event-stream")


def _tagged(answer: dict[str, Any], tag: str) -> Response:
    return JSONResponse(answer, headers={"ETag": tag, "Cache-Control": "no-cache"})


def _point(point: CurvePoint) -> dict[str, Any]:
    return {"images": point.images, "recall": point.recall, "interval": list(point.interval)}


def _record(known: State, request: Request) -> ImageRecord:
    record = known.records.get(request.path_params["id"])
    if record is None:
        raise NotFoundError("such image")
    return record


def _status(studio: Studio, record: ImageRecord) -> str:
    embedded = studio.engine.images
    if embedded is None or record.id not in embedded.rows:
        return "failed" if embedded is not None and record.id in embedded.errors else "embedding"
    return "ready"


def _figures(studio: Studio) -> Figures | None:
    """Return the figures of a project of one class an image."""
    figures = studio.engine.figures()
    assert figures is None or isinstance(figures, Figures)
    return figures


def _issues(studio: Studio, known: State) -> list[dict[str, Any]]:
    records = known.records
    if studio.project.multi_label:
        return issue_list(studio, records)
    figures = _figures(studio)
    if figures is None:
        return []
    probability = dict(zip(figures.ids, figures.probabilities.max(axis=1).tolist(), strict=True))
    return [
        {
            "id": id,
            "label": records[id].label,
            "suggested": finding.suggested_label,
            "probability": probability[id],
            "confidence": finding.confidence,
            "certainty": finding.certainty,
            "why": finding.why,
        }
        for id, finding in figures.issues.items()
        if id in records and not records[id].is_accepted
    ]


ROUTES = [
    Route("/api/state", answering(state)),
    Route("/api/images", answering(images), methods=["GET"]),
    Route("/api/images/{id}", answering(image)),
    Route("/thumbnails/{id}", answering(thumbnail)),
    Route("/images/{id}", answering(large)),
    Route("/api/evaluation", answering(evaluate)),
    Route("/api/label-issues", answering(label_issues)),
    Route("/api/uncertain", answering(uncertain)),
    Route("/api/learning-curve", answering(learning_curve)),
    Route("/api/jobs/{id}", answering(job)),
    Route("/report", answering(report)),
    Route("/api/events", events),
]
