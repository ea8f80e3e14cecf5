"""A fitted head: scores and probabilities written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax as scipy_softmax

from headstart.heads.head import Head, softmax, weigh


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


def posterior(x, means, precision, priors):
    """Bayes' rule, written out, for Gaussian classes of one covariance."""
    log_densities = np.stack([-0.5 * np.einsum("nd,de,ne->n", x - m, precision, x - m) for m in means], axis=1)
    densities = np.exp(log_densities - log_densities.max(axis=1, keepdims=True)) * priors
    return densities / densities.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.2, 7.0])
def test_a_weighted_head_is_that_of_other_priors_by_bayes_rule(temperature):
    rng = np.random.default_rng(0)
    means, precision = rng.normal(size=(4, 3)), np.linalg.inv(np.cov(rng.normal(size=(3, 50))))
    priors, other = rng.dirichlet(np.ones(4)), np.array([0.25, 0.01, 0.7, 0.04])
    x = rng.normal(size=(200, 3)).astype(np.float32)
    # Linear discriminant analysis with the true densities (Hastie et al. 2009, equation 4.10).
    weights = precision @ means.T * temperature
    bias = (np.log(priors) - 0.5 * np.einsum("kd,de,ke->k", means, precision, means)) * temperature
    head = Head("lda", ("deep",), weights.astype(np.float32), bias.astype(np.float32), temperature)
    np.testing.assert_allclose(head.probabilities(x), posterior(x, means, precision, priors), atol=1e-5)
    weighted = head.weighted(other / priors)
    expected = posterior(x, means, precision, other)
    np.testing.assert_allclose(weighted.probabilities(x), expected, atol=1e-5)
    np.testing.assert_allclose(weigh(posterior(x, means, precision, priors), other / priors), expected, rtol=1e-9)
    np.testing.assert_allclose(weighted.weighted(priors / other).bias, head.bias, rtol=1e-5, atol=1e-5)


@given(arrays(np.float64, (7, 4), elements=st.floats(-20, 20)), arrays(np.float64, 4, elements=st.floats(1e-6, 1e6)))
def test_weighing_scores_and_weighing_probabilities_agree(scores, weights):
    weighted = weigh(softmax(scores), weights)
    np.testing.assert_allclose(weighted, softmax(scores + np.log(weights)), rtol=1e-9)
    np.testing.assert_allclose(weighted.sum(axis=1), 1)
    np.testing.assert_array_equal(weigh(softmax(scores), np.ones(4)), softmax(scores) / softmax(scores).sum(1)[:, None])
