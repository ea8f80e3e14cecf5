"""Ties, the Pareto set, and the row that is recommended."""

from dataclasses import replace

import numpy as np
import pytest

from headstart.compare.ranking import ComparedCut, rank
from headstart.heads.candidates import Candidate, ScoredCandidate
from headstart.stats.accuracy import Accuracy

GROUPS = np.arange(40)


def make_row(name, losses, images_per_second, size, cut=("features",), fit_cut=True):
    """A row with its candidate, whose losses are given."""
    losses = np.asarray(losses, float)
    accuracy = Accuracy(1, 1, (0, 1), "")
    row = ComparedCut(name, None, "", "", cut, {}, float(losses.mean()), (0, 0), accuracy, size, images_per_second)
    candidate = Candidate(cut, "ridge", "tap", {}, float(losses.mean()), 1.0, 1.0)
    return replace(row, fit_cut=fit_cut), ScoredCandidate(candidate, losses, np.zeros((len(losses), 2)), None)


def rank_rows(*pairs):
    return rank(sorted(pairs, key=lambda pair: pair[0].log_loss), GROUPS)


def test_ties_pareto_set_and_recommendation():
    noise = np.random.default_rng(0).normal(0, 0.02, (4, 40))
    rows, reason = rank_rows(
        make_row("slow", 0.200 + noise[0] - noise[0].mean(), 100, 9),
        make_row("fast", 0.203 + noise[1] - noise[1].mean(), 300, 8),
        make_row("bad", 0.400 + noise[2], 900, 1),
        make_row("worse", 0.500 + noise[3], 90, 9),
    )
    by_name = {row.backbone: row for row in rows}
    assert {name: row.tied for name, row in by_name.items()} == {
        "slow": True,
        "fast": True,
        "bad": False,
        "worse": False,
    }
    assert {name: row.pareto for name, row in by_name.items()} == {
        "slow": True,
        "fast": True,
        "bad": True,
        "worse": False,
    }
    assert by_name["fast"].recommended
    assert reason == "as good as the best (slow at features) within the noise, and 3.0 times as fast"
    assert by_name["bad"].behind[1] > 0
    assert by_name["fast"].behind[1] < 0 < by_name["fast"].behind[2]


def test_a_clear_winner_is_named_as_such():
    noise = np.random.default_rng(0).normal(0, 0.02, (2, 40))
    rows, reason = rank_rows(make_row("good", 0.1 + noise[0], 10, 9), make_row("bad", 0.4 + noise[1], 900, 1))
    assert rows[0].backbone == "good"
    assert rows[0].recommended
    assert reason == "the best, and no other is as good within the noise"


def test_a_tied_shallow_cut_is_not_recommended_over_the_cut_of_fit():
    noise = np.random.default_rng(0).normal(0, 0.02, (2, 40))
    noise -= noise.mean(axis=1, keepdims=True)
    rows, reason = rank_rows(
        make_row("a", 0.2 + noise[0], 900, 1, cut=("shallow",), fit_cut=False),
        make_row("a", 0.201 + noise[1], 100, 9),
    )
    assert [row.tied for row in rows] == [True, True]
    assert [row.recommended for row in rows] == [False, True]
    assert reason.startswith("as good as the best (a at shallow) within the noise, and ")


@pytest.mark.parametrize("missing", ["both", "first"])
def test_speeds_that_were_not_measured_are_named(missing):
    noise = np.random.default_rng(0).normal(0, 0.02, (2, 40))
    noise -= noise.mean(axis=1, keepdims=True)
    first = make_row("a", 0.2 + noise[0], None, 1)
    second = make_row("b", 0.201 + noise[1], None if missing == "both" else 50, 9)
    rows, reason = rank_rows(first, second)
    assert sum(row.recommended for row in rows) == 1
    assert "noise" in reason


def test_where_the_cut_of_fit_is_not_as_good_as_another_the_other_is_recommended():
    noise = np.random.default_rng(0).normal(0, 0.02, (2, 40))
    rows, reason = rank_rows(
        make_row("net", 0.1 + noise[0], 10, 9, cut=("deep",), fit_cut=False),
        make_row("net", 0.4 + noise[1], 10, 9, cut=("middle", "deep")),
    )
    assert [row.recommended for row in rows] == [True, False]
    assert reason == "the best, and no other is as good within the noise"


@pytest.mark.parametrize("speeds", [(100, 100, 100), (100, 103, 104), (None, None, None)])
def test_of_rows_about_as_fast_and_as_large_the_best_is_recommended(speeds):
    """Heads on one network: a cut that is some bytes smaller is no reason for a worse head."""
    noise = np.random.default_rng(0).normal(0, 0.02, (3, 40))
    noise -= noise.mean(axis=1, keepdims=True)
    rows, reason = rank_rows(
        make_row("ridge", 0.200 + noise[0], speeds[0], 3_667_075),
        make_row("lda", 0.201 + noise[1], speeds[1], 3_667_075),
        make_row("centroid", 0.202 + noise[2], speeds[2], 3_666_930),
    )
    assert [row.tied for row in rows] == [True, True, True]
    assert [row.recommended for row in rows] == [True, False, False]
    assert reason == "the best, and none that is as good within the noise is faster"


def test_of_two_that_are_fast_the_better_is_recommended():
    noise = np.random.default_rng(0).normal(0, 0.02, (3, 40))
    noise -= noise.mean(axis=1, keepdims=True)
    rows, reason = rank_rows(
        make_row("slow", 0.200 + noise[0], 100, 9),
        make_row("fast, ridge", 0.201 + noise[1], 300, 4),
        make_row("fast, centroid", 0.202 + noise[2], 301, 4),
    )
    assert [row.recommended for row in rows] == [False, True, False]
    assert reason == "as good as the best (slow at features) within the noise, and 3.0 times as fast"
