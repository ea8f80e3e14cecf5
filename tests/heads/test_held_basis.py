"""Held-out scores after images were relabelled, added and removed, against heads fitted anew for every group."""

import numpy as np
import pytest
from helpers.heads import centred, gaussian_classes, overlapping_classes, ridge_by_hand, scores_of_refits, select
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.held_basis import HeldBasis
from headstart.heads.kinds import Targets
from headstart.heads.lda import solve_lda
from headstart.heads.live import LiveHead
from headstart.heads.statistics import Statistics
from headstart.heads.training_set import TrainingSet

SHAPES = {"more images than numbers": (60, 8), "more numbers than images": (30, 50)}


def changed(x, first, labels, groups, rows=None):
    """Scores of both kinds from a basis of the first images, then changed; and those of refits on what is left."""
    basis = Eigenbasis.of(x[:first])
    held = HeldBasis.of(basis).with_images(x[first:])
    present = np.flatnonzero(labels >= 0)
    targets = Targets(labels[present], 3, groups[present])
    rows = np.arange(len(present)) if rows is None else rows
    refit = (x[present], labels[present], groups[present])
    for penalty in (0.3, 20.0):
        yield (
            held.held_out("ridge", penalty, targets, present, rows),
            scores_of_refits(*refit, lambda x, y, p=penalty: ridge_by_hand(x, y, 3, p))[rows],
        )
        yield (
            held.held_out("lda", penalty, targets, present, rows),
            scores_of_refits(*refit, lambda x, y, p=penalty: solve_lda(Statistics.of(x, y, 3), p))[rows],
        )


def assert_same(scores, expected):
    """Equal to two millionths of the largest score; scores of lda are defined up to the mean of their row."""
    scores, expected = centred(scores), centred(expected)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-6 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@given(seed=st.integers(0, 10**6), added=st.integers(0, 8), removed=st.integers(0, 8), relabelled=st.integers(0, 8))
@settings(max_examples=10, deadline=None)
def test_scores_are_those_of_heads_fitted_from_scratch(shape, seed, added, removed, relabelled):
    n, d = shape
    x, labels, groups = gaussian_classes(seed, n, d)
    rng = np.random.default_rng(seed)
    labels[rng.choice(n, relabelled, replace=False)] = rng.integers(0, 3, relabelled)
    labels[rng.choice(n, removed, replace=False)] = -1
    for scores, expected in changed(x, n - added, labels, groups):
        assert_same(scores, expected)


def test_a_class_may_be_all_new_and_another_may_vanish():
    x, labels, groups = gaussian_classes(n=45, d=20, groups=15)
    labels = np.where(np.arange(45) < 40, labels % 2, 2)
    labels[labels == 0] = -1
    for scores, expected in changed(x, 40, labels, groups):
        assert_same(scores, expected)


def test_some_rows_alone_are_scored_as_among_all():
    x, labels, groups = gaussian_classes(n=50, d=10)
    labels[:5] = -1
    rows = np.flatnonzero(np.isin(groups[5:], (1, 4)))
    for scores, expected in changed(x, 44, labels, groups, rows):
        assert_same(scores, expected)


def test_groups_of_any_size_are_scored():
    x, labels, _ = gaussian_classes(n=320, d=4)
    groups = np.r_[np.zeros(290, int), np.arange(1, 31)]
    for scores, expected in changed(x, 310, labels, groups):
        assert_same(scores, expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_without_a_change_a_live_head_predicts_as_the_selection_did(classes):
    values, labels, groups = overlapping_classes(classes=classes)
    selected = select(values, labels, groups)
    training_set = TrainingSet.of(values, labels, groups)
    head = LiveHead.of(training_set, selected.candidates, selected.head.temperature)
    held_out = head.held_out(labels, groups)
    np.testing.assert_allclose(held_out.probabilities, selected.probabilities, atol=1e-6)
    assert held_out.classes.tolist() == list(range(classes))


def test_a_live_head_follows_changes_as_one_that_is_held_on_all_images():
    """Added and removed images by the identity, against the statistics of what is left, by the same candidates."""
    values, labels, groups = overlapping_classes(images=90)
    first = {tap: value[:80] for tap, value in values.items()}
    selected = select(first, labels[:80], groups[:80])
    head = LiveHead.of(TrainingSet.of(first, labels[:80], groups[:80]), selected.candidates, 1.0)
    head = head.with_images({tap: value[80:] for tap, value in values.items()})
    assert len(head) == 90
    labels = labels.copy()
    labels[[3, 70]] = -1
    labels[[5, 85]] = (labels[[5, 85]] + 1) % 3
    found = head.held_out(labels, groups)
    present = np.flatnonzero(labels >= 0)
    assert found.rows.tolist() == present.tolist()
    total = 0
    for part in head.parts:
        key = (part.candidate.taps, part.candidate.scaling)
        held = head.bases[key]
        x = np.concatenate([values[tap] for tap in key[0]], axis=1).astype(float) * held.scales
        solve = (
            (lambda x, y, p=part.penalty: ridge_by_hand(x, y, 3, p))
            if part.candidate.kind == "ridge"
            else (lambda x, y, p=part.penalty: solve_lda(Statistics.of(x, y, 3), p))
        )
        scores = scores_of_refits(x[present], labels[present], groups[present], solve)
        scores -= scores.mean(axis=1, keepdims=True)
        total = total + scores * part.candidate.weight / part.candidate.temperature
    expected = total.argsort(axis=1)
    assert (found.probabilities.argsort(axis=1) == expected).all()
    ratio = np.log(found.probabilities[:, :1] / found.probabilities[:, 1:2]) / (total[:, :1] - total[:, 1:2])
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)  # one temperature for all


def test_what_cannot_be_followed_has_no_live_head_or_prediction(monkeypatch):
    values, labels, groups = overlapping_classes()
    training_set = TrainingSet.of(values, labels, groups)
    centroid = select(values, labels, groups, kind="centroid")
    assert LiveHead.of(training_set, centroid.candidates, 1.0) is None
    head = LiveHead.of(training_set, select(values, labels, groups).candidates, 1.0)
    assert head.held_out(np.zeros_like(labels), groups) is None
    assert head.held_out(labels, np.zeros_like(groups)) is None
    monkeypatch.setattr("headstart.heads.live.MAX_CHANGES", 3)
    labels[:3] = -1
    assert head.held_out(labels, groups) is not None
    labels[3] = -1
    assert head.held_out(labels, groups) is None
