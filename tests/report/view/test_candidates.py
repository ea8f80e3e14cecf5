"""Heads compared in the selection."""

import pytest

from headstart.report.view.candidates import best_candidates
from headstart.report.view.run_values import RunValues


def test_the_best_setting_of_each_cut_and_head_is_listed():
    def entry(taps, penalty, log_loss, **fields):
        return {"taps": taps, "kind": "ridge", "penalty": penalty, "log_loss": log_loss, "accuracy": 0.9, **fields}

    run = {
        "candidates": [
            entry(["a"], 0.1, 0.2),
            entry(["a"], 1.0, 0.3, weight=0.0),
            entry(["a", "b"], 10.0, 0.15, scaling="tap"),
            entry(["a", "b"], 100.0, 0.1, scaling="tap", weight=0.75),
            entry(["a"], 1.0, 0.4, scaling="channel", weight=0.25),
            entry(["a"], 1.0, 0.6, kind="lda", weight=float("nan")),
            {"taps": "a", "log_loss": 0.0, "accuracy": 1.0},
            "damaged",
        ],
    }
    candidates, count = best_candidates(RunValues(run))
    assert count == 6
    assert [(c.taps, c.head, c.settings, c.weight) for c in candidates] == [
        ("a + b", "ridge", "penalty 100", 0.75),
        ("a", "ridge", "penalty 0.1", 0.0),
        ("a", "ridge, scaled by channel", "penalty 1", 0.25),
        ("a", "lda", "penalty 1", 0.0),
    ]


def test_the_weights_of_a_fit_add_up_to_one(fitted):
    candidates, count = best_candidates(RunValues(fitted.model.run))
    assert count == len(fitted.model.run["candidates"])
    assert sum(c.weight for c in candidates) == pytest.approx(1)
    widest = max((c.taps for c in candidates if c.weight > 0), key=len)
    assert widest == " + ".join(fitted.model.run["cut"])
