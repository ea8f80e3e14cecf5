"""Confusion matrix, precision, recall and F1 against scikit-learn."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headstart.stats.accuracy import wilson
from headstart.stats.classification import classification_metrics, confusion_matrix, weak_classes


def problems():
    """The number of classes, and the true and the predicted class of each of one image or more."""
    return st.integers(1, 6).flatmap(
        lambda classes: st.tuples(
            st.just(classes),
            st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=40),
        )
    )


@settings(deadline=None)
@given(problems())
@example((3, [(0, 0), (0, 1), (1, 1)]))  # a class without images that is never predicted
@example((3, [(0, 0), (1, 0), (2, 0)]))  # two classes that are never predicted
@example((3, [(0, 2), (0, 1), (0, 0)]))  # two classes without images, both predicted
@example((2, [(0, 1), (1, 0)]))  # every prediction is wrong
@example((1, [(0, 0)] * 3))  # a single class
def test_metrics_agree_with_scikit_learn(problem):
    from sklearn import metrics as sklearn_metrics

    classes, pairs = problem
    truth, predicted = np.array(pairs).T
    metrics = classification_metrics(truth, predicted, [f"class {c}" for c in range(classes)])
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        truth, predicted, labels=np.arange(classes), zero_division=np.nan
    )
    for c, of_class in enumerate(metrics.per_class):
        assert of_class.name == f"class {c}"
        assert of_class.support == support[c]
        for value, expected in ((of_class.precision, precision), (of_class.recall, recall), (of_class.f1, f1)):
            assert (value is None) == np.isnan(expected[c])
            assert value is None or value == pytest.approx(expected[c])
    macro = sklearn_metrics.precision_recall_fscore_support(
        truth, predicted, labels=np.unique(truth), average="macro", zero_division=0
    )
    assert (metrics.macro_precision, metrics.macro_recall, metrics.macro_f1) == pytest.approx(macro[:3])
    if len(set(truth)) > 1 and set(predicted) <= set(truth):  # otherwise scikit-learn warns
        expected_balanced = sklearn_metrics.balanced_accuracy_score(truth, predicted)
        assert metrics.balanced_accuracy == pytest.approx(expected_balanced)


@given(problems())
def test_a_confusion_matrix_counts_pairs_of_true_and_predicted_class(problem):
    classes, pairs = problem
    expected = [[pairs.count((true, predicted)) for predicted in range(classes)] for true in range(classes)]
    assert confusion_matrix(*np.array(pairs).T, classes).tolist() == expected


def test_a_confusion_matrix_has_true_classes_in_rows():
    assert confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist() == [[1, 1], [0, 1]]


def test_undefined_ratios_are_none_and_count_as_zero_in_means():
    """Of four classes, ants are never predicted, bees have no images, cats are neither."""
    truth, predicted = np.array([0, 0, 3, 3]), np.array([1, 3, 3, 3])
    metrics = classification_metrics(truth, predicted, ["ants", "bees", "cats", "dogs"])
    ants, bees, cats, dogs = metrics.per_class
    assert (ants.precision, ants.recall, ants.f1, ants.support) == (None, 0.0, 0.0, 2)
    assert (bees.precision, bees.recall, bees.f1, bees.support) == (0.0, None, 0.0, 0)
    assert (cats.precision, cats.recall, cats.f1, cats.support) == (None, None, None, 0)
    assert (dogs.precision, dogs.recall, dogs.f1, dogs.support) == (2 / 3, 1.0, 0.8, 2)
    assert metrics.macro_precision == pytest.approx((0 + 2 / 3) / 2)
    assert metrics.macro_recall == metrics.balanced_accuracy == 0.5
    assert metrics.macro_f1 == pytest.approx(0.4)


def test_metrics_of_no_images_are_an_error():
    nothing = np.zeros(0, int)
    with pytest.raises(ValueError, match="no images"):
        classification_metrics(nothing, nothing, ["ants", "bees"])


def test_the_json_form_of_metrics():
    metrics = classification_metrics(np.array([0, 0]), np.array([0, 0]), ["ants", "bees"])
    assert json.loads(json.dumps(metrics.to_dict())) == {
        "per_class": [
            {"class": "ants", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2},
            {"class": "bees", "precision": None, "recall": None, "f1": None, "support": 0},
        ],
        "macro": {"precision": 1.0, "recall": 1.0, "f1": 1.0},
        "balanced_accuracy": 1.0,
        "majority": {"class": "ants", "share": 1.0},
    }


def answers(*rows):
    """True and predicted classes of images: a row is (true class, predicted class, number of images)."""
    return tuple(np.concatenate([[row[place]] * row[2] for row in rows]) for place in (0, 1))


def test_a_class_that_is_mostly_missed_is_weak_and_says_what_it_is_taken_for():
    truth, predicted = answers((0, 0, 68), (0, 1, 2), (1, 1, 7), (1, 0, 4), (1, 2, 59), (2, 2, 69), (2, 1, 1))
    (weak,) = weak_classes(truth, predicted, ("horses", "humans", "dolls"))
    assert (weak.name, weak.recall.correct, weak.recall.count) == ("humans", 7, 70)
    assert (weak.taken_for, weak.taken) == ("dolls", 59)
    assert weak.describe() == "humans: 10.0% recall (95% interval 4.9% to 19.2%), 59 of 70 taken for dolls"


def test_few_errors_and_equally_bad_classes_are_not_weak():
    names = ("a", "b")
    assert weak_classes(*answers((0, 0, 97), (0, 1, 3), (1, 1, 2), (1, 0, 1)), names) == ()  # 1 of 3 wrong
    assert weak_classes(*answers((0, 0, 30), (0, 1, 70), (1, 1, 32), (1, 0, 68)), names) == ()
    assert weak_classes(*answers((0, 0, 5000), (1, 1, 4700), (1, 0, 300)), names) == ()  # 94% is not weak
    assert weak_classes(*answers((0, 0, 50)), names) == ()  # nothing to compare with
    assert weak_classes(*answers((0, 0, 50), (2, 0, 50)), names) == ()  # an unknown class is nobody's fault


def test_images_of_one_group_count_once():
    truth, predicted = answers((0, 0, 20), (1, 1, 30), (1, 0, 30))
    assert [weak.name for weak in weak_classes(truth, predicted, ("a", "b"))] == ["b"]
    groups = np.concatenate([np.arange(20), 20 + np.repeat([0, 1, 2], 20)])
    assert weak_classes(truth, predicted, ("a", "b"), groups) == ()
    groups = np.concatenate([np.arange(20), 20 + np.arange(60) // 2])
    (weak,) = weak_classes(truth, predicted, ("a", "b"), groups)
    assert weak.recall.interval == pytest.approx(wilson(15, 30))


@settings(deadline=None, max_examples=50)
@given(problems())
def test_a_weak_class_has_an_interval_below_that_of_all_others(problem):
    classes, pairs = problem
    truth, predicted = (np.array([pair[place] for pair in pairs]) for place in (0, 1))
    names = [str(i) for i in range(classes)]
    weak = {weak.name: weak for weak in weak_classes(truth, predicted, names)}
    for i, name in enumerate(names):
        own, others = [t == p for t, p in pairs if t == i], [t == p for t, p in pairs if t != i]
        is_weak = (
            bool(own and others)
            and sum(own) < 0.9 * len(own)
            and wilson(sum(own), len(own))[1] < wilson(sum(others), len(others))[0]
        )
        assert (name in weak) == is_weak
