"""Heads of several labels that are followed: the selection itself, and refits where something changed."""

import numpy as np
import pytest

from headstart.heads.label_ridge import LabelTargets
from headstart.heads.label_selection import select_labels
from headstart.heads.live_labels import LiveLabels
from headstart.heads.training_set import TrainingSet


def data(seed, count=60, later=0, unknown=0.1):
    rng = np.random.default_rng(seed)
    total = count + later
    values = rng.random((total, 3)) < (0.5, 0.3, 0.6)
    centres = rng.normal(size=(3, 12))
    x = {
        "a": (values @ centres + rng.normal(scale=1.5, size=(total, 12))).astype(np.float32),
        "b": (values @ centres[::-1] + rng.normal(scale=1.0, size=(total, 12))).astype(np.float32),
    }
    known = rng.random((total, 3)) > unknown
    return x, values, known, np.arange(total) // 2


def training_set(x, groups, rows):
    return TrainingSet.of({tap: v[rows] for tap, v in x.items()}, np.zeros(len(rows), np.int64), groups[rows])


def test_without_a_change_it_is_the_selection():
    x, values, known, groups = data(0)
    rows = np.arange(60)
    targets = LabelTargets(values, known, groups)
    selected = select_labels(training_set(x, groups, rows), targets)
    assert sum(candidate.weights.any() for candidate in selected.candidates) > 1  # an average
    live = LiveLabels.of(training_set(x, groups, rows), selected.candidates)
    found = live.held_out(targets, rows, np.arange(3))
    np.testing.assert_allclose(found, selected.probabilities, atol=1e-8)
    assert np.array_equal(np.isnan(found), ~known)


@pytest.mark.parametrize("unknown", [0.0, 0.2])
def test_changed_labels_and_images_are_those_of_the_bases_made_anew(unknown):
    """Of one part in the scaling and with the penalties that are held, with images that came and went."""
    x, values, known, groups = data(1, later=10, unknown=unknown)
    first = training_set(x, groups, np.arange(60))
    before = LabelTargets(values[:60], known[:60], groups[:60])
    live = LiveLabels.of(first, select_labels(first, before, ("b",)).candidates)
    live = live.with_images({tap: v[60:] for tap, v in x.items()})
    present = np.r_[np.arange(4, 60), np.arange(60, 70)]
    values[5:9, 1] = ~values[5:9, 1]
    targets = LabelTargets(values[present], known[present], groups[present])
    found = live.held_out(targets, present, np.array([0, 1, -1]))
    penalties, _ = live.parts[0].of_labels(np.array([0, 1, -1]))
    assert np.log(penalties[2]) == pytest.approx(np.median(np.log(live.parts[0].penalties)))
    for label in range(3):
        np.testing.assert_allclose(
            found[:, label],
            refitted(live, targets, present, label),
            atol=1e-6,
            equal_nan=True,
        )


def refitted(live, targets, present, label):
    """Held-out probabilities of a label by least squares, solved once for each group that is left out."""
    from headstart.stats.platt import fit_platt, platt_targets, sigmoid

    own, is_known = targets.values[:, [label]], targets.known[:, [label]]
    smoothed = platt_targets(own, is_known, targets.groups)
    total = np.zeros((len(present), 1))
    for part in live.parts:
        basis = live.bases[part.taps, part.scaling]
        points, scores = basis.points[present], np.full((len(present), 1), np.nan)
        penalty, weight = (a[0] for a in part.of_labels(np.array([label if label < 2 else -1])))
        for group in np.unique(targets.groups):
            here = targets.groups == group
            kept = ~here & is_known[:, 0]
            mean, share = points[kept].mean(axis=0), own[kept, 0].mean()
            centred = points[kept] - mean
            gram = centred.T @ centred + penalty * np.eye(points.shape[1])
            solved = np.linalg.solve(gram, centred.T @ (own[kept, 0] - share))
            at = here & is_known[:, 0]
            scores[at, 0] = (points[at] - mean) @ solved + share
        if weight > 0:
            total += weight * fit_platt(scores, smoothed, is_known).logits(scores)
    return sigmoid(fit_platt(total, smoothed, is_known).logits(total))[:, 0]


def test_what_cannot_be_followed_is_none():
    x, values, known, groups = data(2)
    rows = np.arange(60)
    first = training_set(x, groups, rows)
    targets = LabelTargets(values, known, groups)
    live = LiveLabels.of(first, select_labels(first, targets).candidates)
    one_group = LabelTargets(values, known, np.zeros(60, np.int64))
    assert live.held_out(one_group, rows, np.arange(3)) is None
    many = np.tile(rows, 20)
    too_large = LabelTargets(values[many], known[many], np.where(np.arange(len(many)) < 3, 1, 0))
    assert live.held_out(too_large, np.arange(len(many)), np.arange(3)) is None
