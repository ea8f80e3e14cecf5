"""What notebooks show of a model and of an evaluation: plain HTML with nothing to run and nothing to load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from headstart.model.model import Model
from headstart.model.predictions import Evaluation

MAX_CLASSES = 30  # rows of a table
MAX_MATRIX = 12  # classes of a confusion matrix; more do not fit a notebook
TITLES = {"validation": "validation images", "leave_group_out": "leaving one group out at a time"}


def model_html(model: Model) -> str:
    """Describe a model: classes, parts, and the accuracy that its fit measured."""
    names = [*model.classes[:MAX_CLASSES], *(["..."] if len(model.classes) > MAX_CLASSES else [])]
    rows = [
        *((f"Accuracy, {TITLES.get(name, name)}", str(accuracy)) for name, accuracy in model.accuracy.items()),
        (f"Classes ({len(model.classes)})", ", ".join(names)),
        ("Backbone", model.backbone.get("id", "unknown")),
        ("Head", f"{model.head.kind} on {', '.join(model.head.taps)}"),
        *((name.capitalize(), str(model.run[name])) for name in ("version", "author", "date") if model.run.get(name)),
    ]
    return f"<b>Image classifier</b>{_table(rows)}"


def evaluation_html(evaluation: Evaluation) -> str:
    """Describe an evaluation: accuracy, weak classes, metrics of each class, and the confusion matrix of a few."""
    lines = [f"<b>Accuracy</b> {escape(str(evaluation.accuracy))}"]
    lines += [f"<b>Weak class</b> {_text(weak.describe())}" for weak in evaluation.weak_classes[:MAX_CLASSES]]
    header = ("class", "precision", "recall", "F1", "images")
    rows = [
        (
            row.name,
            *("-" if value is None else f"{value:.1%}" for value in (row.precision, row.recall, row.f1)),
            row.support,
        )
        for row in evaluation.metrics.per_class[:MAX_CLASSES]
    ]
    more = len(evaluation.metrics.per_class) - len(rows)
    text = "<br>".join(lines) + _table(rows, header) + (f"and {more} more classes" if more else "")
    classes = evaluation.predictions.classes
    if len(classes) > MAX_MATRIX:
        return text
    matrix = [(name, *map(int, counts)) for name, counts in zip(classes, evaluation.confusion, strict=True)]
    return f"{text}True classes by row, predicted classes by column{_table(matrix, ('', *classes))}"


def _table(rows: Iterable[Sequence[object]], header: Sequence[object] = ()) -> str:
    head = f"<tr>{''.join(f'<th>{_text(cell)}</th>' for cell in header)}</tr>" if header else ""
    body = "".join(
        f"<tr><th style='text-align:left'>{_text(first)}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table>{head}{body}</table>"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _text(value: object) -> str:
    """Return a text as inert HTML; names may hold anything."""
    return escape("".join(c if c.isprintable() else " " for c in str(value)))
