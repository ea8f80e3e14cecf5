"""Confusion matrices, reduced to the classes with the most errors where there are many classes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from headstart.report.data import SETS, EvaluationSummary, Report
from headstart.report.text import SET_TITLES

MAX_CLASSES = 20
MAX_CONFUSIONS = 15


@dataclass(frozen=True)
class Cell:
    """Cell of a confusion matrix: its classes, its count, and its share of the row in five steps (0 if empty)."""

    true_class: int
    predicted_class: int
    count: int
    shade: int


@dataclass(frozen=True)
class Row:
    """Row of a confusion matrix: a true class, its cells, and how many of its images are classified correctly."""

    true_class: int
    cells: tuple[Cell, ...]
    correct: int
    count: int


@dataclass(frozen=True)
class MatrixView:
    """Confusion matrix of one of ``SETS``: the predicted classes shown, the rows, and the most frequent confusions."""

    set_index: int
    title: str
    columns: tuple[int, ...]
    rows: tuple[Row, ...]
    frequent: tuple[Cell, ...]
    hidden_classes: int


def confusion_matrix_view(summary: EvaluationSummary, report: Report) -> MatrixView:
    """Return the confusion matrix of an evaluation. A class has the errors of its images and those mistaken for it."""
    counts = {(truth, prediction): count for truth, prediction, count in summary.confusion}
    sizes: Counter[int] = Counter()
    errors: Counter[int] = Counter()
    for (truth, prediction), count in counts.items():
        sizes[truth] += count
        if truth != prediction:
            errors[truth] += count
            errors[prediction] += count
    classes = range(len(report.classes))
    shown = sorted(sorted(classes, key=lambda c: (-errors[c], c))[:MAX_CLASSES])
    columns = tuple(c for c in shown if c < report.known_classes)
    rows = []
    for truth in shown:
        if sizes[truth]:
            cells = tuple(_cell(truth, c, counts.get((truth, c), 0), sizes[truth]) for c in columns)
            rows.append(Row(truth, cells, counts.get((truth, truth), 0), sizes[truth]))
    confusions = [_cell(truth, c, count, sizes[truth]) for (truth, c), count in counts.items() if truth != c]
    confusions.sort(key=lambda cell: (-cell.count, cell.true_class, cell.predicted_class))
    return MatrixView(
        set_index=SETS.index(summary.name),
        title=SET_TITLES[summary.name],
        columns=columns,
        rows=tuple(rows),
        frequent=tuple(confusions[:MAX_CONFUSIONS]),
        hidden_classes=len(classes) - len(shown),
    )


def _cell(true_class: int, predicted_class: int, count: int, row_count: int) -> Cell:
    shade = min(5, math.ceil(5 * count / row_count)) if count else 0
    return Cell(true_class, predicted_class, count, shade)
