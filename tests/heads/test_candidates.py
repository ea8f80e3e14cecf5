"""Candidates: all are recorded, and each is evaluated at its temperature."""

import numpy as np
import pytest
from helpers.heads import overlapping_classes, scenes, select
from scipy.special import log_softmax

from headstart.heads import candidates
from headstart.heads.candidates import KINDS, Candidate, score_all_images, score_candidate, try_settings
from headstart.heads.ridge import PENALTIES
from headstart.heads.training_set import TrainingSet


def test_all_candidates_are_recorded():
    tried = select(*overlapping_classes()).candidates
    expected = {
        (taps, kind, scaling)
        for taps in (("deep",), ("shallow", "deep"))
        for kind in ("ridge", "lda")
        for scaling in ("tap", "channel")
    }
    assert {(c.taps, c.kind, c.scaling) for c in tried} == expected
    assert len(tried) == len(expected) * len(PENALTIES)
    assert all(np.isfinite(c.log_loss) for c in tried)
    assert sum(c.weight for c in tried) == pytest.approx(1)


def test_between_two_classes_ridge_stands_for_lda():
    tried = select(*overlapping_classes(classes=2)).candidates
    assert {c.kind for c in tried} == {"ridge"}


def test_a_candidate_is_evaluated_on_images_at_its_temperature():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    scores = rng.normal(size=(30, 3)) + 2 * np.eye(3)[labels]
    training_set = TrainingSet.of({"t": np.zeros((30, 2))}, labels, np.arange(30), images=20)
    scored = score_candidate(training_set, Candidate(("t",), "ridge", "tap", {"penalty": 1.0}), scores[:20])
    candidate, smoothing = scored.candidate, training_set.smoothing
    log_probabilities = log_softmax(scores[:20] / candidate.temperature, axis=1)
    smoothed = (1 - smoothing) * np.eye(3)[labels[:20]] + smoothing / 3
    np.testing.assert_allclose(scored.losses, -(smoothed * log_probabilities).sum(axis=1), atol=1e-12)
    np.testing.assert_array_equal(scored.scores, scores[:20])
    assert candidate.log_loss == pytest.approx(scored.losses.mean())
    assert candidate.accuracy == (scores[:20].argmax(axis=1) == labels[:20]).mean()
    assert (candidate.taps, candidate.kind, candidate.settings) == (("t",), "ridge", {"penalty": 1.0})
    some = score_candidate(training_set, candidate, scores[[3, 7]], np.array([3, 7]), None, candidate.temperature)
    assert some.candidate.accuracy == (scores[[3, 7]].argmax(axis=1) == labels[[3, 7]]).mean()


@pytest.mark.parametrize(("kind", "count"), [("ridge", len(PENALTIES)), ("lda", len(PENALTIES)), ("centroid", 1)])
def test_trials_have_a_candidate_for_every_setting_and_keep_the_best(kind, count):
    training_set = TrainingSet.of(*scenes(groups=12))
    problem = training_set.problem(("deep",), "channel")
    trial = try_settings(training_set, ("deep",), "channel", problem, KINDS[kind])
    assert len(trial.candidates) == count
    assert trial.best.candidate.log_loss == min(c.log_loss for c in trial.candidates)
    assert trial.best.candidate in trial.candidates
    assert trial.best.losses.mean() == pytest.approx(trial.best.candidate.log_loss)
    for i, candidate in enumerate(trial.candidates):  # also where the search for the temperature begins at another
        scores = KINDS[kind].held_out(problem, [candidate.settings])[0]
        alone = score_candidate(training_set, Candidate(("deep",), kind, "channel", candidate.settings), scores)
        assert alone.candidate.log_loss == pytest.approx(candidate.log_loss, rel=1e-9), i
        assert alone.candidate.temperature == pytest.approx(candidate.temperature, rel=1e-5)


def test_the_scores_of_all_images_are_those_of_the_closed_form_at_once(monkeypatch):
    monkeypatch.setattr(candidates, "ROWS_AT_ONCE", 7)
    values, labels, groups = scenes(groups=12)
    training_set = TrainingSet.of(values, labels, groups, images=40)  # the last eight rows are views
    rows = np.flatnonzero(groups < 5)
    some = try_settings(training_set, ("deep",), "tap", training_set.problem(("deep",), "tap", rows), KINDS["ridge"])
    assert len(some.best.scores) == len(rows)
    whole = score_all_images(training_set, some.best)
    problem = training_set.problem(("deep",), "tap")
    expected = KINDS["ridge"].held_out(problem, [some.best.candidate.settings])[0][:40]
    np.testing.assert_allclose(whole.scores, expected, atol=1e-9)
    assert whole.candidate.accuracy == (expected.argmax(axis=1) == labels[:40]).mean()
    assert score_all_images(training_set, whole) is whole


def test_settings_in_chunks_give_the_same_candidates(monkeypatch):
    training_set = TrainingSet.of(*scenes(groups=12))
    problem = training_set.problem(("deep",), "tap")
    at_once = try_settings(training_set, ("deep",), "tap", problem, KINDS["ridge"])
    monkeypatch.setattr(candidates, "SCORES_AT_ONCE", 1)
    one_by_one = try_settings(training_set, ("deep",), "tap", problem, KINDS["ridge"])
    assert [c.settings for c in one_by_one.candidates] == [c.settings for c in at_once.candidates]
    losses = [[c.log_loss for c in trial.candidates] for trial in (one_by_one, at_once)]
    np.testing.assert_allclose(*losses, rtol=1e-9)
    np.testing.assert_allclose(one_by_one.best.scores, at_once.best.scores, atol=1e-9)


def test_the_json_form_of_a_candidate():
    candidate = Candidate(("a", "b"), "ridge", "channel", {"penalty": 0.1}, 0.25, 0.9, 1.5, 0.4)
    assert candidate.to_dict() == {
        "taps": ["a", "b"],
        "kind": "ridge",
        "scaling": "channel",
        "penalty": 0.1,
        "log_loss": 0.25,
        "accuracy": 0.9,
        "weight": 0.4,
    }
