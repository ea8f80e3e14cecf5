"""Class weights against scikit-learn; optimizers with Keras's constants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.heads.optimizers import OPTIMIZERS, class_weights, make_optimizer


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_class_weights_are_the_balanced_ones_of_scikit_learn(labels):
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array(labels)
    present = np.unique(labels)
    weights = class_weights(labels, 6)
    assert weights.shape == (6,)
    expected = compute_class_weight("balanced", classes=present, y=labels)
    np.testing.assert_allclose(weights[present], expected)
    assert weights[labels].mean() == pytest.approx(1)
    missing = np.setdiff1d(np.arange(6), present)
    np.testing.assert_allclose(weights[missing], len(labels) / len(present))  # as if the class had one image


def test_classes_of_equal_size_have_weight_one():
    np.testing.assert_array_equal(class_weights(np.array([2, 0, 1, 0, 1, 2]), 3), 1)


@pytest.mark.zoo
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_of_each_optimizer_is_the_one_written_out(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    parameter = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = make_optimizer(torch, name, [parameter], 0.1, 0.5)
    gradient = torch.tensor([0.3, -4.0])
    parameter.grad = gradient.clone()
    optimizer.step()
    step = {
        "rmsprop": 0.1 * gradient / ((0.1 * gradient**2).sqrt() + 1e-7),
        "adam": 0.1 * gradient / (gradient.abs() + 1e-7),
        "adamw": 0.1 * gradient / (gradient.abs() + 1e-8) + 0.1 * 0.5 * torch.tensor([1.0, -2.0]),
        "sgd": 0.1 * gradient,
    }[name]
    torch.testing.assert_close(parameter.detach(), torch.tensor([1.0, -2.0]) - step)
