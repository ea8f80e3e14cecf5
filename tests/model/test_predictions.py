"""Evaluation of predictions, by hand."""

import numpy as np

from headstart.model.predictions import Predictions, encode_truth, evaluate
from headstart.stats.accuracy import held_out_accuracy, leave_one_group_out_accuracy
from headstart.stats.conformal import ConformalThresholds

PROBABILITIES = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
TRUTH = np.array([0, 0, 1, 1, 2])  # 2: a class that the model does not know


def predictions(**changes):
    values = {
        "truth": TRUTH,
        "unknown_classes": ("zebra",),
        "thresholds": ConformalThresholds(0.9, (0.35, 0.35), 0.1, 0.5),
        "ood_scores": np.array([0.1, 0.6, 0.2, 0.3, 0.9]),
    }
    paths = tuple(f"{i}.jpg" for i in range(5))
    return Predictions(("cat", "dog"), paths, np.arange(5), PROBABILITIES, **(values | changes))


def test_an_evaluation_by_hand():
    evaluation = evaluate(predictions())
    assert (evaluation.accuracy.correct, evaluation.accuracy.count) == (2, 5)
    assert evaluation.confusion.tolist() == [[1, 1], [1, 1]]
    # Sets {cat}, {cat, dog}, {cat}, {dog}: three of four hold the true class.
    assert (evaluation.coverage.correct, evaluation.coverage.count) == (3, 4)
    assert evaluation.set_size == 5 / 4
    assert (evaluation.false_rejections.correct, evaluation.false_rejections.count) == (1, 4)
    assert (evaluation.ood_recall.correct, evaluation.ood_recall.count) == (1, 1)
    assert [metrics.name for metrics in evaluation.metrics.per_class] == ["cat", "dog", "zebra"]
    assert evaluation.metrics.balanced_accuracy == (1 / 2 + 1 / 2 + 0) / 3


def test_without_thresholds_there_are_no_sets_and_no_rejection():
    plain = predictions(thresholds=None, ood_scores=None)
    assert plain.sets is plain.is_rejected is plain.prediction_set(0) is None
    evaluation = evaluate(plain)
    assert evaluation.coverage is evaluation.set_size is evaluation.false_rejections is evaluation.ood_recall is None
    assert "coverage" not in evaluation.to_dict()


def test_a_prediction_set_is_in_order_of_probability():
    assert predictions().prediction_set(1) == ["dog", "cat"]
    assert predictions().prediction_set(0) == ["cat"]
    assert predictions().is_rejected.tolist() == [False, True, False, False, True]


def test_the_interval_is_by_groups_where_groups_are_given():
    groups = np.array([0, 0, 1, 1, 2])
    correct = np.array([True, False, False, True, False])
    assert evaluate(predictions()).accuracy == held_out_accuracy(correct)
    assert evaluate(predictions(), groups).accuracy == leave_one_group_out_accuracy(correct, groups)


def test_the_json_form_keeps_its_keys():
    value = evaluate(predictions()).to_dict()
    assert value["images"] == {"count": 5, "quarantined": 0, "training": 0}
    assert set(value["coverage"]) == {"promised", "found"}
    assert set(value["none_of_these"]) == {"false_alarms", "known", "unknown"}
    assert value["unknown_classes"] == ["zebra"]
    assert set(value) >= {"classes", "accuracy", "confusion", "per_class", "macro", "balanced_accuracy"}


def test_names_become_indices_of_known_and_unknown_classes():
    truth, unknown = encode_truth(("b", "a"), ["a", "z", "b", "y", "z"])
    assert truth.tolist() == [1, 3, 0, 2, 3]
    assert unknown == ("y", "z")


def test_sets_and_rejections_have_intervals_by_groups_too():
    groups = np.array([0, 0, 1, 1, 2])
    found = evaluate(predictions(), groups)
    held, rejected = np.array([True, True, False, True]), np.array([False, True, False, False])
    assert found.coverage == leave_one_group_out_accuracy(held, groups[:4])
    assert found.false_rejections == leave_one_group_out_accuracy(rejected, groups[:4])
    assert found.ood_recall == leave_one_group_out_accuracy(np.array([True]), groups[4:])
