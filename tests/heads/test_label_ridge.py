"""Ridge on several labels against refits without the group and without the cells that are not known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.heads import label_ridge
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.label_ridge import LabelRidge, LabelTargets


def make(n=40, d=6, k=3, groups=9, unknown=0.2, seed=0):
    """Return vectors, targets of which the first label is known of all images, and the groups."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.linspace(0.5, 2, d) + 1
    values = (x[:, :1] + rng.normal(size=(n, k))) > 1
    known = rng.random((n, k)) >= unknown
    known[:, 0] = True
    return x, LabelTargets(values, known, rng.integers(0, groups, n))


def refit(x, y, penalty):
    """Least squares with an intercept that is not penalised, written out."""
    mean, share = x.mean(axis=0), y.mean()
    centred = x - mean
    weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T @ (y - share))
    return weights, share - mean @ weights


def refitted_scores(x, targets, penalty):
    scores = np.full(targets.values.shape, np.nan)
    for group in np.unique(targets.groups):
        inside = targets.groups == group
        for label in range(scores.shape[1]):
            rows = ~inside & targets.known[:, label]
            if not rows.any():
                continue
            weights, bias = refit(x[rows], targets.values[rows, label].astype(float), penalty)
            at = inside & targets.known[:, label]
            scores[at, label] = x[at] @ weights + bias
    return scores


@pytest.mark.parametrize("shape", [(40, 6), (20, 50)], ids=["more images", "more channels"])
@pytest.mark.parametrize("unknown", [0.0, 0.2, 0.5])
def test_held_out_scores_and_solutions_are_those_of_refits(shape, unknown):
    x, targets = make(*shape, unknown=unknown)
    ridge = LabelRidge.of(Eigenbasis.of(x), targets)
    values = [0.01, 0.3, 2.0]
    scores = ridge.held_out(values)
    for found, value in zip(scores, values, strict=True):
        expected = refitted_scores(x, targets, ridge.penalty(value))
        assert np.array_equal(np.isnan(found), ~targets.known)
        np.testing.assert_allclose(found[targets.known], expected[targets.known], atol=1e-9)
    weights, bias = ridge.solve(values)
    for label, value in enumerate(values):
        rows = targets.known[:, label]
        expected = refit(x[rows], targets.values[rows, label].astype(float), ridge.penalty(value))
        np.testing.assert_allclose(weights[:, label], expected[0], atol=1e-9)
        np.testing.assert_allclose(bias[label], expected[1], atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 30), st.integers(1, 12), st.integers(1, 4), st.integers(2, 10))
def test_any_groups_and_unknown_cells_against_refits(seed, n, d, k, groups):
    x, targets = make(n, d, k, groups, unknown=0.3, seed=seed)
    ridge = LabelRidge.of(Eigenbasis.of(x), targets)
    found, expected = ridge.held_out([0.2])[0], refitted_scores(x, targets, ridge.penalty(0.2))
    has_others = ~np.isnan(expected)
    np.testing.assert_allclose(found[has_others], expected[has_others], atol=1e-8)


def test_large_groups_are_refitted(monkeypatch):
    x, targets = make(60, 4, groups=3)
    basis = Eigenbasis.of(x)
    expected = LabelRidge.of(basis, targets).held_out([0.1, 1.0])
    monkeypatch.setattr(label_ridge, "LARGE_GROUP", 5)
    calls = []
    refit_group = LabelRidge._refit
    monkeypatch.setattr(LabelRidge, "_refit", lambda *args: (calls.append(1), refit_group(*args)))
    np.testing.assert_allclose(LabelRidge.of(basis, targets).held_out([0.1, 1.0]), expected, atol=1e-9)
    assert calls


def test_batches_of_groups_and_rows_of_some_groups(monkeypatch):
    x, targets = make(60, 5, groups=20)
    ridge = LabelRidge.of(Eigenbasis.of(x), targets)
    expected = ridge.held_out([0.1, 1.0])
    rows = np.flatnonzero(targets.groups % 3 == 0)
    np.testing.assert_array_equal(ridge.held_out([0.1, 1.0], rows), expected[:, rows])
    monkeypatch.setattr(label_ridge, "CHUNK_SIZE", 1)
    np.testing.assert_allclose(ridge.held_out([0.1, 1.0]), expected, atol=1e-12)


def test_a_label_of_each_image_is_ridge_on_one_hot_targets():
    from headstart.heads.kinds import LinearProblem, Targets
    from headstart.heads.ridge import held_out_ridge

    x, targets = make(unknown=0.0)
    labels = np.arange(len(x)) % 3
    basis = Eigenbasis.of(x)
    one_hot = LabelTargets(np.eye(3, dtype=bool)[labels], np.ones((len(x), 3), bool), targets.groups)
    ridge = LabelRidge.of(basis, one_hot)
    expected = held_out_ridge(LinearProblem.of(basis, Targets(labels, 3, targets.groups)), [ridge.penalty(0.3)])
    np.testing.assert_allclose(ridge.held_out([0.3]), expected, atol=1e-10)


def test_too_many_unknown_cells_are_refused():
    _, targets = make(unknown=0.7)
    with pytest.raises(DataError, match=r"Of \d+ of 40 training images it is not known whether 'b' holds; at most 50%"):
        targets.check(["a", "b", "c"])
    make(unknown=0.2)[1].check(["a", "b", "c"])
