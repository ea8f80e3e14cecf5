"""Routes that change: images, labels, classes, the model that is saved."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headstart.serve.limits import JSONResponse
from headstart.studio.choice import FullChoice
from headstart.studio.image_files import suffix_of
from headstart.studio.imports import import_archive
from headstart.studio.moves import HIDDEN
from headstart.studio.records import check_class_name
from headstart.studio.requests import (
    NotReadyError,
    Studio,
    answering,
    changed,
    class_asked,
    class_of,
    formats_of,
    ids_of,
    names_of,
    states_of,
    text_of,
    version_of,
)
from headstart.studio.saved import Comparison, compare, model_folder, save
from headstart.studio.state import NotFoundError, StaleVersionError

GROUP = re.compile(r"[A-Za-z0-9_-]{1,80}")
FULL_SECONDS = 600.0  # that a job waits for the full choice
Body = dict[str, Any]


def add_image(studio: Studio, request: Request, body: bytes) -> Response:
    """Add an image to a class."""
    group = request.query_params.get("group")
    if group is not None and not GROUP.fullmatch(group):
        raise HTTPException(400, "group must be 1 to 80 letters, digits, - or _.")
    name = class_asked(request)
    labels = (name,) if name is not None or not studio.project.multi_label else ()
    return _add(studio, body, suffix_of(body), [label or "" for label in labels], group)


def _add(studio: Studio, data: bytes, suffix: str, labels: list[str], group: str | None) -> Response:
    """Add an image to its class; of several labels to any number of them, none for one that is not labelled yet."""
    record, is_new = studio.project.add(data, suffix, tuple(class_of(studio, label) for label in labels), group)
    values: Body = {"id": record.id, "added": is_new, "label": record.label, "group": record.group}
    if studio.project.multi_label:
        values |= {"labels": None if record.labels is None else record.labels.present}
    if not is_new:
        why = f"The same image is there already, as {record.path}."
        return JSONResponse({"version": studio.project.state.version, **values, "reason": why})
    return JSONResponse(changed(studio, studio.project.undo_text or "", **values), 201)


def relabel(studio: Studio, request: Request, body: Body) -> Body:  # noqa: ARG001
    """Give images another label."""
    if studio.project.multi_label:
        raise HTTPException(400, "An image may have several labels here; say what each label is by /api/labels.")
    version, label, ids = version_of(body), class_of(studio, text_of(body, "label")), ids_of(studio, body)
    count = studio.project.relabel(version, ids, label)
    return changed(studio, studio.project.undo_text or "", changed=count)


def set_labels(studio: Studio, request: Request, body: Body) -> Body:  # noqa: ARG001
    """Say of labels whether images have them, or that it is not known."""
    if not studio.project.multi_label:
        raise HTTPException(400, "An image has one class here; give it another by /api/relabel.")
    version, ids, (states, others) = version_of(body), ids_of(studio, body), states_of(studio, body)
    count = studio.project.set_labels(version, ids, states, others)
    return changed(studio, studio.project.undo_text or "", changed=count)


def accept(studio: Studio, request: Request, body: Body) -> Body:  # noqa: ARG001
    """Note that labels are right."""
    name = text_of(body, "label") if studio.project.multi_label and body.get("label") is not None else None
    count = studio.project.accept(version_of(body), ids_of(studio, body), name)
    return changed(studio, studio.project.undo_text or "", changed=count)


def delete(studio: Studio, request: Request, body: Body) -> Body:  # noqa: ARG001
    """Move images to the trash."""
    count = studio.project.delete(version_of(body), ids_of(studio, body))
    return changed(studio, studio.project.undo_text or "", changed=count)


def undo(studio: Studio, request: Request, body: Body) -> Body:  # noqa: ARG001
    """Take back the last change."""
    what = studio.project.undo(version_of(body))
    return changed(studio, f"Undone: {what}", undone=what)


def add_class(studio: Studio, request: Request, body: Body) -> Body:  # noqa: ARG001
    """Begin a class, which conflicts with no other change."""
    version_of(body)  # must be there, as for all changes
    name = studio.project.add_class(None, text_of(body, "name"))
    return changed(studio, f"New {studio.project.word} {name}", name=name)


def rename_class(studio: Studio, request: Request, body: Body) -> Body:  # noqa: ARG001
    """Give a class another name."""
    version, name, to = version_of(body), class_of(studio, text_of(body, "name")), text_of(body, "to")
    return changed(studio, f"Renamed {name} to {to}", changed=studio.project.rename_class(version, name, to))


def apply(studio: Studio, request: Request, body: Body) -> Body:  # noqa: ARG001
    """Move files to the folders of their labels."""
    moved, kept = studio.project.apply(version_of(body))
    names = [{"name": name, "reason": reason} for name, reason in kept]
    return changed(studio, f"Moved {moved} files", moved=moved, kept=names)


def import_images(studio: Studio, request: Request, body: bytes) -> Body:
    """Add the images of an archive."""
    label = class_asked(request)
    if label is not None and label not in studio.project.state.classes:
        label = check_class_name(label, studio.project.word)
    with tempfile.NamedTemporaryFile(dir=studio.project.folder / HIDDEN, suffix=".zip") as file:
        file.write(body)
        file.flush()
        result = import_archive(studio.project, Path(file.name), label)
    return changed(
        studio,
        f"Imported {result.added} images",
        added=result.added,
        already=result.already,
        classes=result.classes,
        refused=[{"name": name, "reason": reason} for name, reason in result.refused],
    )


def try_image(studio: Studio, request: Request, body: bytes) -> Body:
    """Predict an image that is not in the project."""
    return studio.tries.predict(_full(studio), body, with_map=request.query_params.get("map") != "0")


def add_tried(studio: Studio, request: Request, body: Body) -> Response:
    """Add an image that was tried to the class that it is of."""
    labels = names_of(body, "labels") if studio.project.multi_label else [text_of(body, "class")]
    try:
        data, suffix = studio.tries.kept(request.path_params["id"])
    except KeyError:
        raise NotFoundError("such image among those tried last") from None
    return _add(studio, data, suffix, labels, None)


def compare_saved(studio: Studio, request: Request, body: None) -> Body:  # noqa: ARG001
    """Compare the full choice with the saved model."""
    return compare(studio.engine, _full(studio)).to_dict()


def save_model(studio: Studio, request: Request, body: Body) -> Body:  # noqa: ARG001
    """Save the full choice of the labels as they are, unless it is worse than the saved one."""
    version, anyway = _current(studio, body), body.get("anyway") is True

    def work() -> Body:
        full = studio.engine.wait_for_full(version, FULL_SECONDS)
        comparison: Comparison = compare(studio.engine, full)
        values: Body = {"comparison": comparison.to_dict()}
        if comparison.verdict == "worse" and not anyway:
            return {"saved": False, **values, "why": comparison.why}
        return {"saved": True, **values, "folder": str(save(studio.project, full))}

    return {"job": studio.jobs.start("save", work)}


def write_report(studio: Studio, request: Request, body: Body) -> Body:  # noqa: ARG001
    """Write the report of the full choice."""
    version = _current(studio, body)

    def work() -> Body:
        from headstart.report import write_report as write

        folder = studio.project.folder / HIDDEN / "report"
        folder.mkdir(exist_ok=True)
        page = write(studio.engine.wait_for_full(version, FULL_SECONDS).result, folder)
        return {"url": f"/report?key={studio.key}", "folder": str(page.parent)}

    return {"job": studio.jobs.start("report", work)}


def export(studio: Studio, request: Request, body: Body) -> Body:  # noqa: ARG001
    """Export the full choice for another runtime."""
    version, to = _current(studio, body), text_of(body, "to")
    if to not in formats_of(studio):
        raise HTTPException(400, f"Unknown format; choose one of {', '.join(formats_of(studio))}.")

    def work() -> Body:
        from headstart.export.export import export_model

        model = studio.engine.wait_for_full(version, FULL_SECONDS).result.model
        target = model_folder(studio.project)
        finished = export_model(model, to, target.with_name(f"{target.name}-{to}"))
        proof = "; ".join([*(why for _, why in finished.not_proven), *finished.notes])
        return {"folder": str(finished.folder), "proof": proof or "Proven in its own runtime."}

    return {"job": studio.jobs.start("export", work)}


def _current(studio: Studio, body: Body) -> int:
    """Return the version of the body, which must be that of the labels now."""
    version = version_of(body)
    if version != studio.project.state.version:
        raise StaleVersionError
    if studio.engine.why_none:
        raise NotReadyError(studio.engine.why_none)
    return version


def _full(studio: Studio) -> FullChoice:
    full = studio.engine.full
    if full is None:
        raise NotReadyError(studio.engine.error or studio.engine.why_none)
    return full


ROUTES = [
    Route("/api/images", answering(add_image, body="image"), methods=["POST"]),
    Route("/api/relabel", answering(relabel, body="json"), methods=["POST"]),
    Route("/api/labels", answering(set_labels, body="json"), methods=["POST"]),
    Route("/api/accept", answering(accept, body="json"), methods=["POST"]),
    Route("/api/delete", answering(delete, body="json"), methods=["POST"]),
    Route("/api/undo", answering(undo, body="json"), methods=["POST"]),
    Route("/api/classes", answering(add_class, body="json", status=201), methods=["POST"]),
    Route("/api/classes/rename", answering(rename_class, body="json"), methods=["POST"]),
    Route("/api/apply", answering(apply, body="json"), methods=["POST"]),
    Route("/api/import", answering(import_images, body="zip"), methods=["POST"]),
    Route("/api/try", answering(try_image, body="image"), methods=["POST"]),
    Route("/api/try/{id}/add", answering(add_tried, body="json"), methods=["POST"]),
    Route("/api/compare", answering(compare_saved)),
    Route("/api/save", answering(save_model, body="json", status=202), methods=["POST"]),
    Route("/api/report", answering(write_report, body="json", status=202), methods=["POST"]),
    Route("/api/export", answering(export, body="json", status=202), methods=["POST"]),
]
