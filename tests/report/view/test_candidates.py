"""Heads compared in the selection."""

from headstart.report.view.candidates import best_candidates
from headstart.report.view.run_values import RunValues


def test_the_best_setting_of_each_cut_and_head_is_listed_and_the_selected_head_always():
    def entry(taps, penalty, log_loss, **settings):
        return {"taps": taps, "kind": "ridge", "penalty": penalty, **settings, "log_loss": log_loss, "accuracy": 0.9}

    run = {
        "cut": ["a"],
        "head": {"kind": "ridge", "penalty": 1.0, "temperature": 0.2},
        "candidates": [
            entry(["a"], 0.1, 0.2),
            entry(["a"], 1.0, 0.3),
            entry(["a", "b"], 10.0, 0.15),
            entry(["a", "b"], 100.0, 0.1),
            entry(["a"], 1.0, 0.4, random_features=1024),
            {"taps": "a", "log_loss": 0.0, "accuracy": 1.0},
            "damaged",
        ],
    }
    candidates, count = best_candidates(RunValues(run))
    assert count == 5
    assert [(c.taps, c.head, c.settings, c.is_selected) for c in candidates] == [
        ("a + b", "ridge", "penalty 100", False),
        ("a", "ridge", "penalty 1", True),
        ("a", "ridge on random features", "penalty 1, random features 1024", False),
    ]


def test_the_selected_head_of_a_fit_is_marked(fitted):
    candidates, count = best_candidates(RunValues(fitted.model.run))
    assert count == len(fitted.model.run["candidates"])
    assert [c.taps for c in candidates if c.is_selected] == [" + ".join(fitted.model.run["cut"])]
