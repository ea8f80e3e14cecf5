"""Confusion matrices of few and of many classes."""

import dataclasses

from headstart.report.data import EvaluationSummary
from headstart.report.view.confusion_matrix import by_similarity, confusion_matrix_view


def test_every_count_of_a_small_matrix_is_shown(fit_report):
    for summary in fit_report.evaluations:
        matrix = confusion_matrix_view(summary, fit_report)
        cells = {(cell.true_class, cell.predicted_class): cell.count for row in matrix.rows for cell in row.cells}
        assert {key: count for key, count in cells.items() if count} == {(t, p): n for t, p, n in summary.confusion}
        assert sum(row.count for row in matrix.rows) == sum(n for _, _, n in summary.confusion)
        assert matrix.hidden_classes == 0


def test_of_many_classes_those_with_the_most_errors_are_shown(fit_report, monkeypatch):
    monkeypatch.setattr("headstart.report.view.confusion_matrix.MAX_CLASSES", 20)
    report = dataclasses.replace(fit_report, classes=tuple(map(str, range(30))), known_classes=29)
    confusion = (*((c, c, 10) for c in range(29)), (29, 3, 2), (25, 3, 4), (3, 25, 4), (27, 1, 1))
    matrix = confusion_matrix_view(EvaluationSummary("validation", confusion, (), ()), report)
    assert len({row.true_class for row in matrix.rows}) == 20
    assert {3, 25, 29, 27, 1} <= {row.true_class for row in matrix.rows}
    assert 29 not in matrix.columns  # a class that the model does not have is never predicted
    assert [(cell.true_class, cell.predicted_class, cell.count) for cell in matrix.frequent] == [
        (3, 25, 4),
        (25, 3, 4),
        (29, 3, 2),
        (27, 1, 1),
    ]
    assert matrix.hidden_classes == 10
    assert matrix.is_clustered


def test_classes_that_are_confused_stand_next_to_each_other():
    sizes = dict.fromkeys(range(6), 10)
    counts = {(0, 4): 5, (4, 0): 3, (1, 5): 4, (5, 3): 2, (2, 2): 10}
    order = by_similarity(range(6), counts, sizes)
    assert sorted(order) == list(range(6))
    place = {c: i for i, c in enumerate(order)}
    assert abs(place[0] - place[4]) == abs(place[1] - place[5]) == abs(place[5] - place[3]) == 1
    assert by_similarity([3, 1, 2], {}, {}) == [3, 1, 2]
