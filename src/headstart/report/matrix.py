"""What is taken for what: the confusion matrix, cut down to the classes with most mistakes where there are many."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from headstart.report.data import Measured, Report

MATRIX = 20  # classes
PAIRS = 15  # most frequent confusions
TITLES = {"validation": "held-out pictures", "leave_group_out": "training pictures, their group left out"}


@dataclass(frozen=True)
class Cell:
    """Of a confusion matrix: how many, the share of its row, and the two classes."""

    truth: int
    answer: int
    count: int
    shade: int


@dataclass(frozen=True)
class Matrix:
    """Confusions of one set: the classes shown, a row a true class, and the most frequent mistakes."""

    name: str
    title: str
    number: int
    columns: tuple[int, ...]
    rows: tuple[tuple[int, tuple[Cell, ...], int, int], ...]  # class, cells, right, all
    pairs: tuple[Cell, ...]
    left_out: int


def matrix(measured: Measured, number: int, report: Report) -> Matrix:
    """The confusion matrix of a set, the ``number``-th of the report."""
    counts = {(truth, answer): count for truth, answer, count in measured.confusion}
    missed: Counter[int] = Counter()
    size: Counter[int] = Counter()
    for (truth, answer), count in counts.items():
        size[truth] += count
        if truth != answer:
            missed[truth] += count
            missed[answer] += count
    classes = range(len(report.classes))
    shown = sorted(sorted(classes, key=lambda c: (-missed[c], c))[:MATRIX])
    columns = tuple(c for c in shown if c < report.known)
    rows = []
    for truth in shown:
        if size[truth]:
            cells = tuple(_cell(truth, answer, counts.get((truth, answer), 0), size[truth]) for answer in columns)
            rows.append((truth, cells, counts.get((truth, truth), 0), size[truth]))
    wrong = sorted(((n, t, a) for (t, a), n in counts.items() if t != a), key=lambda e: (-e[0], e[1:]))
    pairs = tuple(_cell(t, a, n, size[t]) for n, t, a in wrong[:PAIRS])
    return Matrix(
        measured.name, TITLES[measured.name], number, columns, tuple(rows), pairs, len(classes) - len(shown)
    )  # fmt: skip


def _cell(truth: int, answer: int, count: int, size: int) -> Cell:
    return Cell(truth, answer, count, min(5, math.ceil(5 * count / size)) if count else 0)
