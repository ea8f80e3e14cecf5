"""A fitted head: scores and probabilities written out."""

import numpy as np
from scipy.special import softmax as scipy_softmax

from headstart.heads.head import Head, softmax


def test_softmax_agrees_with_scipy_and_does_not_overflow():
    scores = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32) * 100
    probabilities = softmax(scores)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities, scipy_softmax(scores.astype(np.float64), axis=1), atol=1e-12)
    np.testing.assert_array_equal(softmax(np.array([[1e5, 0.0], [-1e5, -1e5]])), [[1, 0], [0.5, 0.5]])


def test_scores_are_affine_and_probabilities_are_at_the_temperature():
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    bias = rng.normal(size=3).astype(np.float32)
    head = Head("ridge", ("deep",), weights, bias, 0.25)
    assert head.scores(x).dtype == np.float32
    np.testing.assert_allclose(head.scores(x), x @ weights + bias, rtol=1e-6)
    np.testing.assert_allclose(head.probabilities(x), scipy_softmax(4.0 * (x @ weights + bias), axis=1), rtol=1e-4)


def test_a_hidden_layer_comes_before_the_weights():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 4)).astype(np.float32)
    hidden_weights, hidden_bias = rng.normal(size=(4, 6)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    weights, bias = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    head = Head("ridge", ("deep",), weights, bias, 1.0, (hidden_weights, hidden_bias))
    hidden = np.maximum(x @ hidden_weights + hidden_bias, 0)
    np.testing.assert_allclose(head.scores(x), hidden @ weights + bias, rtol=1e-5, atol=1e-6)


def test_a_head_on_more_taps_gives_the_same_scores():
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    head = Head("ridge", ("b", "d"), weights, bias, 0.5, settings={"penalty": 1.0})
    wider = head.on_taps(("a", "b", "c", "d"), {"a": 2, "b": 1, "c": 3, "d": 4})
    values = {tap: rng.normal(size=(7, width)) for tap, width in (("a", 2), ("b", 1), ("c", 3), ("d", 4))}
    x = np.concatenate([values["b"], values["d"]], axis=1)
    np.testing.assert_allclose(wider.scores(np.concatenate(list(values.values()), axis=1)), head.scores(x), atol=1e-6)
    assert (wider.kind, wider.temperature, wider.settings) == ("ridge", 0.5, {"penalty": 1.0})
    assert head.on_taps(("b", "d"), {}) is head
