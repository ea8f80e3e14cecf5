"""Metrics by class against scikit-learn, and the classes that the verdict names."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.report.data import EvaluationSummary, ImageResult
from headstart.report.view.class_metrics import Mistake, class_metrics, classes_view, verdict
from headstart.stats.classification import confusion_matrix


def summary_of(truth, predicted, classes):
    counts = confusion_matrix(np.array(truth), np.array(predicted), classes)
    cells = tuple((int(t), int(p), int(counts[t, p])) for t, p in np.argwhere(counts))
    return EvaluationSummary("validation", cells, (), ())


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_metrics_are_those_of_scikit_learn(pairs):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn: pip install scikit-learn")
    truth, predicted = zip(*pairs, strict=True)
    rows = class_metrics(summary_of(truth, predicted, 4), 4)
    assert [row.class_index for row in rows] == sorted({*truth, *predicted})
    labels = [row.class_index for row in rows]
    expected = metrics.precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    for row, precision, recall, f1, support in zip(rows, *expected, strict=True):
        assert (row.precision or 0.0) == pytest.approx(precision)
        assert (row.recall or 0.0) == pytest.approx(recall)
        assert (row.f1 or 0.0) == pytest.approx(f1)
        assert row.count == support
        assert (row.precision is None) == (row.class_index not in predicted)
        assert (row.recall is None) == (row.class_index not in truth)


def test_the_means_are_those_of_scikit_learn(fit_report):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn: pip install scikit-learn")
    truth, predicted = [0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 0, 2, 2, 2]
    report = dataclasses.replace(fit_report, classes=("a", "b", "c"), known_classes=3)
    view = classes_view(summary_of(truth, predicted, 3), report, 0)
    expected = metrics.precision_recall_fscore_support(truth, predicted, average="macro")
    assert (view.macro_precision, view.macro_recall, view.macro_f1) == pytest.approx(expected[:3])
    assert [row.class_index for row in view.rows] == [1, 0, 2]  # the worst first


def test_the_verdict_names_good_and_poor_classes_and_the_worst_confusions(fit_report):
    """The example of a report: one class of five is taken for another, which therefore is not to be trusted either."""
    report = dataclasses.replace(fit_report, classes=tuple("abcde"), known_classes=5)
    cells = ((0, 0, 100), (1, 1, 96), (1, 0, 4), (2, 2, 7), (2, 3, 63), (3, 3, 130), (4, 4, 9), (4, 0, 1))
    result = verdict(EvaluationSummary("validation", cells, (), ()), report, 0)
    assert [row.class_index for row in result.good] == [0, 1]
    assert [row.class_index for row in result.poor] == [2, 3]  # worst first: recall 10%, precision 67%
    assert [row.class_index for row in result.others] == [4]  # nine of ten are too few to tell
    assert (result.weakest.class_index, result.weakest.correct, result.weakest.count) == (2, 7, 70)
    assert result.weakest.missed_as == Mistake(2, 3, 63)
    assert result.confusions == (Mistake(2, 3, 63), Mistake(1, 0, 4))


def test_a_class_that_the_model_does_not_have_is_no_row_but_counts_against_precision(fit_report):
    report = dataclasses.replace(fit_report, classes=("a", "b", "stranger"), known_classes=2)
    summary = EvaluationSummary("validation", ((0, 0, 50), (1, 1, 50), (2, 1, 40)), (), ())
    result = verdict(summary, report, 0)
    assert [row.class_index for row in result.poor] == [1]
    assert result.poor[0].precision == pytest.approx(50 / 90)
    only_strangers = EvaluationSummary("validation", ((2, 1, 40),), (), ())
    assert verdict(only_strangers, report, 0) is None


def images_of(truth, predicted, groups):
    return tuple(
        ImageResult(f"{i}.jpg", 0, t, p, 1 - p, 0.9, 0.1, 0.9, g)
        for i, (t, p, g) in enumerate(zip(truth, predicted, groups, strict=True))
    )


def test_a_class_of_few_scenes_is_not_surely_good_however_many_frames_they_have(fit_report):
    """Both classes have 200 images, all right: of one they are of 40 scenes, of the other of 4."""
    truth = [0] * 200 + [1] * 200
    groups = [i // 5 for i in range(200)] + [100 + i // 50 for i in range(200)]
    report = dataclasses.replace(
        fit_report, classes=("a", "b"), known_classes=2, images=images_of(truth, truth, groups)
    )
    result = verdict(summary_of(truth, truth, 2), report, 0)
    assert [row.class_index for row in result.good] == [0]
    assert [row.class_index for row in result.others] == [1]
    assert result.others[0].groups == (4, 4)
    some = dataclasses.replace(report, images=report.images[:300])  # of very many images only some are shown
    assert [row.class_index for row in verdict(summary_of(truth, truth, 2), some, 0).good] == [0, 1]
