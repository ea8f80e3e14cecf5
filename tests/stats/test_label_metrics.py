"""Metrics of several labels an image against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from headstart.stats.accuracy import leave_one_group_out_accuracy
from headstart.stats.label_metrics import average_precisions, multi_label_metrics


def sample(n=60, k=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((n, k)) < [0.5, 0.3, 0.2, 0.1][:k]
    truth[:2] = True
    probabilities = np.round(np.clip(0.4 * truth + 0.6 * rng.random((n, k)), 0, 1), 2)  # with ties
    return probabilities, probabilities >= 0.5, truth


def test_every_metric_is_that_of_scikit_learn():
    probabilities, decisions, truth = sample()
    known = np.ones_like(truth)
    found = multi_label_metrics(probabilities, decisions, truth, known, "abcd")
    for i, label in enumerate(found.per_label):
        y, p, d = truth[:, i], probabilities[:, i], decisions[:, i]
        assert label.name == "abcd"[i]
        assert label.support == y.sum() == label.groups
        assert label.precision.value == pytest.approx(sklearn_metrics.precision_score(y, d))
        assert label.recall.value == pytest.approx(sklearn_metrics.recall_score(y, d))
        assert label.f1.value == pytest.approx(sklearn_metrics.f1_score(y, d))
        assert label.average_precision.value == pytest.approx(sklearn_metrics.average_precision_score(y, p))
    mean = sklearn_metrics.average_precision_score(truth, probabilities, average="macro")
    assert found.mean_average_precision.value == pytest.approx(mean)
    assert found.micro_f1.value == pytest.approx(sklearn_metrics.f1_score(truth, decisions, average="micro"))
    assert found.macro_f1.value == pytest.approx(sklearn_metrics.f1_score(truth, decisions, average="macro"))
    assert found.exact_match.value == pytest.approx(sklearn_metrics.accuracy_score(truth, decisions))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_average_precision_with_unknown_cells_and_weights(seed, n):
    rng = np.random.default_rng(seed)
    probabilities, truth = rng.integers(0, 5, (n, 3)) / 4, rng.random((n, 3)) < 0.4
    known, weights = rng.random((n, 3)) < 0.7, rng.integers(0, 4, n).astype(float)
    found = average_precisions(probabilities, truth, known, weights)
    for i in range(3):
        at = known[:, i] & (weights > 0)
        if not truth[at, i].any():
            assert np.isnan(found[i])
            continue
        expected = sklearn_metrics.average_precision_score(
            truth[at, i], probabilities[at, i], sample_weight=weights[at]
        )
        assert found[i] == pytest.approx(expected)


def test_unknown_cells_count_neither_way():
    probabilities, decisions, truth = sample()
    known = np.random.default_rng(1).random(truth.shape) < 0.7
    found = multi_label_metrics(probabilities, decisions, truth, known, "abcd")
    flipped = multi_label_metrics(probabilities, decisions, truth ^ ~known, known, "abcd")
    assert found == flipped
    for i, label in enumerate(found.per_label):
        at = known[:, i]
        assert label.recall.value == pytest.approx(sklearn_metrics.recall_score(truth[at, i], decisions[at, i]))
        assert label.unknown == (~at).sum()
    whole = known.all(axis=1)
    assert found.exact_match.value == pytest.approx((truth == decisions)[whole].all(axis=1).mean())


def test_what_is_not_defined():
    truth = np.array([[True, False], [False, False]])
    decisions = np.array([[True, False], [False, False]])
    found = multi_label_metrics(decisions * 0.8, decisions, truth, np.ones_like(truth), ["a", "b"])
    assert found.per_label[1].recall.value is None
    assert str(found.per_label[1].f1) == "-"
    assert found.per_label[1].average_precision.to_dict() == {"value": None, "interval": None}
    assert found.mean_average_precision.value == 1  # of the labels that an image has


def test_intervals_are_those_of_accuracies_and_of_no_zero_width():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(30), 4)
    truth = np.ones((120, 1), bool)
    decisions = np.repeat(rng.random(30) < 0.7, 4)[:, None]
    found = multi_label_metrics(decisions * 0.9, decisions, truth, truth, ["a"], groups)
    expected = leave_one_group_out_accuracy(decisions[:, 0], groups)
    assert found.per_label[0].recall.value == pytest.approx(expected.value)
    np.testing.assert_allclose(found.per_label[0].recall.interval, expected.interval, atol=0.02)
    perfect = multi_label_metrics(truth * 0.9, truth, truth, truth, ["a"], groups)
    low, high = perfect.mean_average_precision.interval
    assert low == pytest.approx(30 / (30 + 1.959964**2))  # Wilson's for 30 of 30 groups
    assert high == 1


@pytest.mark.slow
def test_the_interval_of_mean_average_precision_holds_the_true_value():
    """60 samples of a population whose mAP is known to two digits."""
    rng = np.random.default_rng(3)

    def draw(groups):
        shift = np.repeat(rng.normal(size=(groups, 2)), 3, axis=0)
        truth = np.repeat(rng.random((groups, 2)) < 0.3, 3, axis=0)
        scores = truth * 1.2 + 0.7 * shift + 0.3 * rng.normal(size=truth.shape)
        return 1 / (1 + np.exp(-scores)), truth, np.repeat(np.arange(groups), 3)

    probabilities, truth, _ = draw(20_000)
    true_value = average_precisions(probabilities, truth, np.ones_like(truth)).mean()
    inside = 0
    for _ in range(60):
        probabilities, truth, groups = draw(80)
        found = multi_label_metrics(probabilities, probabilities > 0.5, truth, np.ones_like(truth), "ab", groups)
        low, high = found.mean_average_precision.interval
        inside += low <= true_value <= high
    assert inside >= 47
