"""Vectors in blocks are the same as all at once."""

import numpy as np

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import LinearProblem, Targets
from headstart.heads.ridge import held_out_ridge
from headstart.heads.vectors import Vectors, one_hot


def test_vectors_in_blocks_are_the_vectors_at_once():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(300, 4)).astype(np.float16), rng.normal(size=(300, 3)).astype(np.float32)
    scales = rng.uniform(1, 2, 7)
    expected = np.concatenate([part.astype(float) for part in parts], axis=1) * scales
    vectors = Vectors(parts, scales, block_size=700)
    assert (len(vectors), vectors.width) == expected.shape
    assert len(list(vectors.blocks())) > 2
    np.testing.assert_allclose(np.concatenate([vectors.rows(block) for block in vectors.blocks()]), expected)
    np.testing.assert_allclose(vectors.rows(np.array([[3, 1], [2, 299]])), expected[[[3, 1], [2, 299]]])
    np.testing.assert_allclose(vectors.moments()[0], expected.mean(axis=0))
    np.testing.assert_allclose(vectors.moments()[1], (expected**2).mean(axis=0))
    np.testing.assert_allclose(vectors.products(expected), expected.T @ expected)
    mean = expected.mean(axis=0)
    np.testing.assert_allclose(vectors.scatter(mean), (expected - mean).T @ (expected - mean))
    labels = np.arange(300) % 3
    sums = [expected[labels == c].sum(axis=0) for c in range(3)]
    np.testing.assert_allclose(vectors.class_sums(labels, 4), [*sums, np.zeros(7)], atol=1e-9)
    targets = Targets(labels, 3, labels * 50 + np.arange(300) // 6)
    np.testing.assert_allclose(
        held_out_ridge(LinearProblem.of(Eigenbasis.of(vectors), targets), [0.4]),
        held_out_ridge(LinearProblem.of(Eigenbasis.of(expected), targets), [0.4]),
        atol=1e-8,
    )


def test_one_hot_targets():
    assert one_hot(np.array([2, 0]), 4).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
