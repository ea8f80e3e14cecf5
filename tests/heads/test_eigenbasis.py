"""The eigenbasis: a rotation that loses nothing, against the singular value decomposition."""

import numpy as np
import pytest
from helpers.heads import gaussian_classes

from headstart.heads import eigenbasis
from headstart.heads.eigenbasis import Eigenbasis

shapes = pytest.mark.parametrize(("n", "d"), [(30, 8), (8, 30), (5, 5)])


def basis_and_vectors(n, d):
    x = np.random.default_rng(n).normal(size=(n, d)) + 3
    return Eigenbasis.of(x), x


@shapes
def test_projection_keeps_inner_products(n, d):
    basis, x = basis_and_vectors(n, d)
    centred = x - x.mean(axis=0)
    coordinates = basis.project(slice(None))
    np.testing.assert_allclose(coordinates @ coordinates.T, centred @ centred.T, atol=1e-9)
    np.testing.assert_allclose((coordinates**2).sum(axis=0), basis.eigenvalues, rtol=1e-9)
    np.testing.assert_allclose(basis.project(np.array([[2, 0]])), coordinates[[[2, 0]]], atol=1e-9)
    weights = np.random.default_rng(0).normal(size=(len(basis.eigenvalues), 2))
    np.testing.assert_allclose(centred @ basis.weights(weights), coordinates @ weights, atol=1e-8)


@shapes
def test_the_vectors_are_reconstructed_from_their_coordinates(n, d):
    basis, x = basis_and_vectors(n, d)
    eigenvectors = basis.weights(np.eye(len(basis.eigenvalues)))
    np.testing.assert_allclose(eigenvectors.T @ eigenvectors, np.eye(len(basis.eigenvalues)), atol=1e-9)
    np.testing.assert_allclose(basis.project(slice(None)) @ eigenvectors.T + basis.mean, x, atol=1e-9)


@shapes
def test_eigenvalues_are_squared_singular_values(n, d):
    basis, x = basis_and_vectors(n, d)
    singular_values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    expected = singular_values[singular_values > 1e-6][::-1] ** 2
    np.testing.assert_allclose(basis.eigenvalues, expected, rtol=1e-9)
    assert basis.mean_squared_length == pytest.approx(((x - x.mean(axis=0)) ** 2).sum() / n)


@shapes
def test_the_top_directions_give_the_best_approximation_of_low_rank(n, d):
    basis, x = basis_and_vectors(n, d)
    centred = x - x.mean(axis=0)
    left, singular_values, right = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * singular_values[:2] @ right[:2]
    top = basis.top(2)
    np.testing.assert_array_equal(top.eigenvalues, basis.eigenvalues[-2:])
    weights = np.random.default_rng(0).normal(size=(2, 3))
    np.testing.assert_allclose(top.project(slice(None)) @ top.weights(np.eye(2)).T, expected, atol=1e-9)
    np.testing.assert_allclose(expected @ top.weights(weights), top.project(slice(None)) @ weights, atol=1e-8)


@shapes
def test_affine_maps_of_coordinates_are_affine_maps_of_vectors(n, d):
    basis, x = basis_and_vectors(n, d)
    weights = np.random.default_rng(0).normal(size=(len(basis.eigenvalues), 2))
    vector_weights, bias = basis.affine(weights, np.array([1.0, -2.0]))
    expected = basis.project(slice(None)) @ weights + [1, -2]
    np.testing.assert_allclose(x @ vector_weights + bias, expected, atol=1e-8)


def test_class_means_are_means_of_coordinates():
    x, labels, _ = gaussian_classes()
    basis = Eigenbasis.of(x)
    means = basis.class_means(labels, 4)
    coordinates = basis.project(slice(None))
    np.testing.assert_allclose(means[:3], [coordinates[labels == c].mean(axis=0) for c in range(3)], atol=1e-9)
    np.testing.assert_array_equal(means[3], 0)  # a class without images


def test_a_basis_of_equal_vectors_has_coordinates_for_each():
    basis = Eigenbasis.of(np.ones((4, 3)))
    assert basis.project(slice(None)).shape[0] == 4


def test_no_rows_have_no_coordinates(monkeypatch):
    monkeypatch.setattr(eigenbasis, "MAX_COORDINATES", 0)  # as of thousands of vectors: computed when they are needed
    basis, x = basis_and_vectors(30, 8)
    assert basis.coordinates is None
    assert basis.project(np.zeros(0, np.int64)).shape == (0, 8)
    centred = x - x.mean(axis=0)
    np.testing.assert_allclose(basis.project(slice(None)), centred @ basis.eigenvectors, atol=1e-12)
    np.testing.assert_allclose(basis.project(np.array([[3, 1]]))[0], centred[[3, 1]] @ basis.eigenvectors, atol=1e-12)


@pytest.mark.parametrize("shape", [(90, 60), (60, 90)], ids=["tall", "wide"])
def test_the_directions_that_vary_most_can_be_kept_alone(monkeypatch, shape):
    """The scatter in them is exactly diagonal, and nearly all of what the best directions explain is kept."""
    monkeypatch.setattr(eigenbasis, "OVERSAMPLING", 5)
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape) * np.geomspace(3, 0.05, shape[1]) + 2
    basis, centred = Eigenbasis.of(x, directions=10), x - x.mean(axis=0)
    coordinates = basis.project(slice(None))
    assert coordinates.shape == (shape[0], 10)
    np.testing.assert_allclose(coordinates.T @ coordinates, np.diag(basis.eigenvalues), atol=1e-9)
    np.testing.assert_allclose(coordinates, centred @ basis.eigenvectors, atol=1e-9)
    np.testing.assert_allclose(basis.eigenvectors.T @ basis.eigenvectors, np.eye(10), atol=1e-9)
    best = np.sort(np.linalg.svd(centred, compute_uv=False) ** 2)[-10:]
    assert basis.eigenvalues.sum() > 0.99 * best.sum()
    assert basis.total == pytest.approx((centred**2).sum())
    assert basis.mean_squared_length == pytest.approx((centred**2).sum() / shape[0])
    assert not basis.is_complete
    assert Eigenbasis.of(x, directions=58).is_complete  # nearly all: then all are computed
    labels = np.arange(shape[0]) % 3
    means = [coordinates[labels == c].mean(axis=0) for c in range(3)]
    np.testing.assert_allclose(basis.class_means(labels, 3), means, atol=1e-9)
