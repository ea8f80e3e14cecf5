"""Candidates: all are recorded, and each is evaluated at its temperature."""

import numpy as np
import pytest
from helpers.heads import scenes, select
from scipy.special import log_softmax

from headstart.heads import candidates
from headstart.heads.candidates import Candidate, score_candidate, try_dropout, try_kinds, try_random_features
from headstart.heads.ridge import DROPOUT_RATES, PENALTIES
from headstart.heads.training_set import TrainingSet


def test_all_candidates_are_recorded():
    values, labels, groups = scenes(groups=10)
    tried = select(values, labels, groups).candidates
    kinds = {(c.taps, c.kind) for c in tried}
    assert {(("deep",), "ridge"), (("deep",), "lda"), (("shallow",), "centroid")} <= kinds
    assert sum(c.kind == "ridge" and c.taps == ("deep",) and "penalty" in c.settings for c in tried) >= len(PENALTIES)
    assert all(np.isfinite(c.log_loss) for c in tried)


def test_a_candidate_is_evaluated_on_images_at_its_temperature():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    scores = rng.normal(size=(30, 3)) + 2 * np.eye(3)[labels]
    training_set = TrainingSet.of({"t": np.zeros((30, 2))}, labels, np.arange(30), images=20)
    scored = score_candidate(training_set, None, ("t",), "ridge", {"penalty": 1.0}, scores)
    candidate, smoothing = scored.candidate, training_set.smoothing
    log_probabilities = log_softmax(scores[:20] / candidate.temperature, axis=1)
    smoothed = (1 - smoothing) * np.eye(3)[labels[:20]] + smoothing / 3
    np.testing.assert_allclose(scored.losses, -(smoothed * log_probabilities).sum(axis=1), atol=1e-12)
    np.testing.assert_array_equal(scored.scores, scores[:20])
    assert candidate.log_loss == pytest.approx(scored.losses.mean())
    assert candidate.accuracy == (scores[:20].argmax(axis=1) == labels[:20]).mean()
    assert not candidate.has_random_features


def test_trials_have_a_candidate_for_every_setting_and_keep_the_best():
    training_set = TrainingSet.of(*scenes(groups=12))
    trials = {
        ("ridge", len(PENALTIES)): try_kinds(training_set, ("deep",), "ridge", None),
        ("auto", 2 * len(PENALTIES) + 1): try_kinds(training_set, ("deep",), "auto", None),
        ("fixed dropout", 1): try_kinds(training_set, ("deep",), "auto", 0.4),
        ("dropout", len(DROPOUT_RATES)): try_dropout(training_set, ("deep",)),
        ("random features", len(PENALTIES)): try_random_features(training_set, ("deep",), 0),
    }
    for (name, count), trial in trials.items():
        assert len(trial.candidates) == count, name
        assert trial.best.candidate.log_loss == min(c.log_loss for c in trial.candidates), name
        assert trial.best.candidate in trial.candidates
        assert trial.best.losses.mean() == pytest.approx(trial.best.candidate.log_loss)
        assert all(c.has_random_features == (name == "random features") for c in trial.candidates)
    assert trials["fixed dropout", 1].candidates[0].settings == {"dropout": 0.4}


def test_settings_in_chunks_give_the_same_candidates(monkeypatch):
    training_set = TrainingSet.of(*scenes(groups=12))
    at_once = try_kinds(training_set, ("deep",), "auto", None)
    monkeypatch.setattr(candidates, "SCORES_AT_ONCE", 1)
    one_by_one = try_kinds(training_set, ("deep",), "auto", None)
    assert [c.settings for c in one_by_one.candidates] == [c.settings for c in at_once.candidates]
    losses = [[c.log_loss for c in trial.candidates] for trial in (one_by_one, at_once)]
    np.testing.assert_allclose(*losses, rtol=1e-9)
    np.testing.assert_allclose(one_by_one.best.scores, at_once.best.scores, atol=1e-9)


def test_the_json_form_of_a_candidate():
    candidate = Candidate(("a", "b"), "ridge", {"penalty": 0.1, "random_features": 1024}, 0.25, 0.9, 1.5)
    assert candidate.has_random_features
    assert candidate.to_dict() == {
        "taps": ["a", "b"],
        "kind": "ridge",
        "penalty": 0.1,
        "random_features": 1024,
        "log_loss": 0.25,
        "accuracy": 0.9,
    }
