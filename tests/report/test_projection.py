"""Projections of images to two dimensions against full decompositions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headstart.report.projection import (
    principal_components,
    project_features,
    project_predictions,
    to_map_coordinates,
)


def test_principal_components_are_those_of_a_full_decomposition():
    vectors = np.random.default_rng(0).normal(size=(300, 40)) * np.linspace(5, 0.5, 40)
    points = principal_components(vectors)
    centred = vectors - vectors.mean(axis=0)
    left, singular_values, _ = np.linalg.svd(centred, full_matrices=False)
    for axis in range(2):
        exact = left[:, axis] * singular_values[axis]
        assert abs(np.corrcoef(points[:, axis], exact)[0, 1]) > 0.999
        assert points[np.abs(points[:, axis]).argmax(), axis] > 0
    np.testing.assert_array_equal(points, principal_components(vectors))


def test_predictions_of_two_classes_have_their_log_odds_as_first_axis():
    rng = np.random.default_rng(0)
    log_odds = rng.normal(size=200) * 3
    probabilities = np.stack([1 / (1 + np.exp(log_odds)), 1 / (1 + np.exp(-log_odds))], axis=1)
    vectors = rng.normal(size=(200, 10))
    vectors[:, 0] += log_odds
    points = project_predictions(probabilities, vectors)
    np.testing.assert_allclose(points[:, 0], log_odds, atol=1e-9)
    assert abs(np.corrcoef(points.T)[0, 1]) < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (5, 3), (4, 1280)])
def test_few_images_are_projected(shape):
    points = project_features(np.random.default_rng(0).normal(size=shape))
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()


@settings(deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(0, 30), st.just(2)), elements=st.floats(-1e9, 1e9)))
def test_map_coordinates_are_in_range_and_in_order(points):
    x, y = to_map_coordinates(points)
    assert len(x) == len(y) == len(points)
    assert all(0 <= v <= 1000 for v in (*x, *y))
    order = np.argsort(points[:, 0], kind="stable")
    assert (np.diff(np.array(x)[order]) >= 0).all()
