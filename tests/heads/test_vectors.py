"""Vectors in blocks are the same as all at once."""

import numpy as np
import pytest

from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import Targets
from headstart.heads.ridge import held_out_ridge
from headstart.heads.vectors import Vectors, one_hot


@pytest.mark.parametrize("has_random_features", [False, True])
def test_vectors_in_blocks_are_the_vectors_at_once(has_random_features):
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(300, 4)).astype(np.float16), rng.normal(size=(300, 3)).astype(np.float32)
    scales = rng.uniform(1, 2, 7)
    random_features = rng.normal(size=(7, 5)), rng.normal(size=5)
    scaled = np.concatenate([part.astype(float) for part in parts], axis=1) * scales
    if has_random_features:
        vectors = Vectors(parts, scales, random_features, block_size=700)
        expected = np.maximum(scaled @ random_features[0] + random_features[1], 0)
    else:
        vectors = Vectors(parts, scales, block_size=700)
        expected = scaled
    assert (len(vectors), vectors.width) == expected.shape
    assert len(list(vectors.blocks())) > 2
    np.testing.assert_allclose(np.concatenate([vectors.rows(block) for block in vectors.blocks()]), expected)
    np.testing.assert_allclose(vectors.rows(np.array([[3, 1], [2, 299]])), expected[[[3, 1], [2, 299]]])
    np.testing.assert_allclose(vectors.moments()[0], expected.mean(axis=0))
    np.testing.assert_allclose(vectors.moments()[1], (expected**2).mean(axis=0))
    np.testing.assert_allclose(vectors.products(scaled), expected.T @ scaled)
    labels = np.arange(300) % 3
    targets = Targets(labels, 3, labels * 50 + np.arange(300) // 6)
    np.testing.assert_allclose(
        held_out_ridge(Eigenbasis.of(vectors), targets, [0.4]),
        held_out_ridge(Eigenbasis.of(expected), targets, [0.4]),
        atol=1e-8,
    )


def test_one_hot_targets():
    assert one_hot(np.array([2, 0]), 4).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
