"""Counts by threshold against the rule that ``fit --threshold`` decides by."""

import numpy as np
import pytest

from headstart.report.thresholds import MAX_CLASSES, THRESHOLDS, class_thresholds
from headstart.stats.decision import DecisionRule


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_counts_are_those_of_the_decisions_of_a_model_with_that_threshold(classes):
    rng = np.random.default_rng(classes)
    probabilities = rng.dirichlet(np.full(classes, 0.5), 400)
    truth = rng.integers(0, classes + 1, 400)  # the last is a class that the model does not have
    for counts in class_thresholds(probabilities, truth, probabilities.argmax(axis=1)):
        c = counts.class_index
        assert counts.count == (truth == c).sum()
        for threshold, found, false_alarms in zip(THRESHOLDS, counts.found, counts.false_alarms, strict=True):
            rule = DecisionRule.of_thresholds([threshold if i == c else None for i in range(classes)])
            is_called = rule.decide(probabilities) == c
            assert found == (is_called & (truth == c)).sum()
            assert false_alarms == (is_called & (truth != c)).sum()


def test_of_many_classes_those_with_the_most_errors_are_kept():
    classes = MAX_CLASSES + 20
    truth = np.repeat(np.arange(classes), 2)
    predicted = truth.copy()
    predicted[-4:] = 0  # the last two classes
    chosen = [counts.class_index for counts in class_thresholds(np.eye(classes)[predicted], truth, predicted)]
    assert len(chosen) == MAX_CLASSES
    assert {0, classes - 2, classes - 1} <= set(chosen)
    assert chosen == sorted(chosen)
