"""Random ReLU features: repeatable, and active on part of the images."""

import numpy as np

from headstart.heads.random_features import draw_random_features
from headstart.heads.vectors import Vectors


def test_random_features_are_seeded_and_nonlinear_within_the_data():
    x = np.random.default_rng(0).normal(size=(50, 6)) + 4
    weights, bias = draw_random_features(Vectors.of(x), 32, seed=1)
    weights_again, bias_again = draw_random_features(Vectors.of(x), 32, seed=1)
    np.testing.assert_array_equal(weights, weights_again)
    np.testing.assert_array_equal(bias, bias_again)
    share_active = (x @ weights + bias > 0).mean(axis=0)
    assert ((share_active > 0.02) & (share_active < 0.98)).mean() > 0.8  # most units are active on part of the images


def test_another_seed_draws_other_features():
    x = np.random.default_rng(0).normal(size=(50, 6))
    first, second = (draw_random_features(Vectors.of(x), 32, seed) for seed in (1, 2))
    assert (first[0] != second[0]).all()
    assert (first[1] != second[1]).all()
