"""Decisions by costs and thresholds, against every class tried one by one; the mean cost and its interval."""

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headstart.errors import OptionError
from headstart.stats.accuracy import held_out_accuracy, leave_one_group_out_accuracy
from headstart.stats.decision import MAX_CLASSES, DecisionRule, mean_cost


@st.composite
def probabilities_and_costs(draw):
    k = draw(st.integers(2, 5))
    scores = draw(arrays(np.float64, (6, k), elements=st.floats(-8, 8)))
    probabilities = np.exp(scores)
    costs = draw(arrays(np.float64, (k, k), elements=st.floats(0, 100, width=32)))
    costs[np.arange(k), np.arange(k)] = 0
    assume(not (costs == costs[:, :1]).all())
    return probabilities / probabilities.sum(axis=1, keepdims=True), costs


@given(probabilities_and_costs())
def test_the_decision_has_the_least_expected_cost_of_all(case):
    probabilities, costs = case
    decided = DecisionRule.of_costs(costs).decide(probabilities)
    for p, choice in zip(probabilities, decided, strict=True):
        expected = [sum(p[i] * costs[i, j] for i in range(len(p))) for j in range(len(p))]
        assert expected[choice] <= min(expected) + 1e-9 * (1 + max(expected))


@given(probabilities_and_costs())
def test_equal_costs_decide_for_the_most_probable_class(case):
    probabilities, _ = case
    k = probabilities.shape[1]
    decided = DecisionRule.of_costs(7.0 * (1 - np.eye(k))).decide(probabilities)
    assert (probabilities[np.arange(6), decided] >= probabilities.max(axis=1) - 1e-12).all()


@given(probabilities_and_costs(), st.lists(st.none() | st.floats(0.01, 0.99), min_size=5, max_size=5))
def test_a_class_that_reaches_its_threshold_is_predicted_or_another_that_does(case, thresholds):
    probabilities = case[0]
    thresholds = thresholds[: probabilities.shape[1]]
    assume(any(value is not None for value in thresholds))
    rule = DecisionRule.of_thresholds(thresholds)
    given_thresholds = np.array([np.inf if value is None else value for value in thresholds])
    for p, choice in zip(probabilities, rule.decide(probabilities), strict=True):
        if (p >= given_thresholds * (1 + 1e-9)).any():
            assert p[choice] >= rule.thresholds[choice] * (1 - 1e-9)
        ratios = [p[c] / rule.thresholds[c] for c in range(len(p))]
        assert ratios[choice] >= max(ratios) * (1 - 1e-12)


@given(st.floats(0.001, 0.999), st.floats(0, 1))
def test_of_two_classes_one_is_predicted_just_where_it_reaches_its_threshold(threshold, p):
    assume(abs(p - threshold) > 1e-9)
    probabilities = np.array([[1 - p, p]])
    assert (DecisionRule.of_thresholds([None, threshold]).decide(probabilities)[0] == 1) == (p > threshold)


def test_of_two_classes_a_threshold_is_a_pair_of_costs():
    """Elkan 2001, equation 2: the class is predicted from p = c10 / (c10 + c01) on."""
    p = np.random.default_rng(0).random(500)
    probabilities = np.stack([1 - p, p], axis=1)
    costs = DecisionRule.of_costs(np.array([[0, 1], [4, 0]]))
    np.testing.assert_array_equal(
        costs.decide(probabilities), DecisionRule.of_thresholds([None, 0.2]).decide(probabilities)
    )
    np.testing.assert_array_equal(costs.decide(probabilities), p > 0.2)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ([[0, np.nan], [1, 0]], "from 0 to"),
        ([[0, -1], [1, 0]], "from 0 to"),
        ([[0, np.inf], [1, 0]], "from 0 to"),
        ([[0, 1e7], [1, 0]], "from 0 to"),
        ([[1, 0], [0, 1]], "correct prediction costs more"),
        ([[0, 0], [0, 0]], "decide nothing"),
        ([[3, 3], [2, 2]], "decide nothing"),
    ],
)
def test_costs_that_cannot_decide_are_refused(costs, message):
    with pytest.raises(OptionError, match=message):
        DecisionRule.of_costs(np.array(costs, np.float64))


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 2.0, np.nan, np.inf, 1e-9, 1 - 1e-9])
def test_thresholds_that_are_no_probabilities_are_refused(value):
    with pytest.raises(OptionError, match="between 0 and 1"):
        DecisionRule.of_thresholds([value, 0.5])


def test_more_classes_than_a_matrix_is_for_are_refused():
    with pytest.raises(OptionError, match="up to 500 classes; these data have 501"):
        DecisionRule.of_thresholds([0.5] * (MAX_CLASSES + 1))


@pytest.mark.parametrize(
    "rule",
    [
        DecisionRule.of_costs(np.array([[0, 1.5, 2], [3, 0, 1e6], [0, 0.1, 0]]), "costs.csv"),
        DecisionRule.of_thresholds([0.2, None, 0.9]),
    ],
    ids=["costs", "thresholds"],
)
def test_a_rule_is_read_back_as_written(rule):
    read = DecisionRule.from_dict(json.loads(json.dumps(rule.to_dict())), 3)
    assert (read.kind, read.source) == (rule.kind, rule.source)
    np.testing.assert_array_equal(read.matrix, rule.matrix)


GOOD = {"kind": "costs", "matrix": [[0, -1], [-2, 0]], "source": ""}
DAMAGED = {
    "another kind": {"kind": "code"},
    "no kind": {"kind": None},
    "a list for a kind": {"kind": ["costs"]},
    "a long source": {"source": "x" * 201},
    "no source": {"source": None},
    "a text for a matrix": {"matrix": "0"},
    "no rows": {"matrix": []},
    "a row too few": {"matrix": [[0, -1]]},
    "a number too few": {"matrix": [[0, -1], [0]]},
    "texts": {"matrix": [["0", "-1"], ["-2", "0"]]},
    "booleans": {"matrix": [[False, True], [True, False]]},
    "NaN": {"matrix": [[0, float("nan")], [-2, 0]]},
    "infinity": {"matrix": [[0, float("-inf")], [-2, 0]]},
    "too large": {"matrix": [[0, -1e9], [-2, 0]]},
    "an enormous integer": {"matrix": [[0, -(10**400)], [-2, 0]]},
    "costs below 0": {"matrix": [[0, 1], [-2, 0]]},
    "costs that decide nothing": {"matrix": [[0, 0], [0, 0]]},
    "thresholds beside the diagonal": {"kind": "thresholds", "matrix": [[2, 1], [0, 2]]},
    "a threshold above 1": {"kind": "thresholds", "matrix": [[0.5, 0], [0, 2]]},
    "a threshold of infinity": {"kind": "thresholds", "matrix": [[0, 0], [0, 2]]},
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_rule_is_refused(change):
    assert DecisionRule.from_dict(GOOD, 2).kind == "costs"
    with pytest.raises((ValueError, TypeError, OverflowError)):
        DecisionRule.from_dict({**GOOD, **change}, 2)


def test_costs_of_0_and_1_have_the_interval_of_the_accuracy():
    rng = np.random.default_rng(0)
    truth, predicted, groups = (rng.integers(0, k, 60) for k in (3, 3, 25))
    for by_group in (None, groups):
        cost = mean_cost(1 - np.eye(3), truth, predicted, by_group)
        is_correct = truth == predicted
        accuracy = (
            held_out_accuracy(is_correct) if by_group is None else leave_one_group_out_accuracy(is_correct, groups)
        )
        assert cost.value == pytest.approx(1 - accuracy.value)
        assert cost.interval == pytest.approx((1 - accuracy.interval[1], 1 - accuracy.interval[0]))
        assert (cost.count, cost.method) == (60, accuracy.method)


def test_the_mean_cost_by_hand():
    costs = np.array([[1.0, 5], [20, 2]])
    cost = mean_cost(costs, np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]))
    assert cost.value == pytest.approx((1 + 5 + 2 + 20) / 4)
    assert 1 <= cost.interval[0] < 7 < cost.interval[1] <= 20
    assert mean_cost(costs, np.zeros(5, int), np.zeros(5, int)).interval[1] > 1  # the dear mistake may come yet


@pytest.mark.parametrize("share", [0.05, 0.1, 0.4])
def test_the_interval_holds_the_true_cost_in_95_of_100_draws(share):
    rng = np.random.default_rng(1)
    costs = np.array([[0.0, 1], [12, 0]])
    held = 0
    for _ in range(1000):
        truth = (rng.random(150) < 0.3).astype(int)
        predicted = np.where(rng.random(150) < share, 1 - truth, truth)
        low, high = mean_cost(costs, truth, predicted).interval
        held += low <= share * (0.7 * 1 + 0.3 * 12) <= high
    assert held >= 940
