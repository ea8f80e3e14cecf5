"""The learning rate by step."""

import numpy as np

from headstart.finetune.schedule import learning_rate_factor


def test_the_learning_rate_rises_linearly_and_falls_to_zero():
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert np.argmax(factors) in (9, 10)
    assert max(factors) == 1
    assert factors[0] == 0.1
    assert factors[-1] < 1e-3
    assert all(np.diff(factors[10:]) < 0)
