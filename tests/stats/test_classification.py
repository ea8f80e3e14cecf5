"""Confusion matrix, precision, recall and F1 against scikit-learn."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headstart.stats.classification import classification_metrics, confusion_matrix


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
