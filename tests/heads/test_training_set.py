"""The training set: scales of the taps, and further views of images."""

import numpy as np
import pytest
from helpers.heads import rank, select

from headstart.heads import training_set as training_set_module
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import LinearProblem
from headstart.heads.ridge import RIDGE, solve_ridge
from headstart.heads.statistics import Statistics
from headstart.heads.training_set import TrainingSet, deepest_basis


@pytest.fixture
def two_taps():
    rng = np.random.default_rng(0)
    values = {"shallow": 9 * rng.normal(size=(50, 4)) + 1, "deep": rng.normal(size=(50, 6)) - 2}
    values["shallow"][:, 1] = 0
    return TrainingSet.of(values, np.arange(50) % 3, np.arange(50) // 5)


def test_a_training_set_counts_classes_and_images(two_taps):
    assert len(two_taps) == two_taps.images == 50
    assert two_taps.targets.classes == 3
    assert two_taps.smoothing == 1 / 11  # ten groups, and one that was not seen
    with_views = TrainingSet.of(two_taps.values, two_taps.targets.labels, two_taps.targets.groups, images=20)
    assert len(with_views) == 50
    np.testing.assert_array_equal(with_views.image_labels, np.arange(20) % 3)
    np.testing.assert_array_equal(with_views.image_groups, np.arange(20) // 5)


def test_taps_side_by_side_have_the_same_total_variance(two_taps):
    rows = two_taps.vectors(("shallow", "deep")).rows(slice(None))
    np.testing.assert_allclose(rows[:, :4].var(axis=0).sum(), 1)
    np.testing.assert_allclose(rows[:, 4:].var(axis=0).sum(), 1)
    shallow, deep = two_taps.values["shallow"], two_taps.values["deep"]
    np.testing.assert_allclose(rows[:, :4] * np.sqrt(shallow.var(axis=0).sum()), shallow)
    np.testing.assert_allclose(rows[:, 4:] * np.sqrt(deep.var(axis=0).sum()), deep)


def test_channels_have_almost_the_same_variance_when_each_is_scaled(two_taps):
    rows = two_taps.vectors(("shallow", "deep"), "channel").rows(slice(None))
    variances = rows.var(axis=0)
    np.testing.assert_allclose(variances[:4].sum(), 1)
    np.testing.assert_allclose(variances[[0, 2, 3]], 1 / 3, rtol=0.01)  # the channel that is always zero stays so
    assert variances[1] == 0
    np.testing.assert_allclose(variances[4:], 1 / 6, rtol=0.01)


def test_the_problem_of_many_images_has_the_scatter_of_its_vectors(monkeypatch):
    """For many images the scatter matrix is computed once, of all taps unscaled."""
    rng = np.random.default_rng(0)
    labels, groups = np.arange(90) % 3, np.arange(90) // 2
    values = {
        tap: (rng.normal(size=(90, d)) * rng.uniform(1, 9, d) + 5).astype(np.float16)
        for tap, d in (("a", 3), ("b", 4), ("c", 5), ("d", 6))
    }
    training_set = TrainingSet.of(values, labels, groups)
    monkeypatch.setattr(training_set_module, "MANY_IMAGES", 50)
    for taps in (("d",), ("c", "d"), ("b", "c", "d"), ("a", "d"), ("d", "b")):
        for scaling in ("tap", "channel"):
            problem = training_set.problem(taps, scaling)
            expected = LinearProblem.of(Eigenbasis.of(training_set.vectors(taps, scaling)), training_set.targets)
            np.testing.assert_allclose(problem.basis.eigenvalues, expected.basis.eigenvalues, rtol=1e-9)
            np.testing.assert_allclose(np.abs(problem.points), np.abs(expected.points), atol=1e-9)
            np.testing.assert_allclose(np.abs(problem.means), np.abs(expected.means), atol=1e-9)


def test_the_basis_that_was_computed_before_is_that_of_the_deepest_tap(two_taps):
    x, labels, groups = two_taps.values, two_taps.targets.labels, two_taps.targets.groups
    basis = deepest_basis(x)
    given = TrainingSet.of(x, labels, groups, deepest_basis=basis)
    deepest = tuple(x)[-1:]
    assert given.problem(deepest, "tap").basis is basis
    assert np.array_equal(basis.coordinates, two_taps.problem(deepest, "tap").basis.coordinates)
    for taps, scaling, directions in ((tuple(x), "tap", None), (deepest, "channel", None), (deepest, "tap", 1)):
        assert given.basis(taps, scaling, directions) is not basis
    solutions = [RIDGE.solve(some.problem(deepest, "tap"), {"penalty": 0.1}) for some in (given, two_taps)]
    for one, other in zip(*solutions, strict=True):
        assert np.array_equal(one, other)


def test_vectors_for_dropout_have_features_of_equal_second_moment(two_taps):
    rows = two_taps.vectors(("shallow", "deep"), "dropout").rows(slice(None))
    expected = np.ones(10)
    expected[1] = 0  # a feature that is always zero stays zero
    np.testing.assert_allclose((rows**2).sum(axis=0), expected)


def test_views_are_trained_on_but_not_evaluated():
    """With a copy of every vector as its view, the held-out probabilities are those of a refit without both."""
    rng = np.random.default_rng(5)
    labels, groups = np.tile([0, 1], 30), np.arange(60)
    x = rng.normal(size=(60, 8)) + 0.8 * labels[:, None]
    main = rank({"t": np.tile(x, (2, 1))}, np.tile(labels, 2), np.tile(groups, 2), kind="ridge", images=60).parts[0]
    deviations = x - x.mean(axis=0)
    scaled = deviations / (deviations.std(axis=0) if main.candidate.scaling == "channel" else 1)
    scaled /= np.sqrt(scaled.var(axis=0).sum())
    # In units of the mean squared length: half as much, since the refit has half as many vectors.
    penalty = float(main.candidate.settings["penalty"]) / 2
    for i in (0, 7, 59):
        weights, bias = solve_ridge(Statistics.of(np.delete(scaled, i, 0), np.delete(labels, i), 2), penalty)
        np.testing.assert_allclose(main.scores[[i]], scaled[[i]] @ weights + bias, atol=1e-3)


def test_views_of_the_wrong_class_lower_the_accuracy_of_the_images():
    rng = np.random.default_rng(5)
    labels, groups = np.tile([0, 1], 30), np.arange(60)
    x = rng.normal(size=(60, 8)) + 0.8 * labels[:, None]
    with_views = ({"t": np.concatenate([x, x])}, np.r_[labels, 1 - labels], np.tile(groups, 2))
    candidate = rank(*with_views, kind="ridge", images=60).average.candidate
    assert candidate.accuracy < rank({"t": x}, labels, groups, kind="ridge").average.candidate.accuracy
    accuracy = (select(*with_views, kind="ridge", images=60).probabilities.argmax(axis=1) == labels).mean()
    assert candidate.accuracy == pytest.approx(accuracy)


def test_an_image_is_left_out_with_its_views():
    """Noise would look predictable if views of an image stayed in training while the image is held out."""
    rng = np.random.default_rng(6)
    labels = np.tile([0, 1], 20)
    x = rng.normal(size=(40, 60))
    values = {"t": np.tile(x, (3, 1)) + 0.01 * rng.normal(size=(120, 60))}
    by_group = rank(values, np.tile(labels, 3), np.tile(np.arange(40), 3), kind="ridge", images=40)
    by_row = rank(values, np.tile(labels, 3), np.arange(120), kind="ridge", images=40)
    assert by_group.average.candidate.accuracy < 0.7
    assert by_row.average.candidate.accuracy > 0.9
