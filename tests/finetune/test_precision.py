"""Mixed precision in training. Needs PyTorch."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.tiny_network import (
    COUNT,
    INSTALLED,
    PLAIN,
    copy_tensors,
    fake_accelerator,
    gradients,
    run_training,
    tiny_network,
    tiny_task,
    torch_test,
)

from headstart.finetune import FineTuneConfig

if INSTALLED:
    import torch

    from headstart.finetune import precision
    from headstart.finetune.freeze import changing_tensors, make_plan
    from headstart.finetune.loop import State, predict
    from headstart.finetune.precision import MixedPrecision, bf16_pays, resolve_precision


@torch_test
def test_low_precision_trains_nearly_the_same_and_evaluates_exactly_the_same():
    config = FineTuneConfig(unfreeze_from="all", epochs=1, learning_rate=0.1, optimizer="sgd", layer_decay=1.0, **PLAIN)
    steps = {}
    for name in ("fp32", "bf16", "fp16"):
        network = tiny_network()
        before = copy_tensors(network)
        evaluation = tiny_task(network, replace(config, batch_size=5))
        scores = predict(evaluation, np.arange(COUNT))[0]
        state = State()
        run_training(network, replace(config, precision=name), state=state)
        trained = gradients(network, config)
        steps[name] = torch.cat([(network.state_dict()[key] - before[key]).reshape(-1) for key in trained])
        changing = changing_tensors(network, make_plan(network, config))
        assert all(value.dtype == torch.float32 for value in changing.values())
        assert (state.scaler == {}) == (name != "fp16")
        again = predict(replace(evaluation, network=tiny_network()), np.arange(COUNT))[0]
        np.testing.assert_array_equal(scores, again)
    for name in ("bf16", "fp16"):
        assert 0 < (steps[name] - steps["fp32"]).norm() < 0.05 * steps["fp32"].norm()


@torch_test
def test_scaling_keeps_gradients_too_small_for_fp16_and_skips_steps_that_overflow():
    weight = torch.nn.Parameter(torch.ones(2))
    mixed_precision = MixedPrecision.of("fp16", "cpu")
    optimizer = torch.optim.SGD([weight], lr=1.0)
    small_gradient = 1e-8  # less than the smallest positive number of fp16, 6e-8
    with mixed_precision.autocast():
        loss = (weight.half() * torch.tensor([small_gradient, 0.0]).float()).sum()
    mixed_precision.backward(loss)
    mixed_precision.unscale(optimizer)
    assert float(weight.grad[0]) == pytest.approx(small_gradient, rel=0.01)
    mixed_precision.step(optimizer)
    before, scale = weight.detach().clone(), mixed_precision.scaler.get_scale()
    optimizer.zero_grad()
    mixed_precision.backward((weight.half() * 60000).sum())
    mixed_precision.unscale(optimizer)
    mixed_precision.step(optimizer)
    assert torch.equal(weight, before)
    assert mixed_precision.scaler.get_scale() == scale / 2


@torch_test
def test_auto_is_native_bf16_or_the_precision_given_to_accelerate(monkeypatch):
    for has_bf16 in (True, False):
        monkeypatch.setattr(precision, "has_bf16", lambda has_bf16=has_bf16: has_bf16)
        assert resolve_precision("auto", fake_accelerator()) == ("bf16" if has_bf16 else "fp32")
        assert resolve_precision("auto", fake_accelerator(), bf16_pays=False) == "fp32"
        assert resolve_precision("fp32", fake_accelerator()) == "fp32"
        accelerator = fake_accelerator()
        accelerator.mixed_precision = "fp16"
        assert resolve_precision("auto", accelerator) == "fp16"
        assert resolve_precision("bf16", accelerator) == "bf16"


@torch_test
def test_bf16_pays_unless_single_channels_are_trained_early_or_the_network_is_of_keras():
    network = tiny_network()
    assert bf16_pays(network, {"conv0.weight", "conv2.weight"})
    network.conv0.groups = 3
    assert not bf16_pays(network, {"conv0.weight"})
    assert bf16_pays(network, {"conv1.weight", "conv2.weight"})  # only the last two of three stages
    network.provider = "keras"
    assert not bf16_pays(network, {"conv2.weight"})
