"""Confusion matrices. Of many classes those that are confused stand next to each other, and those without errors go."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headstart.report.data import SETS, EvaluationSummary, Report
from headstart.report.text import SET_TITLES

MAX_CLASSES = 60
MANY_CLASSES = 8  # beyond, similar classes stand next to each other, and columns are narrow
MAX_CONFUSIONS = 8


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
    is_clustered: bool


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
    is_clustered = len(shown) > MANY_CLASSES
    if is_clustered:
        shown = by_similarity(shown, counts, sizes)
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
        is_clustered=is_clustered,
    )


def by_similarity(classes: Sequence[int], counts: Mapping[tuple[int, int], int], sizes: Mapping[int, int]) -> list[int]:
    """Return classes in an order in which those that are confused with each other stand together.

    The two most similar clusters are joined, by average linkage, until no two are confused; each is turned so that its
    most similar ends meet. Similarity is the share of the images of two classes that are taken for the other.
    """

    def similarity(a: int, b: int) -> float:
        return (counts.get((a, b), 0) + counts.get((b, a), 0)) / max(1, sizes.get(a, 0) + sizes.get(b, 0))

    pairs = {(a, b): similarity(a, b) for a in classes for b in classes}

    def linkage(first: list[int], second: list[int]) -> float:
        return sum(pairs[a, b] for a in first for b in second) / (len(first) * len(second))

    clusters = [[c] for c in classes]
    while len(clusters) > 1:
        candidates = [(linkage(a, b), -i, -j) for i, a in enumerate(clusters) for j, b in enumerate(clusters[:i])]
        best, i, j = max(candidates)
        if best == 0:
            break
        second, first = clusters.pop(-i), clusters.pop(-j)
        turned = [(x, y) for x in (first, first[::-1]) for y in (second, second[::-1])]
        left, right = max(turned, key=lambda ends: pairs[ends[0][-1], ends[1][0]])
        clusters.insert(-j, left + right)
    return [c for cluster in clusters for c in cluster]


def _cell(true_class: int, predicted_class: int, count: int, row_count: int) -> Cell:
    return Cell(true_class, predicted_class, count, shade(count, row_count))


def shade(count: int, row_count: int) -> int:
    """Return the share of a row that a cell has in five steps, 0 if it is empty."""
    return min(5, math.ceil(5 * count / row_count)) if count else 0
