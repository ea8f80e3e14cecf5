"""The head for several labels an image: its penalties, average, calibration and held-out probabilities."""

import numpy as np
import pytest

from headstart.errors import DataError, OptionError
from headstart.heads import label_selection
from headstart.heads.label_ridge import LabelRidge, LabelTargets
from headstart.heads.label_selection import select_labels
from headstart.heads.ridge import PENALTIES
from headstart.heads.training_set import TrainingSet
from headstart.stats.label_metrics import average_precisions
from headstart.stats.platt import fit_platt, platt_targets, sigmoid


def make(n=160, seed=0, unknown=0.0, noise=1.0):
    """Two taps: the deep one tells the first two labels, the shallow one the third; groups of two images."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.random((n // 2, 3)) < [0.4, 0.3, 0.4], 2, axis=0)
    deep = truth[:, :2] @ rng.normal(size=(2, 20)) * 2 + noise * rng.normal(size=(n, 20))
    shallow = truth[:, 2:] * 2.0 + 0.5 * rng.normal(size=(n, 10))
    known = rng.random(truth.shape) >= unknown
    groups = np.repeat(np.arange(n // 2), 2)
    values = {"shallow": shallow, "deep": deep}
    return TrainingSet.of(values, np.zeros(n, np.int64), groups), LabelTargets(truth, known, groups)


def test_a_label_that_the_deepest_tap_does_not_tell_gets_the_other_one():
    training_set, targets = make()
    selected = select_labels(training_set, targets)
    assert selected.head.taps == ("shallow", "deep")
    found = average_precisions(selected.probabilities, targets.values, targets.known)
    assert (found > [0.9, 0.9, 0.95]).all()
    alone = select_labels(training_set, targets, ("deep",))
    assert average_precisions(alone.probabilities, targets.values, targets.known)[2] < 0.6
    weights = np.sum([c.weights for c in selected.candidates], axis=0)
    np.testing.assert_allclose(weights, 1)
    only_deep = sum(c.weights for c in selected.candidates if c.taps == ("deep",))
    assert only_deep[2] < 0.01


def test_the_head_is_the_average_of_the_calibrated_parts():
    training_set, targets = make(unknown=0.1)
    selected = select_labels(training_set, targets)
    logits, held_out = 0.0, 0.0
    for candidate in selected.candidates:
        ridge = LabelRidge.of(training_set.basis(candidate.taps, candidate.scaling), targets)
        scores = np.stack([ridge.held_out([p])[0][:, c] for c, p in enumerate(candidate.penalties)], axis=1)
        smoothed = platt_targets(targets.values, targets.known, targets.groups)
        platt = fit_platt(scores, smoothed, targets.known)
        weights, bias = ridge.solve(candidate.penalties)
        x = ridge.basis.vectors.rows(slice(None))
        logits = logits + candidate.weights * platt.logits(x @ weights + bias)
        held_out = held_out + candidate.weights * platt.logits(scores)
    platt = fit_platt(held_out, smoothed, targets.known)
    x = training_set.matrix(selected.head.taps)
    np.testing.assert_allclose(selected.head.probabilities(x), sigmoid(platt.logits(logits)), atol=1e-4)
    known = targets.known
    np.testing.assert_allclose(selected.probabilities[known], sigmoid(platt.logits(held_out))[known], atol=1e-6)
    assert np.isnan(selected.probabilities[~known]).all()


def test_each_label_has_the_penalty_with_the_least_loss():
    training_set, targets = make(seed=3, noise=3.0)
    selected = select_labels(training_set, targets, ("deep",))
    smoothed = platt_targets(targets.values, targets.known, targets.groups)
    for candidate in selected.candidates:
        ridge = LabelRidge.of(training_set.basis(("deep",), candidate.scaling), targets)
        losses = []
        for penalty in PENALTIES:
            scores = ridge.held_out([penalty])[0]
            p = sigmoid(fit_platt(scores, smoothed, targets.known).logits(scores))
            losses.append(-(smoothed * np.log(p) + (1 - smoothed) * np.log(1 - p)).mean(axis=0))
        np.testing.assert_array_equal(candidate.penalties, np.array(PENALTIES)[np.argmin(losses, axis=0)])
        np.testing.assert_allclose(candidate.losses, np.min(losses, axis=0), atol=1e-9)


def test_the_cells_of_one_label_change_no_other():
    training_set, targets = make(unknown=0.1)
    before = select_labels(training_set, targets, ("deep",))
    values = targets.values.copy()
    values[:, 0] = ~values[:, 0]
    after = select_labels(training_set, LabelTargets(values, targets.known, targets.groups), ("deep",))
    np.testing.assert_allclose(before.probabilities[:, 1:], after.probabilities[:, 1:], atol=1e-12)
    np.testing.assert_allclose(before.probabilities[:, 0], 1 - after.probabilities[:, 0], atol=0.05)


def test_labels_of_noise_are_near_their_frequency():
    """Held-out scores of a label that nothing tells run against the truth; turned round they would seem to tell it."""
    rng = np.random.default_rng(0)
    groups = np.arange(60)
    training_set = TrainingSet.of({"t": rng.normal(size=(60, 80))}, np.zeros(60, np.int64), groups)
    values = rng.random((60, 8)) < 0.2
    values[0] = True
    selected = select_labels(training_set, LabelTargets(values, np.ones_like(values), groups))
    assert np.abs(selected.probabilities.mean(axis=0) - values.mean(axis=0)).max() < 0.05
    assert average_precisions(selected.probabilities, values, np.ones_like(values)).mean() < 0.4


def test_many_images_are_compared_in_few_directions_and_fitted_in_all(monkeypatch):
    training_set, targets = make(400, unknown=0.05)
    expected = select_labels(training_set, targets)
    for name, value in (("MANY_IMAGES", 300), ("FEW_EVALUATED", 100), ("MAX_EVALUATED", 200), ("DIRECTIONS", 8)):
        monkeypatch.setattr(label_selection, name, value)
    monkeypatch.setattr(label_selection, "ROWS_AT_ONCE", 64)
    found = select_labels(training_set, targets, workers=2)
    assert found.probabilities.shape == expected.probabilities.shape
    assert np.array_equal(np.isnan(found.probabilities), np.isnan(expected.probabilities))
    known = targets.known
    assert np.abs(found.probabilities - expected.probabilities)[known].mean() < 0.03
    assert (average_precisions(found.probabilities, targets.values, known) > 0.9).all()


def test_what_cannot_be_selected():
    training_set, targets = make(20)
    with pytest.raises(OptionError, match="Unknown cut 'top'; this backbone has shallow, deep"):
        select_labels(training_set, targets, ("top",))
    one = LabelTargets(targets.values, targets.known, np.zeros(20, np.int64))
    with pytest.raises(DataError, match="in one group"):
        select_labels(training_set, one)
